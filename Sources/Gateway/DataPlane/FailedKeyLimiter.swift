import Domain

/// How many requests without a good key one address may send: so many in a window that begins with the first.
package struct FailedKeyLimit: Hashable, Sendable {
    package static let countMax = 1_000_000
    package static let standard = FailedKeyLimit(count: 20, window: .seconds(60))

    package var count: Int
    package var window: Duration

    package init(count: Int, window: Duration) {
        self.count = count
        self.window = window
    }
}

/// Counts keys that failed, by address; IPv6 by its /64, which is what one customer is given.
///
/// Decides only what happens to requests that have no key this gateway has vouched for: a key in the cache never comes
/// here, so a bad neighbour behind the same address does not lock others out. A well-formed key that is not cached is
/// refused along with the rest while its address is limited, unless it was good before: whether it exists is not said.
///
/// Pure; behind one mutex for all loops, off the path of requests that succeed.
package struct FailedKeyLimiter {
    /// Addresses counted at once, about 10 MB at most; past it the oldest window is forgotten.
    package static let addressesMax = 100_000

    private struct Window {
        var failures: Int
        let endsAt: MonotonicTime
    }

    private let addressesMax: Int
    private var windows: [IPAddress: Window] = [:]
    /// In the order in which windows began, a ring that grows to ``addressesMax``: the first to begin is the first to end.
    private var order: [IPAddress] = []
    private var first = 0

    package init(addressesMax: Int = Self.addressesMax) {
        self.addressesMax = addressesMax
    }

    package var count: Int { windows.count }

    /// A key of this address failed.
    package mutating func failed(_ address: IPAddress, limit: FailedKeyLimit, now: MonotonicTime) {
        let address = address.site
        if let window = windows[address], now < window.endsAt {
            windows[address]?.failures += 1
            return
        }
        let fresh = Window(failures: 1, endsAt: now.advanced(by: limit.window))
        if windows.updateValue(fresh, forKey: address) != nil {
            // Its old place in the ring goes on standing for it: it is forgotten somewhat early at worst.
            return
        }
        guard order.count == addressesMax else { return order.append(address) }
        windows[order[first]] = nil
        order[first] = address
        first = (first + 1) % addressesMax
    }

    /// - Returns: How long the address has to wait, in milliseconds; nil where it may try.
    package func wait(for address: IPAddress, limit: FailedKeyLimit, now: MonotonicTime) -> Int64? {
        guard let window = windows[address.site], window.failures >= limit.count, now < window.endsAt else {
            return nil
        }
        return max(1, (window.endsAt.nanoseconds(since: now) + 999_999) / 1_000_000)
    }
}
