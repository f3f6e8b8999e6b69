import Domain
import NIOCore
import Routing

// The end of a node's drain.
extension LoopContext {
    /// The node's drain time is over: what still runs there is tried elsewhere where nothing of its answer went down, and
    /// gets an error event otherwise.
    package func endRequests(on node: NodeID) {
        eventLoop.assertInEventLoop()
        for exchange in Array(running.values) { exchange.drainEnded(of: node) }
    }
}

extension Exchange {
    /// - Parameter drained: Where the request is nothing changes, unless it is there.
    func drainEnded(of drained: NodeID) {
        guard assignment != nil, node?.id == drained else { return }
        let failure = Failure(
            .upstreamUnavailable, "The model server was taken out of service. Please retry.", source: .gateway,
            retry: .otherNode)
        guard case .awaiting = machine.state else { return expire(failure) }
        call?.cancel()
        call = nil
        disarm(.firstByte)
        disarm(.streamIdle)
        self.failure = failure
        finishAssignment(.aborted)
        // The operator's doing, not a node's failing: it costs neither an attempt nor the retry budget.
        attemptsBefore += 1
        perform(machine.attemptFailed(failure, mayRetry: true))
    }
}
