import Foundation
import FuzzTargets
import JSON
import Synchronization
import Testing

/// The same ambiguous requests to the gateway and to nginx, each in front of a backend that writes down what reaches it.
///
/// nginx is the measure since it is what mostly stands in front: where it refuses and we serve, or where more requests
/// come out of us than out of it, the two disagree on where requests begin and end, which is what smuggling needs. Being
/// stricter is fine.
@Suite(.serialized) struct SmugglingTests {
    /// Cases in which we serve what nginx does not, and why that is safe.
    static let laxer: [String: String] = [
        "coding-tab": "a tab is as good a blank as a space before a value (RFC 9110, 5.5); both readings are chunked",
        "host-with-path": "the gateway decides nothing by Host and passes it to nobody; there must be one, that is all",
    ]

    /// What nodes saw: the texts of the messages, in order.
    final class Recorder: Sendable {
        private final class Texts: Sendable {
            let list = Mutex<[String]>([])
        }

        let node: ScriptedNode
        private let texts: Texts

        init() throws {
            let texts = Texts()
            self.texts = texts
            node = try ScriptedNode { peer in
                let body = peer.readBody()
                let text = (try? JSONValue(parsing: body))?["messages"]?[0]?["content"]?.string
                texts.list.withLock { $0.append(text ?? "unreadable") }
                peer.write(ScriptedNode.answer(prompt: 1, completion: 1))
            }
        }

        func take() -> [String] {
            texts.list.withLock { list in
                defer { list = [] }
                return list
            }
        }
    }

    struct Outcome: CustomStringConvertible, Sendable {
        /// Of the answers, in order.
        var statuses: [Int]
        var reached: [String]
        var description: String { "\(statuses) reached \(reached)" }
    }

    /// Sends the bytes and reads until the connection ends, which both servers see to.
    private static func outcome(of bytes: [UInt8], port: Int, _ recorder: Recorder) throws -> Outcome {
        let wire = try Wire(port: port)
        // The server may refuse and close before all of it is sent.
        try? wire.send(bytes)
        var text = ""
        do {
            text = try wire.rest()
        } catch Wire.Failure.reset(let got) {
            text = got
        }
        let statuses = text.components(separatedBy: "HTTP/1.1 ").dropFirst().compactMap { Int($0.prefix(3)) }
        return Outcome(statuses: statuses.filter { $0 >= 200 }, reached: recorder.take())
    }

    /// Whether one list is the other with elements left out.
    private static func isWithin(_ few: [String], _ many: [String]) -> Bool {
        var rest = many[...]
        return few.allSatisfy { text in
            guard let at = rest.firstIndex(of: text) else { return false }
            rest = rest[(at + 1)...]
            return true
        }
    }

    @Test func nothingPassesUsThatNginxHoldsBack() async throws {
        let ours = try Recorder()
        let theirs = try Recorder()
        var plan = GatewayPlan()
        plan.loops = 1
        plan.sections = ["timeouts: { header: 300ms, body: 300ms, idle: 300ms }"]
        plan.serve("m", port: ours.node.port, engine: "openai")
        let gateway = try await GatewayUnderTest.start(plan)
        let nginx = try await NginxProcess(backend: theirs.node.port)
        let key = try await Customer.create(on: gateway).key
        let ports = (gateway: gateway.port, nginx: nginx.port)
        var report: [String] = []
        for one in SmugglingCase.all {
            let bytes = one.bytes(key: key)
            async let mine = blocking { try Self.outcome(of: bytes, port: ports.gateway, ours) }
            async let other = blocking { try Self.outcome(of: bytes, port: ports.nginx, theirs) }
            let (we, they) = try await (mine, other)
            report.append("\(one.name): we \(we), nginx \(they)")
            let isLaxer = we.reached.count > they.reached.count
            if Self.laxer[one.name] == nil {
                #expect(!isLaxer, "\(one.name): we \(we), nginx \(they)")
            } else {
                #expect(isLaxer, "\(one.name) is no exception any more: we \(we), nginx \(they)")
            }
            if !isLaxer {
                // What we let through they let through, too, in the same order.
                #expect(Self.isWithin(we.reached, they.reached), "\(one.name): we \(we), nginx \(they)")
            }
            #expect(!we.reached.contains("unreadable"), "\(one.name): \(we)")
        }
        if let file = ProcessInfo.processInfo.environment["TOLLGATE_SMUGGLING_REPORT"] {
            try report.joined(separator: "\n").write(toFile: file, atomically: true, encoding: .utf8)
        }
        #expect(report.count >= 60)
        // The measure measures: what is plain passes both.
        for one in report.prefix(3) {
            #expect(one.hasSuffix("we [200] reached [\"x\"], nginx [200] reached [\"x\"]"), "\(one)")
        }
    }
}
