/// One change to a body or an event: `removed` bytes at `offset` give way to `inserted`.
package struct BodyEdit: Hashable, Sendable {
    package let offset: Int
    package let removed: Int
    package let inserted: [UInt8]

    package init(offset: Int, removed: Int, inserted: [UInt8]) {
        self.offset = offset
        self.removed = removed
        self.inserted = inserted
    }

    package init(replacing span: Range<Int>, with inserted: [UInt8]) {
        self.init(offset: span.lowerBound, removed: span.count, inserted: inserted)
    }
}

extension [BodyEdit] {
    /// How much longer the bytes become.
    package var growth: Int { reduce(0) { $0 + $1.inserted.count - $1.removed } }
}

/// Applies edits to bytes: a copy with the changes in it.
///
/// - Parameter edits: In ascending order, not overlapping, as everything in this target returns them.
package func applyEdits(_ edits: [BodyEdit], to bytes: some Collection<UInt8>) -> [UInt8] {
    var result: [UInt8] = []
    result.reserveCapacity(bytes.count + Swift.max(0, edits.growth))
    var rest = bytes[...]
    var taken = 0
    for edit in edits {
        assert(edit.offset >= taken && edit.offset + edit.removed <= bytes.count, "edits overlap or pass the end")
        result.append(contentsOf: rest.prefix(edit.offset - taken))
        rest = rest.dropFirst(edit.offset - taken + edit.removed)
        taken = edit.offset + edit.removed
        result.append(contentsOf: edit.inserted)
    }
    result.append(contentsOf: rest)
    return result
}
