import Billing
import Domain
import NIOCore

/// How a SYNC reaches the store, from one event loop. ``RedisLedgerStore`` is the real one.
///
/// Bound to its loop: every call and every completion happens there.
package protocol LedgerTransport: AnyObject {
    var eventLoop: any EventLoop { get }

    /// Sends one SYNC. The completion is called exactly once.
    func sync(_ request: SyncRequest, completion: @escaping (Result<SyncAnswer, LedgerTransportFailure>) -> Void)

    /// What the key's rate windows hold, without spending. The completion is called exactly once; nil where the store
    /// does not say in time.
    func readRates(of key: KeyID, org: OrgID, completion: @escaping (RateStatus?) -> Void)
}

/// Why no answer came. Either way the call may have executed, or may execute later: revisions make that harmless.
package enum LedgerTransportFailure: Error, Hashable, Sendable {
    /// No connection, a closed one, or none in time.
    case unreachable
    /// The store answered with an error or with something that is no answer.
    case refused(String)
}
