import Foundation
import FuzzTargets
import Testing

/// The corpus of `SmugglingTests`, changed at random: what nginx holds back does not pass us, and what passes both is the
/// same requests.
///
/// The same mutations each time, so that a change is judged by what it changed; `make fuzz` tries others. A finding is to
/// become a case of its own in `SmugglingCases.swift`. `TOLLGATE_SMUGGLING_SEED` repeats a run,
/// `TOLLGATE_SMUGGLING_MUTATIONS` makes it longer.
@Suite(.serialized) struct SmugglingMutationTests {
    static let mutations = 400
    /// Connections that wait for their end cost time, not work: so many go on side by side, each with backends of its own.
    static let lanes = 8
    /// How often the two must disagree: in between, both may just have been slow.
    static let confirmations = 3

    private struct Lane: Sendable {
        /// One letter, as in the corpus, so that no length changes.
        let model: String
        let ours: FrontRecorder
        let theirs: FrontRecorder
        let nginx: NginxProcess
    }

    private static func number(_ name: String) -> UInt64? {
        ProcessInfo.processInfo.environment[name].flatMap(UInt64.init)
    }

    @Test func noMutationPassesUsThatNginxHoldsBack() async throws {
        let seed = Self.number("TOLLGATE_SMUGGLING_SEED") ?? 2_026
        let count = Self.number("TOLLGATE_SMUGGLING_MUTATIONS").map(Int.init) ?? Self.mutations
        print("smuggling mutations: seed \(seed), \(count) of them; TOLLGATE_SMUGGLING_SEED=\(seed) repeats them")
        var plan = GatewayPlan()
        plan.loops = 1
        plan.sections = ["timeouts: { header: 300ms, body: 300ms, idle: 300ms }"]
        var lanes: [Lane] = []
        for letter in "abcdefgh".prefix(Self.lanes) {
            let (ours, theirs) = (try FrontRecorder(), try FrontRecorder())
            plan.serve(String(letter), port: ours.node.port, engine: "openai")
            lanes.append(
                Lane(
                    model: String(letter), ours: ours, theirs: theirs,
                    nginx: try await NginxProcess(backend: theirs.node.port)))
        }
        let gateway = try await GatewayUnderTest.start(plan)
        let key = try await Customer.create(on: gateway).key
        let port = gateway.port
        let served = try await withThrowingTaskGroup(of: Int.self) { group in
            for (number, lane) in lanes.enumerated() {
                group.addTask {
                    var served = 0
                    for index in stride(from: number, to: count, by: Self.lanes) {
                        var mutator = SmugglingMutator(seed: seed &+ UInt64(index) &* 0x9E37_79B9)
                        let bytes = mutator.next()
                        let (we, finding) = try await Self.compare(bytes, key: key, port: port, lane)
                        served += we.reached.count
                        if let finding { Issue.record("seed \(seed), mutation \(index): \(finding)") }
                    }
                    return served
                }
            }
            return try await group.reduce(0, +)
        }
        // It measures something: not all of them are refused.
        #expect(served > count / 40)
        #expect(try await gateway.gauge("tollgate_illegal_events_total") == 0)
    }

    /// Sends the bytes to both until they agree, or have disagreed often enough.
    private static func compare(
        _ bytes: [UInt8], key: String, port: Int, _ lane: Lane
    ) async throws -> (we: FrontOutcome, finding: String?) {
        let growth = GatewayPlan.upstreamName(lane.model).utf8.count - 1
        let sent = filled(bytes, key: key, model: lane.model)
        var last: (we: FrontOutcome, finding: String?)?
        for _ in 0..<confirmations {
            let (we, they) = try await outcomes(sent, port: port, lane)
            if we.isWithin(they, bodyGrowth: growth) { return (we, nil) }
            // Where nginx refuses by a rule that decides nothing about where requests end, it agrees without that.
            if let plain = plain(sent) {
                let (us, them) = try await outcomes(plain, port: port, lane)
                if us.isWithin(them, bodyGrowth: growth), we.isWithin(us, bodyGrowth: 0) { return (we, nil) }
            }
            let text = String(decoding: filled(bytes, key: "KEY", model: lane.model), as: UTF8.self)
            let sizes = (we.reached.map(\.bodyBytes), they.reached.map(\.bodyBytes))
            last = (we, "we \(we) \(sizes.0), nginx \(they) \(sizes.1): \(text.debugDescription)")
        }
        return try #require(last)
    }

    private static func outcomes(
        _ bytes: [UInt8], port: Int, _ lane: Lane
    ) async throws -> (we: FrontOutcome, they: FrontOutcome) {
        async let mine = blocking { try FrontOutcome(of: bytes, port: port, lane.ours) }
        async let other = blocking { try FrontOutcome(of: bytes, port: lane.nginx.port, lane.theirs) }
        return try await (mine, other)
    }

    /// With a key in its places and the lane's model.
    private static func filled(_ bytes: [UInt8], key: String, model: String) -> [UInt8] {
        let models = replacing(Array(#""model":"m""#.utf8), in: bytes) { _ in Array(#""model":"\#(model)""#.utf8) }
        return replacing(Array(SmugglingCase.keyPlace.utf8), in: models) { _ in Array(key.utf8) }
    }

    private static func replacing(
        _ pattern: [UInt8], in bytes: [UInt8], _ replacement: (Range<Int>) -> [UInt8]
    ) -> [UInt8] {
        var result: [UInt8] = []
        var start = 0
        while let found = bytes[start...].firstRange(of: pattern) {
            result += bytes[start..<found.lowerBound] + replacement(found)
            start = found.upperBound
        }
        return result + bytes[start...]
    }

    /// The same without what `SmugglingTests.laxer` lists (tabs before values, odd hosts), and without a second
    /// `Authorization` (a 401 here) or `Expect`, for which nginx has a 400; and without a Connection field in which only
    /// nginx, which looks for the letters anywhere in it, finds `close`. Nil where there is none of it.
    private static func plain(_ bytes: [UInt8]) -> [UInt8]? {
        var plain = replacing(Array(":\t".utf8), in: bytes) { _ in Array(": ".utf8) }
        plain = replacing(Array("\nHost:".utf8), in: plain) { _ in Array("\nHost: gateway\r\nX:".utf8) }
        plain = replacing(Array("\nConnection:".utf8), in: plain) { found in
            let line = plain[found.upperBound...].prefix { $0 != 0x0D && $0 != 0x0A }
            return Array((line.elementsEqual(" close".utf8) ? "\nConnection:" : "\nX:").utf8)
        }
        for name in ["\nAuthorization:", "\nExpect:"].map({ Array($0.utf8) }) {
            let headEnd = plain.firstRange(of: Array("\r\n\r\n".utf8))?.lowerBound ?? plain.count
            guard let first = plain.firstRange(of: name) else { continue }
            plain = replacing(name, in: plain) { found in
                found.lowerBound > first.lowerBound && found.lowerBound < headEnd ? Array("\nX:".utf8) : name
            }
        }
        return plain == bytes ? nil : plain
    }
}
