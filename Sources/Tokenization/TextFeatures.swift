/// What of a prompt tells how many tokens it has, whatever the vocabulary: counts of classes of bytes and of where runs
/// of them begin. Of a fixed size, and holding nothing of the text itself.
package struct TextFeatures: Sendable {
    /// What is counted. Byte-pair vocabularies have most words whole, so words and not letters are what costs; the other
    /// classes correct for that.
    package enum Feature: Int, CaseIterable, Sendable {
        /// Messages of the chat: what its template adds.
        case messages
        /// Runs of ASCII letters.
        case words
        case capitals
        /// ASCII letters after the fourth of their run: long words are made of several tokens.
        case deepLetters
        case digits, digitRuns
        case newlines
        /// Newlines after a newline.
        case emptyLines
        /// Tabs and other controls.
        case controls
        /// Spaces after a space.
        case moreSpaces
        case punctuation
        /// Punctuation after the same.
        case repeatedPunctuation
        /// Words right after punctuation, and right after a space.
        case wordsAfterPunctuation, wordsAfterSpace
        case cyrillic
        /// Other characters of two bytes of UTF-8.
        case twoByte
        /// Han characters: U+4000 to U+9FFF.
        case han
        /// Those of them that written Chinese uses most (``FrequentHan``): of the others vocabularies have fewer whole.
        case frequentHan
        /// U+3000 to U+3FFF: kana, and punctuation of Chinese and Japanese.
        case kana
        case hangul
        /// Other characters of three bytes, and of four.
        case threeByte, fourByte
        /// Runs of bytes that are not ASCII.
        case otherRuns
        /// Their bytes after the eighth of their run.
        case deepOther
        /// Han characters in ranges where radicals are written the traditional way, and the simplified way:
        /// vocabularies have far fewer of one than of the other.
        case traditionalHan, simplifiedHan
    }

    /// Room for all features. Short vectors: a long one would align whoever keeps it to its own size.
    private typealias Counts = (
        SIMD4<UInt32>, SIMD4<UInt32>, SIMD4<UInt32>, SIMD4<UInt32>, SIMD4<UInt32>, SIMD4<UInt32>, SIMD4<UInt32>
    )
    /// By `Feature.rawValue`; counts stop at `UInt32.max`.
    private var counts: Counts = (.zero, .zero, .zero, .zero, .zero, .zero, .zero)
    /// Bytes that were read, escapes as they stand.
    package private(set) var bytes = 0

    package init() {}

    /// Counts the bytes of JSON strings: an escape counts as what it stands for. One pass, nothing allocated; any bytes
    /// will do.
    package init(_ text: UnsafeRawBufferPointer) {
        bytes = text.count
        withUnsafeMutableBytes(of: &counts) { counts in
            // SAFETY: 28 numbers, more than there are features, all zero; the scanner ends before they do.
            var scanner = FeatureScanner(text, counts.bindMemory(to: UInt32.self))
            scanner.scan()
        }
    }

    package var messages: Int {
        get { self[.messages] }
        set { self[.messages] = newValue }
    }

    private(set) subscript(_ feature: Feature) -> Int {
        get { withUnsafeBytes(of: counts) { Int($0.load(fromByteOffset: feature.rawValue * 4, as: UInt32.self)) } }
        set {
            withUnsafeMutableBytes(of: &counts) {
                $0.storeBytes(of: UInt32(clamping: newValue), toByteOffset: feature.rawValue * 4, as: UInt32.self)
            }
        }
    }

    /// - Parameter read: Gets the counts by `Feature.rawValue`, and whatever stands behind the last.
    func withCounts<Result>(_ read: (UnsafeBufferPointer<UInt32>) -> Result) -> Result {
        // SAFETY: 28 numbers, borrowed for the call.
        withUnsafeBytes(of: counts) { read($0.assumingMemoryBound(to: UInt32.self)) }
    }

    package static func += (sum: inout Self, more: Self) {
        let (total, overflow) = sum.bytes.addingReportingOverflow(more.bytes)
        sum.bytes = overflow ? .max : total
        more.withCounts { more in
            withUnsafeMutableBytes(of: &sum.counts) { counts in
                // SAFETY: of the same size.
                let counts = counts.assumingMemoryBound(to: UInt32.self)
                for index in counts.indices {
                    let (total, overflow) = counts[index].addingReportingOverflow(more[index])
                    counts[index] = overflow ? .max : total
                }
            }
        }
    }

    package static func + (one: Self, other: Self) -> Self {
        var sum = one
        sum += other
        return sum
    }
}
