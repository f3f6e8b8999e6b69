/// The words of one line of an event file, taken one after another.
struct EventLineReader {
    let words: [String]
    let file: String
    let line: Int
    private var position = 0

    init(words: [String], file: String, line: Int) {
        self.words = words
        self.file = file
        self.line = line
    }

    func failure(_ reason: String) -> EventFile.Failure {
        EventFile.Failure(file: file, line: line, reason: reason)
    }

    mutating func word(_ what: String) throws(EventFile.Failure) -> String {
        guard position < words.count else { throw failure("the line ends where \(what) is expected") }
        position += 1
        return words[position - 1]
    }

    mutating func keyword(_ wanted: String) throws(EventFile.Failure) {
        let found = try word(wanted)
        guard found == wanted else { throw failure("\(found) stands where '\(wanted)' is expected") }
    }

    mutating func duration() throws(EventFile.Failure) -> Double {
        let text = try word("a time such as 90s")
        guard let seconds = SimulationDuration.seconds(text) else {
            throw failure("\(text) is not a time such as 90s, 5m or 100ms")
        }
        return seconds
    }

    mutating func optionalDuration(_ keyword: String) throws(EventFile.Failure) -> Double? {
        guard position < words.count else { return nil }
        try self.keyword(keyword)
        return try duration()
    }

    /// `35%` or `0.35`, over 0 and up to 1.
    mutating func share() throws(EventFile.Failure) -> Double {
        let text = try word("a share such as 35%")
        let value = text.hasSuffix("%") ? Double(text.dropLast()).map { $0 / 100 } : Double(text)
        guard let value, value > 0, value <= 1 else { throw failure("\(text) is not a share such as 35%, over 0") }
        return value
    }

    func end() throws(EventFile.Failure) {
        guard position == words.count else { throw failure("\(words[position]) is one word too many") }
    }
}
