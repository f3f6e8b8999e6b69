import Domain
import NIOCore

/// Writes bytes one after the other into memory that it borrows.
///
/// What would pass the memory is left out and marks the whole as truncated: it must not be used then.
struct ByteCursor {
    private let memory: UnsafeMutableRawBufferPointer
    private(set) var count = 0
    private(set) var isTruncated = false

    /// - Parameter memory: Must outlive this value; SAFETY: every write is checked against its count.
    init(memory: UnsafeMutableRawBufferPointer) {
        self.memory = memory
    }

    var written: UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: memory[..<count]) }

    @inline(__always)
    mutating func raw(_ text: StaticString) {
        let length = text.utf8CodeUnitCount
        guard let target = take(length) else { return }
        // SAFETY: `take` gave room for `length` bytes; a static string's bytes live for ever.
        target.copyMemory(from: text.utf8Start, byteCount: length)
    }

    mutating func text(_ text: String) {
        var text = text
        text.withUTF8 { bytes($0) }
    }

    mutating func bytes(_ source: UnsafeBufferPointer<UInt8>) {
        bytes(UnsafeRawBufferPointer(source))
    }

    mutating func bytes(_ source: UnsafeRawBufferPointer) {
        guard let base = source.baseAddress, let target = take(source.count) else { return }
        // SAFETY: `take` gave room for `source.count` bytes.
        target.copyMemory(from: base, byteCount: source.count)
    }

    mutating func byte(_ value: UInt8) {
        // SAFETY: `take` gave room for one byte.
        take(1)?.storeBytes(of: value, as: UInt8.self)
    }

    mutating func decimal(_ value: Int64) {
        if value < 0 { raw("-") }
        digits(value.magnitude, atLeast: 1)
    }

    /// Decimal, with zeros in front up to `width`.
    mutating func digits(_ value: UInt64, atLeast width: Int) {
        let length = max(DecimalDigits.count(of: value), width)
        // SAFETY: `take` gave room for `length` bytes.
        if let target = take(length) { DecimalDigits.write(value, count: length, to: target) }
    }

    /// Lower-case, with zeros in front: `width` digits, the lowest of `value`.
    mutating func hexadecimal(_ value: UInt64, digits width: Int) {
        guard let target = take(width) else { return }
        for index in 0..<width {
            let nibble = UInt8(truncatingIfNeeded: value >> UInt64(4 * (width - 1 - index))) & 0xF
            // SAFETY: `take` gave room for `width` bytes.
            target.storeBytes(
                of: nibble < 10 ? 0x30 + nibble : 0x61 + nibble - 10, toByteOffset: index, as: UInt8.self)
        }
    }

    /// Room for `length` bytes, nil (and the mark) where there is none.
    @inline(__always)
    private mutating func take(_ length: Int) -> UnsafeMutableRawPointer? {
        guard length <= memory.count - count, let base = memory.baseAddress else {
            isTruncated = true
            return nil
        }
        let target = base + count
        count += length
        return target
    }
}

extension ByteBuffer {
    /// Writes many pieces in one access to the storage.
    ///
    /// - Parameters:
    ///   - bytes: How many it usually is; where there are more, `write` is called again with more room.
    ///   - write: Writes the same each time it is called.
    mutating func writePieces(usually bytes: Int, _ write: (inout ByteCursor) -> Void) {
        var room = max(1, bytes)
        var isWritten = false
        while !isWritten {
            writeWithUnsafeMutableBytes(minimumWritableBytes: room) { memory in
                // SAFETY: the cursor borrows memory that lives to the end of this closure, and does not leave it.
                var cursor = ByteCursor(memory: memory)
                write(&cursor)
                isWritten = !cursor.isTruncated
                return isWritten ? cursor.count : 0
            }
            room *= 2
        }
    }
}
