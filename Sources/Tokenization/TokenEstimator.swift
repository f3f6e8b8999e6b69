/// Estimates the tokens of a prompt for a model whose vocabulary is not known, from what its nodes reported before.
///
/// Tokens are taken as a weighted sum of ``TextFeatures``. The weights start at those of usual byte-pair vocabularies
/// and follow the reports by recursive least squares on the relative error, so that a long prompt teaches no more than a
/// short one, with exponential forgetting. Three bounds keep a node that reports nonsense from doing lasting harm: one
/// report moves an estimate by a part of it only, weights stay within `weightMax`, and the uncertainty of a weight never
/// exceeds the one it started with. The last also bounds what forgetting does to features that no prompt has.
///
/// An estimate: for rates and routing, never for what money is held on. Some 6 kB for each model, whatever it learned.
package struct TokenEstimator: Sendable {
    /// Reports of this many requests are what counts: older ones have faded to a third.
    package static let requestsRemembered = 500
    /// The same while reports surprise beyond `surpriseUsual` in the mean of some 32: the vocabulary is another one.
    private static let requestsRememberedOnChange = 50.0
    private static let surpriseUsual = 0.2
    /// Relative error of a report that the weights cannot explain: words differ.
    private static let noise = 0.1
    /// What a single report may be off by, relative to the greater of it and the estimate, before it is cut down.
    private static let surpriseMax = 0.3
    private static let weightMax = 64.0
    /// Tokens that the template of a message adds at most.
    private static let messageTokensMax = 64
    /// Prompts of longer tokens than this, in the mean, count as if they had more of them where errors are weighed.
    private static let tokenBytesMax = 8.0
    private static let count = TextFeatures.Feature.allCases.count

    /// Tokens by feature, and how far they may lie from it: fitted on prose, code and JSON for vocabularies of 100,000
    /// to 260,000 tokens together. Those of Han characters on texts that no error is measured on.
    private static let prior: [(weight: Double, deviation: Double)] = TextFeatures.Feature.allCases.map { feature in
        switch feature {
        case .messages: (3, 4)
        case .words: (0.88, 0.3)
        case .capitals: (0.16, 0.2)
        case .deepLetters: (0.06, 0.08)
        case .digits: (0.54, 0.3)
        case .digitRuns: (0.84, 0.3)
        case .newlines: (1.58, 0.3)
        case .emptyLines: (-1.3, 0.3)
        case .controls: (0.36, 0.3)
        case .moreSpaces: (0, 0.2)
        case .punctuation: (0.66, 0.2)
        case .repeatedPunctuation: (-0.61, 0.3)
        case .wordsAfterPunctuation: (-0.3, 0.3)
        case .wordsAfterSpace: (0.09, 0.3)
        case .cyrillic: (0.18, 0.25)
        case .twoByte: (0.29, 0.3)
        case .han: (0.9, 0.5)
        case .frequentHan: (-0.45, 0.5)
        case .kana: (0.41, 0.3)
        case .hangul: (0.56, 0.3)
        case .threeByte: (0.33, 0.3)
        case .fourByte: (2, 0.3)
        case .otherRuns: (0.34, 0.3)
        case .deepOther: (0.05, 0.1)
        case .traditionalHan: (1.12, 1)
        case .simplifiedHan: (0.01, 1)
        }
    }

    private var weights = Self.prior.map(\.weight)
    /// Of the weights; row by row. Symmetric to the bit: both halves are computed by the same operations.
    private var covariance = Self.priorCovariance
    /// Mean of how surprising the last reports were, relative.
    private var surpriseMean = 0.0
    /// Reports learned from.
    package private(set) var requestsLearned = 0

    /// Of one step, kept for its memory: inputs by feature, the covariance times them, and by how much it is shrunk.
    private var inputs = [Double](repeating: 0, count: Self.count)
    private var projected = [Double](repeating: 0, count: Self.count)
    private var shrink = [Double](repeating: 0, count: Self.count)

    private static let priorCovariance: [Double] = {
        var covariance = [Double](repeating: 0, count: count * count)
        for (index, entry) in prior.enumerated() { covariance[index * (count + 1)] = entry.deviation * entry.deviation }
        return covariance
    }()

    package init() {}

    /// - Returns: 0 for no text and no messages; else at least 1 and at most the bytes of the text and 64 a message.
    package func tokens(_ features: TextFeatures) -> Int {
        let most = Self.tokensMax(features)
        guard most > 0 else { return 0 }
        let sum = estimate(features)
        return sum < 1 ? 1 : sum < Double(most) ? Int(sum.rounded()) : most
    }

    /// Takes in what a node counted for a prompt.
    ///
    /// - tokens: Ignored where 0 or less, or where there is no text: nothing was counted then.
    package mutating func learn(_ features: TextFeatures, tokens: Int) {
        let most = Self.tokensMax(features)
        guard tokens > 0, most > 0 else { return }
        features.withCounts { counts in
            for index in inputs.indices { inputs[index] = Double(counts[index]) }
        }
        let reported = Double(min(tokens, most))
        let estimated = estimate(features)
        // The third is for reports that are absurdly small: in their scale inputs are so large that weights would be
        // taken as known beyond doubt, and the truth be learned from thousands of requests only.
        let scale = max(reported, estimated, Double(most) / Self.tokenBytesMax, 1)
        for index in inputs.indices { inputs[index] /= scale }
        let surprise = min(max((reported - estimated) / scale, -Self.surpriseMax), Self.surpriseMax)
        update(surprise)
        if requestsLearned < .max { requestsLearned += 1 }
    }

    /// Whether nothing in it is beyond its bounds: for tests.
    var isSound: Bool {
        let count = Self.count
        let isBounded = weights.allSatisfy { abs($0) <= Self.weightMax }
        return isBounded && covariance.count == count * count
            && (0..<count).allSatisfy { row in
                let own = covariance[row * (count + 1)]
                let most = Self.prior[row].deviation * Self.prior[row].deviation
                // Rounding is what the last part of a million is for.
                return own >= 0 && own <= most * 1.000001
                    && (0..<count).allSatisfy { covariance[row * count + $0] == covariance[$0 * count + row] }
            }
    }

    /// No token is of less than a byte.
    private static func tokensMax(_ features: TextFeatures) -> Int {
        let (templates, _) = features.messages.multipliedReportingOverflow(by: messageTokensMax)
        let (sum, overflow) = features.bytes.addingReportingOverflow(templates)
        return overflow ? .max : sum
    }

    private func estimate(_ features: TextFeatures) -> Double {
        features.withCounts { counts in
            var sum = 0.0
            for index in 0..<Self.count { sum += weights[index] * Double(counts[index]) }
            return sum
        }
    }

    /// One step of recursive least squares on `inputs`: how far the estimate was below the report.
    private mutating func update(_ surprise: Double) {
        let count = Self.count
        surpriseMean += (abs(surprise) - surpriseMean) / 32
        let isChanged = surpriseMean > Self.surpriseUsual
        let keeping = 1 - 1 / (isChanged ? Self.requestsRememberedOnChange : Double(Self.requestsRemembered))
        project()
        var variance = 0.0
        for index in 0..<count { variance += inputs[index] * projected[index] }
        let total = variance + Self.noise * Self.noise
        // Rounding could have made it indefinite: what is known of the weights stays, how well it is known does not.
        guard variance >= 0, total.isFinite else { return covariance = Self.priorCovariance }
        let prior = Self.prior
        for index in 0..<count {
            let moved = weights[index] + projected[index] / total * surprise
            weights[index] = min(max(moved, -Self.weightMax), Self.weightMax)
            let deviation = prior[index].deviation
            let own = (covariance[index * (count + 1)] - projected[index] * projected[index] / total) / keeping
            shrink[index] = own > deviation * deviation ? deviation / own.squareRoot() : 1
        }
        let (gain, growth) = (1 / total, 1 / keeping)
        covariance.withUnsafeMutableBufferPointer { rows in
            projected.withUnsafeBufferPointer { projected in
                shrink.withUnsafeBufferPointer { shrink in
                    for row in 0..<count {
                        let (along, shrunk, start) = (projected[row], shrink[row], row * count)
                        for column in 0..<count {
                            let known = rows[start &+ column] - along * projected[column] * gain
                            rows[start &+ column] = known * growth * (shrunk * shrink[column])
                        }
                    }
                }
            }
        }
    }

    /// The covariance times the inputs.
    private mutating func project() {
        let count = Self.count
        projected.withUnsafeMutableBufferPointer { projected in
            projected.update(repeating: 0)
            covariance.withUnsafeBufferPointer { rows in
                for row in 0..<count where inputs[row] != 0 {
                    let (input, start) = (inputs[row], row * count)
                    for column in 0..<count { projected[column] += input * rows[start &+ column] }
                }
            }
        }
    }
}
