import Domain
import NIOCore

/// One argument of a command.
package enum RESPArgument: Hashable, Sendable, ExpressibleByStringInterpolation, ExpressibleByIntegerLiteral {
    case string(String)
    case bytes([UInt8])
    case integer(Int64)
    case buffer(ByteBuffer)

    package init(stringLiteral value: String) { self = .string(value) }
    package init(integerLiteral value: Int64) { self = .integer(value) }
}

/// Writes commands in RESP2 (arrays of bulk strings) one after another into a buffer, without intermediate strings.
///
/// `begin(2)`, `append("GET")`, `append(key)`. ``isComplete`` says whether as many arguments came as were announced: a
/// command that lies about it would take the whole connection out of step.
package struct RESPCommandEncoder {
    /// `$`, 20 digits, CR LF before the bytes and CR LF after them.
    private static let overheadMax = 1 + 20 + 2 + 2

    package internal(set) var buffer: ByteBuffer
    private var argumentsMissing = 0

    package init(buffer: ByteBuffer = ByteBuffer()) {
        self.buffer = buffer
    }

    package var isComplete: Bool { argumentsMissing == 0 }

    /// Starts a command of `count` arguments, its name included.
    package mutating func begin(_ count: Int) {
        argumentsMissing += count
        buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: Self.overheadMax) { target in
            Self.writeHeader(UInt8(ascii: "*"), count, to: target, at: 0)
        }
    }

    package mutating func append(_ string: String) {
        var string = string
        string.withUTF8 { append(UnsafeRawBufferPointer($0)) }
    }

    package mutating func append(_ bytes: [UInt8]) {
        bytes.withUnsafeBytes { append($0) }
    }

    package mutating func append(_ bytes: ByteBuffer) {
        bytes.withUnsafeReadableBytes { append($0) }
    }

    package mutating func append(_ integer: some FixedWidthInteger & SignedInteger) {
        argumentsMissing -= 1
        let value = Int64(integer)
        let magnitude = value.magnitude
        let digits = DecimalDigits.count(of: magnitude)
        let length = digits + (value < 0 ? 1 : 0)
        buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: Self.overheadMax + length) { target in
            var offset = Self.writeHeader(UInt8(ascii: "$"), length, to: target, at: 0)
            if value < 0 {
                target[offset] = UInt8(ascii: "-")
                offset += 1
            }
            Self.writeDigits(magnitude, digits, to: target, at: offset)
            return Self.writeLineEnd(to: target, at: offset + digits)
        }
    }

    /// The bytes are copied.
    package mutating func append(_ bytes: UnsafeRawBufferPointer) {
        argumentsMissing -= 1
        buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: Self.overheadMax + bytes.count) { target in
            let offset = Self.writeHeader(UInt8(ascii: "$"), bytes.count, to: target, at: 0)
            UnsafeMutableRawBufferPointer(rebasing: target[offset...]).copyMemory(from: bytes)
            return Self.writeLineEnd(to: target, at: offset + bytes.count)
        }
    }

    package mutating func append(argument: RESPArgument) {
        switch argument {
        case .string(let string): append(string)
        case .bytes(let bytes): append(bytes)
        case .integer(let integer): append(integer)
        case .buffer(let buffer): append(buffer)
        }
    }

    /// A whole command: `begin` and every argument.
    package mutating func encode(_ arguments: [RESPArgument]) {
        begin(arguments.count)
        for argument in arguments { append(argument: argument) }
    }

    /// Forgets everything from `writerIndex` on: a command that turned out incomplete.
    mutating func rollBack(to writerIndex: Int) {
        buffer.moveWriterIndex(to: writerIndex)
        argumentsMissing = 0
    }

    // Each writes at `offset` and returns the offset after what it wrote; the subscripts are bounds-checked in debug.

    @discardableResult
    private static func writeHeader(
        _ kind: UInt8, _ count: Int, to target: UnsafeMutableRawBufferPointer, at offset: Int
    ) -> Int {
        target[offset] = kind
        let digits = DecimalDigits.count(of: UInt64(count))
        writeDigits(UInt64(count), digits, to: target, at: offset + 1)
        return writeLineEnd(to: target, at: offset + 1 + digits)
    }

    private static func writeDigits(
        _ value: UInt64, _ digits: Int, to target: UnsafeMutableRawBufferPointer, at offset: Int
    ) {
        let digitsTarget = UnsafeMutableRawBufferPointer(rebasing: target[offset..<(offset + digits)])
        // SAFETY: a slice of as many bytes.
        if let base = digitsTarget.baseAddress { DecimalDigits.write(value, count: digits, to: base) }
    }

    private static func writeLineEnd(to target: UnsafeMutableRawBufferPointer, at offset: Int) -> Int {
        target[offset] = UInt8(ascii: "\r")
        target[offset + 1] = UInt8(ascii: "\n")
        return offset + 2
    }
}
