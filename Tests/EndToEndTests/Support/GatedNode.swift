import Foundation
import Synchronization

/// A model server that answers when the test says so, one request after the other, and notes in which order they came.
final class GatedNode: Sendable {
    private final class State: Sendable {
        let order = Mutex<[String]>([])
        let running = Mutex(0)
        let most = Mutex(0)
        let gate = DispatchSemaphore(value: 0)
    }

    private let state: State
    private let node: ScriptedNode

    var port: Int { node.port }
    var requests: Int { node.requests }
    /// The marks of the requests so far: what stands between `<` and `>` in the prompt.
    var order: [String] { state.order.withLock { $0 } }
    /// The most that it had at once.
    var most: Int { state.most.withLock { $0 } }

    init(_ model: String) throws {
        let state = State()
        self.state = state
        node = try ScriptedNode { peer in
            let body = String(decoding: peer.readBody(), as: UTF8.self)
            let mark = body.firstMatch(of: /<([^<>]*)>/).map { String($0.1) } ?? ""
            state.order.withLock { $0.append(mark) }
            let running = state.running.withLock {
                $0 += 1
                return $0
            }
            state.most.withLock { $0 = max($0, running) }
            state.gate.wait()
            state.running.withLock { $0 -= 1 }
            peer.write(
                ScriptedNode.answer(prompt: 5, completion: 2, text: mark, model: GatewayPlan.upstreamName(model)))
        }
    }

    /// Lets so many requests be answered, those that come later too.
    func answer(_ count: Int = 1) {
        for _ in 0..<count { state.gate.signal() }
    }

    deinit { answer(1_000) }
}
