import JSON

/// A value inside a file, with what is needed to say where it is and what is wrong with it.
struct JSONSection {
    let file: String
    /// Such as `model.merges`; empty for the whole file.
    let path: String
    // SAFETY: the bytes given to ``Tokenizer/load(_:named:pattern:)``, which outlive the call.
    let text: UnsafeRawBufferPointer
    let span: Range<Int>

    init(_ file: String, _ text: UnsafeRawBufferPointer) {
        self.file = file
        path = ""
        self.text = text
        span = 0..<text.count
    }

    private init(_ parent: JSONSection, _ name: String, _ span: Range<Int>) {
        file = parent.file
        path = parent.path.isEmpty ? name : "\(parent.path).\(name)"
        text = parent.text
        self.span = span
    }

    var kind: JSONKind { JSONDecoding.kind(at: span.lowerBound, in: text) }
    var isNull: Bool { kind == .null }
    private var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: text[span]) }

    func error(_ reason: TokenizerError.Reason, _ message: String) -> TokenizerError {
        TokenizerError(reason, in: file, path.isEmpty ? message : "\(path): \(message)")
    }

    /// The member of that name, or nil. Validates the section's grammar on the way where it was not yet.
    func members() throws(TokenizerError) -> [String: JSONSection] {
        var found: [String: JSONSection] = [:]
        do throws(JSONError) {
            var scanner = JSONScanner(bytes)
            guard try scanner.peek() == UInt8(ascii: "{") else { throw JSONError(.expectedValue, at: 0) }
            try scanner.enter()
            var isFirst = true
            while let key = try scanner.nextMember(&isFirst) {
                let name = JSONDecoding.text(key, in: bytes)
                let value = try scanner.value()
                let shifted = (value.lowerBound + span.lowerBound)..<(value.upperBound + span.lowerBound)
                guard found.updateValue(JSONSection(self, name, shifted), forKey: name) == nil else {
                    throw JSONError(.duplicateKey, at: key.content.lowerBound)
                }
            }
            try scanner.finish()
        } catch {
            throw wrong(error)
        }
        return found
    }

    /// Goes through an object of many members; `body` gets the key and a scanner standing at the value, which it takes.
    func forEachMember(
        _ body: (UnsafeRawBufferPointer, JSONString, inout JSONScanner) throws(SectionError) -> Void
    ) throws(TokenizerError) {
        try scan(UInt8(ascii: "{"), "an object") { (scanner) throws(SectionError) in
            var isFirst = true
            while let key = try json({ () throws(JSONError) in try scanner.nextMember(&isFirst) }) {
                try body(bytes, key, &scanner)
            }
        }
    }

    /// Goes through an array; `body` gets a scanner standing at the element, which it takes, and its index.
    func forEachElement(
        _ body: (UnsafeRawBufferPointer, Int, inout JSONScanner) throws(SectionError) -> Void
    ) throws(TokenizerError) {
        try scan(UInt8(ascii: "["), "an array") { (scanner) throws(SectionError) in
            var isFirst = true
            var index = 0
            while try json({ () throws(JSONError) in try scanner.nextElement(&isFirst) }) {
                try body(bytes, index, &scanner)
                index += 1
            }
        }
    }

    private func scan(
        _ opening: UInt8, _ name: String, _ body: (inout JSONScanner) throws(SectionError) -> Void
    ) throws(TokenizerError) {
        do throws(SectionError) {
            var scanner = JSONScanner(bytes)
            guard try json({ () throws(JSONError) in try scanner.peek() }) == opening else {
                throw .said(.malformed, "expected \(name)")
            }
            try json { () throws(JSONError) in try scanner.enter() }
            try body(&scanner)
            try json { () throws(JSONError) in try scanner.finish() }
        } catch {
            switch error {
            case .grammar(let error): throw wrong(error)
            case .said(let reason, let message): throw self.error(reason, message)
            case .tokenizer(let error): throw error
            }
        }
    }

    /// The whole section as a small document.
    func value() throws(TokenizerError) -> JSONValue {
        do throws(JSONError) { return try JSONValue(parsing: bytes) } catch { throw wrong(error) }
    }

    private func wrong(_ error: JSONError) -> TokenizerError {
        self.error(.malformed, "at byte \(span.lowerBound + error.offset) of the file: \(error.explanation)")
    }
}

/// What stops a walk over a section; the section adds where it was.
enum SectionError: Error {
    case grammar(JSONError)
    case said(TokenizerError.Reason, String)
    case tokenizer(TokenizerError)
}

/// Runs a step of a scanner inside a walk.
@inline(__always)
func json<Value>(_ step: () throws(JSONError) -> Value) throws(SectionError) -> Value {
    do throws(JSONError) { return try step() } catch { throw .grammar(error) }
}
