import Domain
import Testing

@Suite struct DecimalDigitsTests {
    private func text(_ value: UInt64, count: Int) -> String {
        String(unsafeUninitializedCapacity: count) { buffer in
            guard let base = buffer.baseAddress else { return 0 }
            DecimalDigits.write(value, count: count, to: UnsafeMutableRawPointer(base))
            return count
        }
    }

    @Test func everyLengthReadsAsSwiftPrintsIt() {
        var values: [UInt64] = [0, .max, .max - 1]
        var power: UInt64 = 1
        for _ in 0..<20 {
            values += [power - 1, power, power + 1, power / 7 * 3]
            power = power.multipliedReportingOverflow(by: 10).partialValue
        }
        values += (0..<2_000).map { UInt64($0) }
        for value in values {
            #expect(DecimalDigits.count(of: value) == String(value).count)
            #expect(text(value, count: DecimalDigits.count(of: value)) == String(value))
        }
    }

    @Test func zerosStandInFrontAndHighDigitsAreLeftOut() {
        #expect(text(7, count: 3) == "007")
        #expect(text(0, count: 6) == "000000")
        #expect(text(12_345, count: 3) == "345")
        #expect(text(12_345, count: 0) == "")
    }
}
