import Domain
import Foundation

/// Runs blocking work on a thread of its own, so that neither the tests' pool nor an event loop waits for a socket.
func blocking<Value: Sendable>(_ work: @escaping @Sendable () throws -> Value) async throws -> Value {
    try await withCheckedThrowingContinuation { continuation in
        Thread.detachNewThread { continuation.resume(with: Result { try work() }) }
    }
}

/// What did not come about in time, and how things stood.
struct NotInTime: Error, CustomStringConvertible {
    let description: String

    init(_ what: String) { description = "not in time: \(what)" }
}

/// How often a condition is looked at.
let pollInterval = Duration.milliseconds(5)

/// Looks until there is a value.
///
/// - Throws: ``NotInTime`` after `limit`; what `look` throws, at once.
func eventually<Value: Sendable>(
    _ what: String, within limit: Duration = .seconds(10), look: () async throws -> Value?
) async throws -> Value {
    let deadline = MonotonicTime.now().advanced(by: limit)
    while true {
        if let value = try await look() { return value }
        guard MonotonicTime.now() < deadline else { throw NotInTime(what) }
        try await Task.sleep(for: pollInterval)
    }
}

/// Looks until the condition holds.
func until(
    _ what: String, within limit: Duration = .seconds(10), _ condition: () async throws -> Bool
) async throws {
    _ = try await eventually(what, within: limit) { try await condition() ? true : nil }
}
