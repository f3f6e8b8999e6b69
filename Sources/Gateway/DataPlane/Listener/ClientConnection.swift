/// A client's connection as its loop sees it, whatever it speaks: counted while it is registered, and told to end.
package protocol ClientConnection: AnyObject {
    /// The gateway stops: idle connections close now, others after the answers that they wait for.
    func drain()
    /// The drain time is over: what still runs is answered with a failure, and the connection closes.
    func drainExpired()
}
