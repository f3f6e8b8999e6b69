import Foundation
import JSON
import Synchronization

/// A backend that writes down what reaches it.
final class FrontRecorder: Sendable {
    /// A request as the backend saw it.
    struct Reached: Sendable, CustomDebugStringConvertible {
        var method: String
        /// Without its query, by which the gateway decides nothing.
        var path: String
        /// Of the first message; nil where the body is none.
        var text: String?
        var bodyBytes: Int
        /// Names the most tokens; where the client does not, the gateway does, and the body grows by that.
        var isLimited: Bool

        var debugDescription: String { text?.debugDescription ?? "unreadable" }
    }

    private final class Requests: Sendable {
        let list = Mutex<[Reached]>([])
    }

    let node: ScriptedNode
    private let requests: Requests

    init() throws {
        let requests = Requests()
        self.requests = requests
        node = try ScriptedNode { peer in
            let body = peer.readBody()
            let words = (peer.head.split(separator: "\r\n").first ?? "").split(separator: " ")
            let path = (words.dropFirst().first ?? "").split(separator: "?", omittingEmptySubsequences: false).first
            let text = (try? JSONValue(parsing: body))?["messages"]?[0]?["content"]?.string
            let reached = Reached(
                method: String(words.first ?? ""), path: String(path ?? ""), text: text, bodyBytes: body.count,
                isLimited: body.firstRange(of: Array("\"max_tokens\":".utf8)) != nil)
            requests.list.withLock { $0.append(reached) }
            peer.write(ScriptedNode.answer(prompt: 1, completion: 1))
        }
    }

    func take() -> [Reached] {
        requests.list.withLock { list in
            defer { list = [] }
            return list
        }
    }
}

/// What came of bytes that were sent to a front.
struct FrontOutcome: CustomStringConvertible, Sendable {
    /// Of the answers, in order.
    var statuses: [Int]
    var reached: [FrontRecorder.Reached]
    var description: String { "\(statuses) reached \(reached)" }

    /// Sends the bytes and reads until the connection ends, which both servers see to.
    init(of bytes: [UInt8], port: Int, _ recorder: FrontRecorder) throws {
        let wire = try Wire(port: port)
        // The server may refuse and close before all of it is sent.
        try? wire.send(bytes)
        var text = ""
        do {
            text = try wire.rest()
        } catch Wire.Failure.reset(let got) {
            text = got
        }
        statuses = text.components(separatedBy: "HTTP/1.1 ").dropFirst().compactMap { Int($0.prefix(3)) }
            .filter { $0 >= 200 }
        reached = recorder.take()
    }

    /// Whether what reached our backend is what reached the other's, in the same order and of the same sizes, with
    /// requests left out.
    ///
    /// - Parameter bodyGrowth: Bytes that our front adds to each body.
    func isWithin(_ other: FrontOutcome, bodyGrowth: Int) -> Bool {
        var rest = other.reached[...]
        return reached.allSatisfy { request in
            let at = rest.firstIndex {
                ($0.method, $0.path, $0.text) == (request.method, request.path, request.text)
                    && (!$0.isLimited || $0.bodyBytes + bodyGrowth == request.bodyBytes)
            }
            guard let at else { return false }
            rest = rest[(at + 1)...]
            return true
        }
    }
}
