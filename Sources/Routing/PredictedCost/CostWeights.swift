/// What the terms of a predicted cost weigh. Found in simulation over several traces, fleets and loads; the reasons are
/// with the terms in ``CostTable``.
struct CostWeights: Sendable {
    static let standard = CostWeights()
    /// More gateways than this that nobody hears make nothing worse.
    static let unheardMax = 3.0

    /// Of the work that another cache could have saved.
    var duplicate = 2.0
    /// Further weight of the same per request that usually waits on each node.
    var duplicateQueued = 3.0
    /// The part of that which goes by the queue of the node itself: work is dearer where others wait for it. Among
    /// gateways that do not hear one another none of it: where their sessions live counts for more.
    var duplicateQueuedHere = 0.2
    /// Further weight of the same by the square of how many more than ``overloadFrom`` usually wait on each node, up to
    /// ``overloadMax``: beyond what the fleet can do, work done twice is all that is left to save. Not among gateways that do
    /// not hear one another, where it would send each request to what only this gateway knows to be warm.
    var duplicateOverload = 30.0
    var overloadFrom = 1.5
    var overloadMax = 4.0
    /// Weight of the newest decision in the requests that usually wait.
    var queuedWeight = 0.01
    /// What of the weight is left where a session's first and second node are concerned, among gateways that do not hear
    /// one another: the same elsewhere is done once more by each of them, there it is done for all.
    var duplicateWinner = 0.0
    var duplicateSecond = 0.15
    /// Of the prefill time that evicting costs those who come back.
    var evict = 6.0
    /// Of the slowing of each decoding request by our prefill.
    var decodeSlowing = 0.04
    /// So many times as much again for each request that usually waits on each node, up to one: where requests wait, prefill leaves
    /// answers little time, and a little more makes many of them too slow to be of use.
    var decodeSlowingQueued = 4.0
    /// Of the time that our own answer takes.
    var output = 0.1
    /// Of the time by which the first token of a node's head is late: what keeps it keeps those behind it as well. Late
    /// is what takes so many times as long as predicted and some seconds more: a fleet that is merely busier than it seems
    /// must not scatter its sessions for it.
    var overdue = 1.0
    var overdueFactor = 3.0
    var overdueSeconds = 2.0
    /// From this share of the KV cache on, memory costs.
    var kvShareFree = 0.85
    /// What a tenth of the KV cache above that costs, in seconds and per second of first token.
    var kvTenth = 0.5
    /// The chance that the rendezvous winner has the session, before anything is known.
    var hintChance = 0.2
    /// Weight of the newest sample.
    var hintWeight = 0.02
    /// Of equals within this share and so many seconds, any is as good.
    var tieShare = 0.01
    var tieSeconds = 0.002
}
