import Billing
import Domain

/// Which keys one event loop has vouched for, and which ids it knows to be nobody's.
///
/// Both sides are bounded. Found keys stay until the auth version changes, and the least recently used leave first;
/// unknown ids are forgotten after ``negativeLifetime``, so that a flood of invented ones costs the store little and a
/// new key does not wait. Not a cache of secrets: every request is hashed and compared with the record's digest.
package final class KeyCache {
    package static let recordsMax = 20_000
    package static let unknownMax = 4_096
    package static let negativeLifetime = Duration.seconds(2)

    package enum Decision: Sendable {
        case authenticated(KeyRecord)
        /// Well-formed, and not known here: look it up, then call ``resolve(_:record:generation:now:)``.
        case lookup(KeyID, ParsedKey)
        /// No key at all: the header is absent or has no bearer token.
        case missing
        case invalid
    }

    private let hasher: KeyHasher
    /// Found keys in two halves: a hit in the old one moves to the young one, and when that is full the old one goes.
    /// As good as an LRU list for what it is for, without its links.
    private var young: [KeyID: KeyRecord] = [:]
    private var old: [KeyID: KeyRecord] = [:]
    private var unknown: [KeyID: MonotonicTime] = [:]
    /// Raised by every flush. An answer to a look-up that began before the flush may be older than what it was for, so
    /// it is not kept.
    package private(set) var generation = 0

    package init(hasher: KeyHasher) {
        self.hasher = hasher
    }

    package var count: Int { young.count + old.count }

    /// Decides from what is known here.
    ///
    /// - Parameter authorization: The value of the `Authorization` header: `Bearer sk-tg-...`; empty where there is none.
    package func authenticate(_ authorization: UnsafeRawBufferPointer, now: MonotonicTime) -> Decision {
        guard let token = Self.bearerToken(authorization) else { return .missing }
        guard let key = KeyFormat.parse(token) else { return .invalid }
        if let record = record(key.id) { return verify(key, record) }
        if let until = unknown[key.id] {
            if now < until { return .invalid }
            unknown[key.id] = nil
        }
        return .lookup(key.id, key)
    }

    /// Decides on what the directory said, and keeps it.
    ///
    /// - Parameters:
    ///   - record: nil where the directory has no such key.
    ///   - generation: ``generation`` as it was when the look-up began.
    package func resolve(
        _ key: ParsedKey, record: KeyRecord?, generation: Int, now: MonotonicTime
    ) -> Decision {
        guard let record else {
            if generation == self.generation { keepUnknown(key.id, now: now) }
            return .invalid
        }
        if generation == self.generation { keep(record) }
        return verify(key, record)
    }

    /// Forgets one key: the ledger said that it is not what the cache believes.
    package func forget(_ id: KeyID) {
        young[id] = nil
        old[id] = nil
        generation += 1
    }

    /// Forgets everything. Called when the auth version differs from the last one seen.
    package func flush() {
        young.removeAll(keepingCapacity: true)
        old.removeAll(keepingCapacity: true)
        unknown.removeAll(keepingCapacity: true)
        generation += 1
    }

    private func verify(_ key: ParsedKey, _ record: KeyRecord) -> Decision {
        record.isActive && hasher.matches(key.secret, record) ? .authenticated(record) : .invalid
    }

    private func record(_ id: KeyID) -> KeyRecord? {
        if let record = young[id] { return record }
        guard let record = old.removeValue(forKey: id) else { return nil }
        keep(record)
        return record
    }

    private func keep(_ record: KeyRecord) {
        if young.count >= Self.recordsMax / 2, young[record.id] == nil {
            old = young
            young = [:]
        }
        young[record.id] = record
    }

    private func keepUnknown(_ id: KeyID, now: MonotonicTime) {
        if unknown.count >= Self.unknownMax {
            unknown = unknown.filter { $0.value > now }
            if unknown.count >= Self.unknownMax { unknown.removeAll(keepingCapacity: true) }
        }
        unknown[id] = now.advanced(by: Self.negativeLifetime)
    }

    /// What follows `Bearer`, in any case, and one or more spaces.
    private static func bearerToken(_ header: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer? {
        let scheme: StaticString = "bearer "
        guard header.count > scheme.utf8CodeUnitCount else { return nil }
        for index in 0..<scheme.utf8CodeUnitCount {
            // Only letters have a case bit here, and the space has it set already.
            guard header[index] | 0x20 == scheme.utf8Start[index] else { return nil }
        }
        var start = scheme.utf8CodeUnitCount
        while start < header.count, header[start] == UInt8(ascii: " ") { start += 1 }
        var end = header.count
        while end > start, header[end - 1] == UInt8(ascii: " ") || header[end - 1] == UInt8(ascii: "\t") { end -= 1 }
        return start < end ? UnsafeRawBufferPointer(rebasing: header[start..<end]) : nil
    }
}
