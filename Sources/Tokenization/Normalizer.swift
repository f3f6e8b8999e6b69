/// A step that rewrites text before it is cut into pieces.
package struct Normalizer: Sendable, Equatable {
    private enum Step: Sendable, Equatable {
        case nfc
        case replace([UInt8], [UInt8])
        case prepend([UInt8])
    }

    private let step: Step

    /// Normalization form C of Unicode 9.0, as Hugging Face's `NFC` has it.
    package static let nfc = Normalizer(step: .nfc)

    /// Replaces every `pattern` by `replacement`, from the left, none overlapping.
    ///
    /// - Returns: Nil if `pattern` is empty: it would match everywhere.
    package static func replace(_ pattern: [UInt8], with replacement: [UInt8]) -> Normalizer? {
        pattern.isEmpty ? nil : Normalizer(step: .replace(pattern, replacement))
    }

    /// Puts `prefix` before any text that is not empty.
    package static func prepend(_ prefix: [UInt8]) -> Normalizer { Normalizer(step: .prepend(prefix)) }

    /// - Parameters:
    ///   - text: Valid UTF-8; with other bytes the result means nothing, but no byte outside is read.
    ///   - output: Receives the result instead of what it held. At most three times the bytes of `text` for `nfc`; for
    ///     `replace` at most `replacement.count` bytes where `pattern.count` were.
    /// - Returns: False if the step does not change this text: then `output` means nothing.
    package func normalized(_ text: UnsafeRawBufferPointer, into output: inout [UInt8]) -> Bool {
        switch step {
        case .nfc: return CanonicalComposition.normalized(text, into: &output)
        case .replace(let pattern, let replacement):
            return Self.replace(pattern, with: replacement, in: text, into: &output)
        case .prepend(let prefix):
            guard !text.isEmpty, !prefix.isEmpty else { return false }
            output.removeAll(keepingCapacity: true)
            output.reserveCapacity(prefix.count + text.count)
            output.append(contentsOf: prefix)
            output.append(contentsOf: text)
            return true
        }
    }

    private static func replace(
        _ pattern: [UInt8], with replacement: [UInt8], in text: UnsafeRawBufferPointer, into output: inout [UInt8]
    ) -> Bool {
        var matches = 0
        forEachMatch(of: pattern, in: text) { _ in matches += 1 }
        guard matches > 0, pattern != replacement else { return false }
        let count = text.count + matches * (replacement.count - pattern.count)
        output.removeAll(keepingCapacity: true)
        output.append(contentsOf: repeatElement(0, count: count))
        output.withUnsafeMutableBytes { output in
            if pattern.count == 1 {
                return replaceByte(pattern[0], with: replacement, in: text, into: output)
            }
            // SAFETY: `count` is what all matches replaced make of the text, so that every copy ends inside.
            var read = 0
            var written = 0
            func copy(_ bytes: UnsafeRawBufferPointer) {
                UnsafeMutableRawBufferPointer(rebasing: output[written...]).copyMemory(from: bytes)
                written += bytes.count
            }
            replacement.withUnsafeBytes { replacement in
                forEachMatch(of: pattern, in: text) { match in
                    copy(UnsafeRawBufferPointer(rebasing: text[read..<match]))
                    copy(replacement)
                    read = match + pattern.count
                }
            }
            copy(UnsafeRawBufferPointer(rebasing: text[read...]))
        }
        return true
    }

    /// The commonest case by far, spaces: copied byte by byte, because what is between them is short.
    ///
    /// - Parameter output: As long as the result.
    private static func replaceByte(
        _ pattern: UInt8, with replacement: [UInt8], in text: UnsafeRawBufferPointer,
        into output: UnsafeMutableRawBufferPointer
    ) {
        var written = 0
        for byte in text {
            if byte == pattern {
                for byte in replacement {
                    output[written] = byte
                    written += 1
                }
            } else {
                output[written] = byte
                written += 1
            }
        }
    }

    /// Calls `body` with where each match starts, from the left, none overlapping.
    @inline(__always)
    private static func forEachMatch(of pattern: [UInt8], in text: UnsafeRawBufferPointer, _ body: (Int) -> Void) {
        pattern.withUnsafeBytes { pattern in
            guard let first = pattern.first, pattern.count <= text.count else { return }
            var position = 0
            while position + pattern.count <= text.count {
                var matched = text[position] == first ? 1 : 0
                while matched > 0, matched < pattern.count {
                    matched = text[position + matched] == pattern[matched] ? matched + 1 : 0
                }
                if matched > 0 {
                    body(position)
                    position += pattern.count
                } else {
                    position += 1
                }
            }
        }
    }
}
