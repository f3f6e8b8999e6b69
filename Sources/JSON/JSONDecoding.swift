/// Reads values out of spans that ``JSONScanner`` has validated.
package enum JSONDecoding {
    /// The string whose content (between the quotes) is `string`.
    package static func text(_ string: JSONString, in text: UnsafeRawBufferPointer) -> String {
        let content = UnsafeRawBufferPointer(rebasing: text[string.content])
        guard string.isEscaped else { return String(decoding: content, as: UTF8.self) }
        return String(decoding: unescaped(content), as: UTF8.self)
    }

    /// The bytes that the content of a validated string stands for.
    package static func unescaped(_ content: UnsafeRawBufferPointer) -> [UInt8] {
        var result: [UInt8] = []
        result.reserveCapacity(content.count)
        append(unescaped: content, to: &result)
        return result
    }

    /// Appends the bytes that the content of a validated string stands for.
    package static func append(unescaped content: UnsafeRawBufferPointer, to result: inout [UInt8]) {
        var at = 0
        while at < content.count {
            // Most of a text stands for itself.
            let plain = at
            while at < content.count, content[at] != UInt8(ascii: "\\") { at += 1 }
            result.append(contentsOf: UnsafeRawBufferPointer(rebasing: content[plain..<at]))
            guard at + 1 < content.count else {
                if at < content.count { result.append(content[at]) }
                return
            }
            at += 2
            switch content[at - 1] {
            case UInt8(ascii: "b"): result.append(0x08)
            case UInt8(ascii: "f"): result.append(0x0C)
            case UInt8(ascii: "n"): result.append(0x0A)
            case UInt8(ascii: "r"): result.append(0x0D)
            case UInt8(ascii: "t"): result.append(0x09)
            case UInt8(ascii: "u"):
                var scalar = unit(content, at)
                at += 4
                if scalar & 0xFC00 == 0xD800, at + 6 <= content.count {
                    scalar = 0x10000 + (scalar & 0x3FF) << 10 + (unit(content, at + 2) & 0x3FF)
                    at += 6
                }
                if let scalar = Unicode.Scalar(scalar) { result.append(contentsOf: UTF8.encode(scalar) ?? .init()) }
            case let plain: result.append(plain)
            }
        }
    }

    /// The integer whose span is `span`.
    ///
    /// - Returns: nil unless the number is written as an integer that fits Int64. `10.0` and `1e2` are nil too: some
    ///   nodes read them as integers and some refuse them, and the gateway must not guess which.
    package static func integer(_ span: Range<Int>, in text: UnsafeRawBufferPointer) -> Int64? {
        let isNegative = text[span.lowerBound] == UInt8(ascii: "-")
        let digits = (span.lowerBound + (isNegative ? 1 : 0))..<span.upperBound
        guard !digits.isEmpty else { return nil }
        var value: Int64 = 0
        for index in digits {
            let digit = text[index] &- UInt8(ascii: "0")
            guard digit < 10 else { return nil }
            let (product, overflow) = value.multipliedReportingOverflow(by: 10)
            // Negative values are summed downwards, so that Int64.min itself is reached.
            let (sum, carry) =
                isNegative
                ? product.subtractingReportingOverflow(Int64(digit)) : product.addingReportingOverflow(Int64(digit))
            guard !overflow, !carry else { return nil }
            value = sum
        }
        return value
    }

    /// What kind of value starts at `offset` of a validated text.
    package static func kind(at offset: Int, in text: UnsafeRawBufferPointer) -> JSONKind {
        switch text[offset] {
        case UInt8(ascii: "{"): .object
        case UInt8(ascii: "["): .array
        case UInt8(ascii: "\""): .string
        case UInt8(ascii: "t"): .bool(true)
        case UInt8(ascii: "f"): .bool(false)
        case UInt8(ascii: "n"): .null
        default: .number
        }
    }

    private static func unit(_ content: UnsafeRawBufferPointer, _ start: Int) -> UInt32 {
        var value: UInt32 = 0
        for index in start..<(start + 4) { value = value << 4 | UInt32(HexDigit.value(content[index]) ?? 0) }
        return value
    }
}

package enum JSONKind: Hashable, Sendable {
    case object, array, string, number, null
    case bool(Bool)

    /// For messages: `an object`, `a string`.
    package var name: String {
        switch self {
        case .object: "an object"
        case .array: "an array"
        case .string: "a string"
        case .number: "a number"
        case .null: "null"
        case .bool: "a boolean"
        }
    }
}

package enum HexDigit {
    /// 0 to 15, or nil where the byte is not a hexadecimal digit.
    package static func value(_ byte: UInt8) -> UInt8? {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): byte - UInt8(ascii: "0")
        case UInt8(ascii: "a")...UInt8(ascii: "f"): byte - UInt8(ascii: "a") + 10
        case UInt8(ascii: "A")...UInt8(ascii: "F"): byte - UInt8(ascii: "A") + 10
        default: nil
        }
    }
}
