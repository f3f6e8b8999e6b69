import NIOCore

/// One inference request between its arrival and its answer's end, on its node's event loop.
final class Exchange {
    enum Content {
        case generation(AnswerStateMachine)
        case pooled(PooledRequest)
        /// The answer is in the hands of the core, for as long as one call.
        case borrowed
    }

    let connection: NodeConnectionHandler
    let faults: RequestFaults
    let saysClose: Bool
    var content: Content
    /// Not yet in the engine: a fault delays the first token.
    var delay: Scheduled<Void>?
    /// What the engine is to do; given to it when the delay is over.
    var works: [NodeEngine.Work]
    /// Of those, the ones that it has not finished.
    var worksLeft: Int
    /// A write may make the connection writable within itself, which asks for more: that question comes too early.
    var isPumping = false
    /// Answered, reset or aborted: nothing more is written, and nothing more goes to the engine.
    var isOver = false
    /// A fault holds the answer still; only the connection's end ends it.
    var isStalled = false

    init(
        connection: NodeConnectionHandler, faults: RequestFaults, saysClose: Bool, content: Content,
        works: [NodeEngine.Work]
    ) {
        self.connection = connection
        self.faults = faults
        self.saysClose = saysClose
        self.content = content
        self.works = works
        worksLeft = works.count
    }
}
