import Synchronization

/// `limits.buffered_bytes`: what the request bodies of all loops may hold together.
package final class BufferBudget: Sendable {
    private let taken = Atomic<Int>(0)
    private let bytesMax: Atomic<Int>

    package init(bytesMax: Int) {
        self.bytesMax = Atomic(bytesMax)
    }

    /// Bytes held now.
    package var used: Int { taken.load(ordering: .relaxed) }

    package func resize(bytesMax: Int) {
        self.bytesMax.store(bytesMax, ordering: .relaxed)
    }

    /// - Returns: Whether the bytes fit; where not, nothing was taken.
    package func take(_ count: Int) -> Bool {
        let after = taken.wrappingAdd(count, ordering: .relaxed).newValue
        guard after > bytesMax.load(ordering: .relaxed) else { return true }
        taken.wrappingSubtract(count, ordering: .relaxed)
        return false
    }

    package func giveBack(_ count: Int) {
        guard count > 0 else { return }
        taken.wrappingSubtract(count, ordering: .relaxed)
    }
}
