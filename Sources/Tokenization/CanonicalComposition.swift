/// Normalization form C, as of Unicode 9.0: what the normalizer of Hugging Face's `tokenizers` knows.
///
/// Most text is in the form already, so the text is read once for characters that may have to change
/// (`NFC_Quick_Check`), and only around them is anything computed: from the last boundary before to the next after, a
/// boundary being a starter that neither changes nor composes with anything before it. Such a segment is decomposed,
/// ordered by combining class and composed again (UAX #15). All steps are linear in the segment, whatever it is: long
/// runs of marks are ordered by counting.
struct CanonicalComposition {
    /// Runs of marks up to this long are ordered by insertion, which is faster; longer ones by counting.
    private static let insertionSortMax = 24

    private let tables = NormalizationTables.shared
    private var scalars: [UInt32] = []
    private var classes: [UInt8] = []
    private var sortedScalars: [UInt32] = []
    private var sortedClasses: [UInt8] = []
    private var encoded: [UInt8] = []

    /// - Parameters:
    ///   - bytes: Valid UTF-8; with other bytes the result means nothing, but no byte outside is read.
    ///   - output: Receives the normalized text instead of what it held; at most three times as many bytes.
    /// - Returns: False if the text is in form C: then `output` means nothing.
    static func normalized(_ bytes: UnsafeRawBufferPointer, into output: inout [UInt8]) -> Bool {
        let text = UTF8Text(bytes)
        guard var segment = nextSegment(in: text, from: 0) else { return false }
        var composition = CanonicalComposition()
        var copied = 0
        while true {
            composition.normalize(text, segment)
            // A character that may compose often does not; copying then would be for nothing.
            if !composition.encoded.elementsEqual(bytes[segment]) {
                if copied == 0 {
                    output.removeAll(keepingCapacity: true)
                    output.reserveCapacity(bytes.count)
                }
                output.append(contentsOf: bytes[copied..<segment.lowerBound])
                output.append(contentsOf: composition.encoded)
                copied = segment.upperBound
            }
            guard let next = nextSegment(in: text, from: segment.upperBound) else { break }
            segment = next
        }
        guard copied > 0 else { return false }
        output.append(contentsOf: bytes[copied...])
        return true
    }

    /// The next part of the text, from boundary to boundary, that may not be in form C.
    ///
    /// - Parameter start: A boundary.
    private static func nextSegment(in text: UTF8Text, from start: Int) -> Range<Int>? {
        let properties = NormalizationProperties()
        var position = start
        var boundary = start
        var lastClass: UInt8 = 0
        while position < text.count {
            while position + 8 <= text.count, ASCIIBytes.areASCII(text.word(at: position)) {
                position += 8
                boundary = position - 1
                lastClass = 0
            }
            guard position < text.count else { break }
            let (scalar, next) = text.scalar(at: position)
            if NormalizationProperties.isCommonBoundary(scalar) {
                boundary = position
                lastClass = 0
                position = next
                continue
            }
            let property = properties.of(scalar)
            if property.isBoundary {
                boundary = position
            } else if property.mayChange || (property.combiningClass != 0 && property.combiningClass < lastClass) {
                return boundary..<segmentEnd(in: text, from: next)
            }
            lastClass = property.combiningClass
            position = next
        }
        return nil
    }

    private static func segmentEnd(in text: UTF8Text, from start: Int) -> Int {
        let properties = NormalizationProperties()
        var position = start
        while position < text.count {
            let (scalar, next) = text.scalar(at: position)
            if properties.of(scalar).isBoundary { break }
            position = next
        }
        return position
    }

    /// Normalizes one segment into `encoded`.
    private mutating func normalize(_ text: UTF8Text, _ segment: Range<Int>) {
        scalars.removeAll(keepingCapacity: true)
        classes.removeAll(keepingCapacity: true)
        encoded.removeAll(keepingCapacity: true)
        var position = segment.lowerBound
        while position < segment.upperBound {
            let (scalar, next) = text.scalar(at: position)
            decompose(scalar)
            position = next
        }
        order()
        compose()
        for scalar in scalars { UTF8Text.append(scalar, to: &encoded) }
    }

    /// Appends the canonical decomposition of a character.
    ///
    /// The recursion is as deep as decompositions nest in the character database: four.
    private mutating func decompose(_ scalar: UInt32) {
        if let parts = Hangul.decomposition(of: scalar) {
            append(parts.leading, 0)
            append(parts.vowel, 0)
            if let trailing = parts.trailing { append(trailing, 0) }
            return
        }
        let property = NormalizationProperties().of(scalar)
        guard property.decomposes, let parts = tables.decomposition(of: scalar) else {
            append(scalar, property.combiningClass)
            return
        }
        decompose(parts.first)
        if let second = parts.second { decompose(second) }
    }

    private mutating func append(_ scalar: UInt32, _ combiningClass: UInt8) {
        scalars.append(scalar)
        classes.append(combiningClass)
    }

    /// Orders every run of marks by combining class, equal ones as they stand.
    private mutating func order() {
        var start = 0
        while start < classes.count {
            guard classes[start] != 0 else {
                start += 1
                continue
            }
            var end = start + 1
            while end < classes.count, classes[end] != 0 { end += 1 }
            if end - start <= Self.insertionSortMax { insertionSort(start..<end) } else { countingSort(start..<end) }
            start = end
        }
    }

    private mutating func insertionSort(_ run: Range<Int>) {
        for position in run.dropFirst() {
            var hole = position
            while hole > run.lowerBound, classes[hole - 1] > classes[hole] {
                classes.swapAt(hole - 1, hole)
                scalars.swapAt(hole - 1, hole)
                hole -= 1
            }
        }
    }

    private mutating func countingSort(_ run: Range<Int>) {
        var next = [Int](repeating: 0, count: 257)
        for position in run { next[Int(classes[position]) + 1] += 1 }
        for combiningClass in 1..<next.count { next[combiningClass] += next[combiningClass - 1] }
        sortedScalars.removeAll(keepingCapacity: true)
        sortedClasses.removeAll(keepingCapacity: true)
        sortedScalars.append(contentsOf: scalars[run])
        sortedClasses.append(contentsOf: classes[run])
        for (scalar, combiningClass) in zip(sortedScalars, sortedClasses) {
            let place = run.lowerBound + next[Int(combiningClass)]
            next[Int(combiningClass)] += 1
            scalars[place] = scalar
            classes[place] = combiningClass
        }
    }

    /// Composes each character with the last starter before it, unless something between blocks it.
    private mutating func compose() {
        var written = 0
        var starter: Int?
        var lastClass: UInt8 = 0
        for position in 0..<scalars.count {
            let scalar = scalars[position]
            let combiningClass = classes[position]
            if let starter, starter + 1 == written || lastClass < combiningClass,
                let composite = tables.composition(of: scalars[starter], scalar)
            {
                scalars[starter] = composite
                continue
            }
            if combiningClass == 0 { starter = written }
            lastClass = combiningClass
            scalars[written] = scalar
            written += 1
        }
        scalars.removeLast(scalars.count - written)
    }
}
