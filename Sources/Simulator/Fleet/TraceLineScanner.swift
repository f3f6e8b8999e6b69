/// Scans one line of JSON, as much of it as traces have: an object of strings, numbers and arrays of integers.
///
/// A general decoder takes ten times as long over the three megabytes of a trace.
struct TraceLineScanner {
    struct Failure: Error {
        var reason: String
        var offset: Int
    }

    /// How deep a value that is passed over may nest.
    private static let depthMax = 32

    private let bytes: ArraySlice<UInt8>
    private var position: Int

    init(_ bytes: ArraySlice<UInt8>) {
        self.bytes = bytes
        self.position = bytes.startIndex
    }

    /// Calls `member` at each value of the one object on the line; it must take the value.
    mutating func object(
        _ member: (String, inout TraceLineScanner) throws(Failure) -> Void
    ) throws(Failure) {
        try expect(UInt8(ascii: "{"))
        if !take(UInt8(ascii: "}")) {
            repeat {
                let key = try string()
                try expect(UInt8(ascii: ":"))
                try member(key, &self)
            } while take(UInt8(ascii: ","))
            try expect(UInt8(ascii: "}"))
        }
        skipSpace()
        guard position == bytes.endIndex else { throw failure("something follows the object") }
    }

    mutating func number() throws(Failure) -> Double {
        skipSpace()
        let start = position
        while position < bytes.endIndex, Self.isOfNumber(bytes[position]) { position += 1 }
        guard let value = Double(String(decoding: bytes[start..<position], as: UTF8.self)), value.isFinite else {
            position = start
            throw failure("a number is expected")
        }
        return value
    }

    /// An array of whole numbers from 0.
    mutating func integers() throws(Failure) -> [UInt64] {
        try expect(UInt8(ascii: "["))
        var values: [UInt64] = []
        if take(UInt8(ascii: "]")) { return values }
        repeat {
            skipSpace()
            var value: UInt64 = 0
            let start = position
            while position < bytes.endIndex, (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(bytes[position]) {
                value = value &* 10 &+ UInt64(bytes[position] - UInt8(ascii: "0"))
                position += 1
            }
            guard position > start, position - start < 20 else { throw failure("a whole number from 0 is expected") }
            values.append(value)
        } while take(UInt8(ascii: ","))
        try expect(UInt8(ascii: "]"))
        return values
    }

    mutating func skipValue(depth: Int = 0) throws(Failure) {
        guard depth < Self.depthMax else { throw failure("nested too deep") }
        skipSpace()
        guard position < bytes.endIndex else { throw failure("the line ends early") }
        switch bytes[position] {
        case UInt8(ascii: "\""):
            _ = try string()
        case UInt8(ascii: "["), UInt8(ascii: "{"):
            let isObject = bytes[position] == UInt8(ascii: "{")
            let close = isObject ? UInt8(ascii: "}") : UInt8(ascii: "]")
            position += 1
            if take(close) { return }
            repeat {
                if isObject {
                    _ = try string()
                    try expect(UInt8(ascii: ":"))
                }
                try skipValue(depth: depth + 1)
            } while take(UInt8(ascii: ","))
            try expect(close)
        default:
            let start = position
            while position < bytes.endIndex, Self.isOfWord(bytes[position]) { position += 1 }
            guard position > start else { throw failure("a value is expected") }
        }
    }

    /// Its bytes between the quotes as they stand: keys of traces have no escapes, other strings are passed over.
    private mutating func string() throws(Failure) -> String {
        try expect(UInt8(ascii: "\""))
        let start = position
        while position < bytes.endIndex, bytes[position] != UInt8(ascii: "\"") {
            position += bytes[position] == UInt8(ascii: "\\") ? 2 : 1
        }
        guard position < bytes.endIndex else { throw failure("the line ends within a string") }
        defer { position += 1 }
        return String(decoding: bytes[start..<position], as: UTF8.self)
    }

    private mutating func expect(_ byte: UInt8) throws(Failure) {
        guard take(byte) else { throw failure("'\(Character(Unicode.Scalar(byte)))' is expected") }
    }

    private mutating func take(_ byte: UInt8) -> Bool {
        skipSpace()
        guard position < bytes.endIndex, bytes[position] == byte else { return false }
        position += 1
        return true
    }

    private mutating func skipSpace() {
        while position < bytes.endIndex, bytes[position] <= UInt8(ascii: " ") { position += 1 }
    }

    private func failure(_ reason: String) -> Failure {
        Failure(reason: reason, offset: min(position, bytes.endIndex) - bytes.startIndex + 1)
    }

    private static func isOfNumber(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "+"), UInt8(ascii: "."),
            UInt8(ascii: "e"), UInt8(ascii: "E"):
            true
        default: false
        }
    }

    private static func isOfWord(_ byte: UInt8) -> Bool {
        isOfNumber(byte) || (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte)
    }
}
