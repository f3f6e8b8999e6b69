/// What a model's tokens cost, in nano-dollars per million tokens, at one version.
///
/// A version never changes once it has been used: a settle is computed at the version that its hold was stamped with.
package struct Price: Hashable, Sendable {
    /// Rates are bounded so that a product with any token count fits the arithmetic: $9.0 million per million tokens.
    package static let rateMax: Int64 = NanoUSD.magnitudeMax

    package let version: Int64
    /// Nano-dollars per million prompt tokens that were not in the node's cache.
    package let input: Int64
    /// Nano-dollars per million prompt tokens that were.
    package let cachedInput: Int64
    /// Nano-dollars per million completion tokens.
    package let output: Int64

    package init(version: Int64, input: Int64, cachedInput: Int64, output: Int64) {
        self.version = version
        self.input = input
        self.cachedInput = cachedInput
        self.output = output
    }

    /// What a request costs: one ceiling over the whole sum, so a split of the same tokens never costs less.
    ///
    /// - Throws: `.overflow` past ``NanoUSD/magnitudeMax``; never wraps or clamps.
    package func cost(of usage: TokenUsage) throws(ArithmeticFailure) -> NanoUSD {
        let uncached = Int128(usage.promptTokens - usage.cachedTokens)
        let perMillion =
            uncached * Int128(input) + Int128(usage.cachedTokens) * Int128(cachedInput)
            + Int128(usage.completionTokens) * Int128(output)
        let (quotient, remainder) = perMillion.quotientAndRemainder(dividingBy: 1_000_000)
        let rounded = quotient + (remainder > 0 ? 1 : 0)
        guard rounded >= 0, rounded <= Int128(NanoUSD.magnitudeMax) else { throw .overflow }
        return NanoUSD(unchecked: Int64(rounded))
    }

    /// The most a request can cost: what to reserve before dispatch.
    ///
    /// Takes the dearer of the two input rates for the whole prompt, so an honest settle never exceeds it however the
    /// node's cache behaves.
    /// - Parameters:
    ///   - promptTokensMax: Exact if tokenized; otherwise an upper bound, never a mean.
    ///   - completionTokensMax: All choices together.
    /// - Throws: `.overflow`; never wraps or clamps.
    package func hold(promptTokensMax: Int, completionTokensMax: Int) throws(ArithmeticFailure) -> NanoUSD {
        let dearest = Price(version: version, input: max(input, cachedInput), cachedInput: 0, output: output)
        return try dearest.cost(
            of: TokenUsage(promptTokens: promptTokensMax, cachedTokens: 0, completionTokens: completionTokensMax))
    }
}
