import Foundation

/// Reads what is to happen in a run, an event a line:
///
/// ```
/// # seconds since the start of the run, then what; units s, m, h; empty lines and comments are passed over
/// 60s   kill node-3
/// 90s   join node-3                          # starts again, its cache empty; or a new node, the next number
/// 120s  churn 30% every 30s for 5m           # each time the next 30 % die and are back after half the interval
/// 120s  curtail austin to 35% for 10m        # a site, a node, several with commas, or all
/// 900s  restore austin
/// 200s  freeze node-0,node-1 for 30s         # their metrics stay what they are
/// 240s  thaw all
/// 300s  surge org-2 x10 for 2m               # the org sends ten times its share
/// ```
package struct EventFile: Sendable {
    package struct Failure: Error, Hashable, Sendable, CustomStringConvertible {
        package var file: String
        /// nil where the file as a whole is at fault.
        package var line: Int?
        package var reason: String

        package var description: String { "\(file):\(line.map { "\($0):" } ?? "") \(reason)" }
    }

    package static let bytesMax = 1 << 20
    package static let eventsMax = 100_000

    /// In the order of time.
    package private(set) var script: [ScriptedEvent] = []
    package private(set) var surges: [Surge] = []

    private let file: String
    private let fleet: FleetSpec
    private let orgs: Int

    package static func read(_ path: String, fleet: FleetSpec, orgs: Int) throws(Failure) -> EventFile {
        guard let data = FileManager.default.contents(atPath: path) else {
            throw Failure(file: path, reason: "cannot be read: check that the file exists and may be read")
        }
        guard data.count <= bytesMax else { throw Failure(file: path, reason: "larger than \(bytesMax) bytes") }
        return try EventFile(String(decoding: data, as: UTF8.self), file: path, fleet: fleet, orgs: orgs)
    }

    package init(_ text: String, file: String, fleet: FleetSpec, orgs: Int) throws(Failure) {
        self.file = file
        self.fleet = fleet
        self.orgs = orgs
        var origins: [(line: Int, event: ScriptedEvent)] = []
        for (index, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
            let words = line.prefix { $0 != "#" }.split { $0.isWhitespace }.map(String.init)
            if words.isEmpty { continue }
            let before = script.count
            var reader = EventLineReader(words: words, file: file, line: index + 1)
            try readLine(&reader)
            origins += script[before...].map { (index + 1, $0) }
            guard script.count <= Self.eventsMax else {
                throw Failure(file: file, line: index + 1, reason: "more than \(Self.eventsMax) events")
            }
        }
        origins.sort { ($0.event.seconds, $0.line) < ($1.event.seconds, $1.line) }
        script = origins.map(\.event)
        try checkJoins(origins)
    }

    private mutating func readLine(_ reader: inout EventLineReader) throws(Failure) {
        let start = try reader.duration()
        switch try reader.word("an event") {
        case "kill":
            for node in try nodes(&reader) { add(start, .kill(node: node)) }
        case "join":
            let name = try reader.word("a node")
            guard let number = name.hasPrefix("node-") ? Int(name.dropFirst(5)) : nil,
                (0..<FleetSpec.nodesMax).contains(number)
            else { throw reader.failure("\(name) is not a node: they are named node-0 and so on") }
            add(start, .join(node: number))
        case "churn": try readChurn(from: start, &reader)
        case "curtail":
            let curtailed = try nodes(&reader)
            try reader.keyword("to")
            let share = try reader.share()
            add(start, .curtail(nodes: curtailed, share: share))
            if let seconds = try reader.optionalDuration("for") {
                add(start + seconds, .curtail(nodes: curtailed, share: 1))
            }
        case "restore": add(start, .curtail(nodes: try nodes(&reader), share: 1))
        case "freeze":
            let frozen = try nodes(&reader)
            add(start, .freeze(nodes: frozen, isFrozen: true))
            if let seconds = try reader.optionalDuration("for") {
                add(start + seconds, .freeze(nodes: frozen, isFrozen: false))
            }
        case "thaw": add(start, .freeze(nodes: try nodes(&reader), isFrozen: false))
        case "surge": try readSurge(from: start, &reader)
        case let other:
            throw reader.failure(
                "\(other) is no event: use kill, join, churn, curtail, restore, freeze, thaw or surge")
        }
        try reader.end()
    }

    private mutating func readChurn(from start: Double, _ reader: inout EventLineReader) throws(Failure) {
        let share = try reader.share()
        try reader.keyword("every")
        let interval = try reader.duration()
        try reader.keyword("for")
        let length = try reader.duration()
        let count = max(1, Int((share * Double(fleet.nodes.count)).rounded()))
        // Each that dies comes back.
        guard interval > 0, (length / interval).rounded(.up) * Double(2 * count) <= Double(Self.eventsMax) else {
            throw reader.failure("churn needs an interval over 0, and at most \(Self.eventsMax) events")
        }
        var next = 0
        var seconds = 0.0
        while seconds < length {
            for _ in 0..<count {
                add(start + seconds, .kill(node: next))
                add(start + seconds + interval / 2, .join(node: next))
                next = (next + 1) % fleet.nodes.count
            }
            seconds += interval
        }
    }

    private mutating func readSurge(from start: Double, _ reader: inout EventLineReader) throws(Failure) {
        let name = try reader.word("an org")
        guard let org = name.hasPrefix("org-") ? Int(name.dropFirst(4)) : nil, (0..<orgs).contains(org) else {
            throw reader.failure("\(name) is not an org of this run: they are org-0 to org-\(orgs - 1)")
        }
        let factor = try reader.word("a factor such as x10")
        guard factor.first == "x", let times = Double(factor.dropFirst()), (1...1_000).contains(times) else {
            throw reader.failure("\(factor) is not a factor such as x10, from x1 to x1000")
        }
        try reader.keyword("for")
        surges.append(Surge(org: org, factor: times, start: start, seconds: try reader.duration()))
    }

    private mutating func add(_ seconds: Double, _ action: ScriptedEvent.Action) {
        script.append(ScriptedEvent(seconds: seconds, action: action))
    }

    /// Nodes, sites or `all`, with commas.
    private func nodes(_ reader: inout EventLineReader) throws(Failure) -> [Int] {
        var found: [Int] = []
        for name in try reader.word("a node, a site or all").split(separator: ",").map(String.init) {
            if name == "all" {
                found += fleet.nodes.indices
            } else if let site = FleetSpec.siteNames.firstIndex(of: name) {
                found += fleet.nodes.indices.filter { fleet.nodes[$0].site == site }
            } else if let node = fleet.index(of: name) {
                found.append(node)
            } else {
                throw reader.failure(
                    "\(name) is no node of this fleet (node-0 to node-\(fleet.nodes.count - 1)) and no site "
                        + "(\(FleetSpec.siteNames.joined(separator: ", ")))")
            }
        }
        return found
    }

    /// New nodes take the next numbers, or what the run knows of them would have gaps.
    private func checkJoins(_ events: [(line: Int, event: ScriptedEvent)]) throws(Failure) {
        var count = fleet.nodes.count
        for (line, event) in events {
            guard case .join(let node) = event.action else { continue }
            guard node <= count else {
                throw Failure(file: file, line: line, reason: "node-\(node) joins before node-\(count)")
            }
            if node == count { count += 1 }
        }
    }
}
