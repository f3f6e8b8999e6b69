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

    /// - Returns: Memory for `count` words, all 0, which takes no time before it is used; freed with
    ///   ``deallocateZeros(_:_:)``.
    static func allocateZeros(_ count: Int) -> UnsafeMutablePointer<UInt64> {
        let bytes = mapped(count)
        let access = PROT_READ | PROT_WRITE
        let mapping = mmap(nil, bytes + hugePage, access, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        guard let mapping, mapping != MAP_FAILED else { preconditionFailure("out of memory") }
        // What is before and after the aligned part goes back.
        let before = (hugePage - Int(bitPattern: mapping) & (hugePage - 1)) & (hugePage - 1)
        if before > 0 { _ = munmap(mapping, before) }
        if before < hugePage { _ = munmap(mapping + before + bytes, hugePage - before) }
        _ = madvise(mapping + before, bytes, MADV_HUGEPAGE)
        // SAFETY: `bytes` bytes, aligned to a huge page; the system gives them as zeros.
        return (mapping + before).bindMemory(to: UInt64.self, capacity: count)
    }

    static func deallocateZeros(_ memory: UnsafeMutablePointer<UInt64>, _ count: Int) { munmap(memory, mapped(count)) }

    /// The bytes of whole pages for that many words.
    private static func mapped(_ count: Int) -> Int {
        let page = Int(getpagesize())
        return (count * 8 + page - 1) & ~(page - 1)
    }
}
