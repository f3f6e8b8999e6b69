import Domain
import Testing

@Suite struct NanoUSDTests {
    @Test(arguments: [
        ("5", 5_000_000_000), ("0.25", 250_000_000), ("-0.25", -250_000_000), ("12.000000001", 12_000_000_001),
        ("0", 0), ("9007199.254740991", (1 << 53) - 1),
    ])
    func dollarsAreReadExactly(text: String, nanodollars: Int64) {
        #expect(NanoUSD(dollars: text)?.nanodollars == nanodollars)
    }

    @Test(arguments: [
        "", "-", ".", "5.", ".5", "1e3", "1,000", "+1", "0.0000000001", "9007199.254740992", "99999999999999999999",
        " 1", "1 ", "0x10", "1.2.3", "--1",
    ])
    func otherTextIsRefusedRatherThanRounded(text: String) {
        #expect(NanoUSD(dollars: text) == nil)
    }

    @Test func sumsPastTheBoundThrow() throws {
        let largest = try #require(NanoUSD(NanoUSD.magnitudeMax))
        #expect(throws: ArithmeticFailure.overflow) { try largest.adding(NanoUSD(unchecked: 1)) }
        #expect(throws: ArithmeticFailure.overflow) { try (-largest).subtracting(NanoUSD(unchecked: 1)) }
        #expect(try largest.subtracting(largest) == .zero)
        #expect(NanoUSD(NanoUSD.magnitudeMax + 1) == nil)
        #expect(NanoUSD(.min) == nil)
    }

    @Test func whatIsPrintedIsReadBackAsTheSameAmount() {
        let seed = UInt64.random(in: 0 ... .max)
        print("seed \(seed)")
        var random = SplitMix64(seed: seed)
        for _ in 0..<10_000 {
            let amount = NanoUSD(unchecked: Int64(bitPattern: random.next()) >> 11)
            #expect(NanoUSD(dollars: amount.description) == amount)
        }
    }

    @Test func amountsPrintWithAtLeastTwoDecimals() {
        #expect(NanoUSD(unchecked: 5_000_000_000).description == "5.00")
        #expect(NanoUSD(unchecked: -123).description == "-0.000000123")
        #expect(NanoUSD(unchecked: 1_500_000_000).description == "1.50")
    }
}

@Suite struct PriceTests {
    private let price = Price(version: 1, input: 50_000_000, cachedInput: 10_000_000, output: 80_000_000)

    @Test func costIsOneCeilingOverTheSum() throws {
        // 9 x 50 + 8 x 80 = 1,090 nano-dollars exactly.
        #expect(
            try price.cost(of: TokenUsage(promptTokens: 9, cachedTokens: 0, completionTokens: 8)).nanodollars == 1_090)
        let odd = Price(version: 1, input: 1, cachedInput: 0, output: 1)
        #expect(try odd.cost(of: TokenUsage(promptTokens: 1, cachedTokens: 0, completionTokens: 1)).nanodollars == 1)
        #expect(try odd.cost(of: .zero).nanodollars == 0)
        #expect(
            try odd.cost(of: TokenUsage(promptTokens: 999_999, cachedTokens: 0, completionTokens: 2)).nanodollars == 2)
    }

    @Test func cachedTokensAreChargedAtTheirOwnRate() throws {
        let usage = TokenUsage(promptTokens: 1_000, cachedTokens: 400, completionTokens: 0)
        #expect(try price.cost(of: usage).nanodollars == 600 * 50 + 400 * 10)
    }

    @Test func anHonestSettleNeverPassesItsHold() throws {
        let seed = UInt64.random(in: 0 ... .max)
        print("seed \(seed)")
        var random = SplitMix64(seed: seed)
        for _ in 0..<10_000 {
            // A cached rate above the input rate is odd, and still must not break the bound.
            let price = Price(
                version: 1, input: Int64(random.below(1 << 30)), cachedInput: Int64(random.below(1 << 30)),
                output: Int64(random.below(1 << 30))
            )
            let promptMax = random.below(200_000)
            let completionMax = random.below(20_000)
            let prompt = random.below(promptMax + 1)
            let usage = TokenUsage(
                promptTokens: prompt, cachedTokens: random.below(prompt + 1),
                completionTokens: random.below(completionMax + 1))
            let hold = try price.hold(promptTokensMax: promptMax, completionTokensMax: completionMax)
            #expect(try price.cost(of: usage) <= hold)
        }
    }

    @Test func costsPastTheBoundThrowRatherThanWrap() {
        let dear = Price(version: 1, input: Price.rateMax, cachedInput: 0, output: Price.rateMax)
        #expect(throws: ArithmeticFailure.overflow) {
            try dear.hold(promptTokensMax: .max, completionTokensMax: .max)
        }
        #expect(throws: ArithmeticFailure.overflow) {
            try dear.cost(of: TokenUsage(promptTokens: 2_000_000, cachedTokens: 0, completionTokens: 0))
        }
    }

    @Test(arguments: [
        (TokenUsage(promptTokens: 10, cachedTokens: 10, completionTokens: 5), true),
        (TokenUsage(promptTokens: 11, cachedTokens: 0, completionTokens: 5), false),
        (TokenUsage(promptTokens: 10, cachedTokens: 0, completionTokens: 6), false),
        (TokenUsage(promptTokens: 4, cachedTokens: 5, completionTokens: 0), false),
        (TokenUsage(promptTokens: -1, cachedTokens: -1, completionTokens: 0), false),
        (TokenUsage(promptTokens: 1, cachedTokens: 0, completionTokens: -1), false),
    ])
    func usageThatCannotBeTrueIsNotPlausible(usage: TokenUsage, isPlausible: Bool) {
        #expect(usage.isPlausible(promptTokensMax: 10, completionTokensMax: 5) == isPlausible)
    }
}
