/// Decimal digits of integers, written in place.
package enum DecimalDigits {
    /// 00 to 99.
    private static let pairs: StaticString = """
        0001020304050607080910111213141516171819202122232425262728293031323334353637383940414243444546474849\
        5051525354555657585960616263646566676869707172737475767778798081828384858687888990919293949596979899
        """

    /// How many digits a value has: 1 to 20.
    package static func count(of value: UInt64) -> Int {
        var rest = value
        var count = 1
        while rest >= 10_000 {
            rest /= 10_000
            count += 4
        }
        return rest >= 1_000 ? count + 3 : rest >= 100 ? count + 2 : rest >= 10 ? count + 1 : count
    }

    /// Writes the last `count` digits of a value, with zeros in front where it has fewer.
    ///
    /// - Parameter target: SAFETY: has room for `count` bytes.
    package static func write(_ value: UInt64, count: Int, to target: UnsafeMutableRawPointer) {
        var rest = value
        var end = count
        while end >= 2 {
            // SAFETY: the table has two bytes for each value below 100.
            let pair = UnsafeRawPointer(pairs.utf8Start + 2 * Int(rest % 100))
            (target + end - 2).copyMemory(from: pair, byteCount: 2)
            rest /= 100
            end -= 2
        }
        if end == 1 { target.storeBytes(of: UInt8(ascii: "0") + UInt8(rest % 10), as: UInt8.self) }
    }
}
