import Glibc

/// Memory of the large tables, on huge pages where the system has them: look-ups go anywhere in megabytes, and with
/// pages of 4 KiB each would miss the address translation cache as well.
enum TableMemory {
    private static let hugePage = 2 << 20

    /// - Returns: Memory for `count` elements, all `value`; freed with ``deallocate(_:)``.
    static func allocate<Element: BitwiseCopyable>(_ count: Int, repeating value: Element) -> UnsafeMutablePointer<
        Element
    > {
        let bytes = count * MemoryLayout<Element>.stride
        var memory: UnsafeMutableRawPointer?
        let alignment = bytes >= hugePage ? hugePage : 128
        guard posix_memalign(&memory, alignment, max(bytes, 1)) == 0, let memory else {
            preconditionFailure("out of memory")
        }
        // Advice: where it is not followed, the tables are only slower.
        if bytes >= hugePage { _ = madvise(memory, bytes, MADV_HUGEPAGE) }
        // SAFETY: `bytes` bytes at an alignment greater than any element's.
        let elements = memory.bindMemory(to: Element.self, capacity: count)
        elements.initialize(repeating: value, count: count)
        return elements
    }

    static func deallocate(_ memory: UnsafeMutableRawPointer) { free(memory) }
}
