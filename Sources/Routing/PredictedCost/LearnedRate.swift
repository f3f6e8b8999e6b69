#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// How fast a node prefills, in tokens of work a second, learned from the first tokens it gave.
///
/// Averaged as logarithms: rates are ratios, and one answer that came at once must not outweigh ten that came slowly.
/// Early samples weigh alike, later the newest a twentieth; after a change of power three tenths for ten samples.
struct PrefillRate: Sendable {
    static let perSecond = 500.0...200_000.0
    /// Of a node of which nothing is known, nor of any of its class.
    static let unknown = 12_000.0
    static let weightMin = 0.05
    static let weightRelearning = 0.3
    static let relearningSamples = 10
    /// A first token that waited for less work than this says more of the network than of the node.
    static let workMin = 1_500.0
    static let secondsMin = 0.02

    private(set) var tokensPerSecond: Double
    private(set) var samples = 0
    private var relearning = 0

    init(prior: Double = unknown) {
        tokensPerSecond = min(max(prior, Self.perSecond.lowerBound), Self.perSecond.upperBound)
    }

    /// - Parameters:
    ///   - work: What the node did before it gave the token, queue and request together.
    ///   - seconds: How long that took, network and decode step apart.
    mutating func learn(work: Double, seconds: Double) {
        guard work.isFinite, work > 0, seconds > Self.secondsMin else { return }
        let sample = min(max(work / seconds, Self.perSecond.lowerBound), Self.perSecond.upperBound)
        samples += 1
        var weight = max(Self.weightMin, 1 / Double(samples + 1))
        if relearning > 0 {
            relearning -= 1
            weight = max(weight, Self.weightRelearning)
        }
        tokensPerSecond = exp((1 - weight) * log(tokensPerSecond) + weight * log(sample))
    }

    /// Moves a tenth of the way to another rate, as logarithms.
    mutating func drift(to other: Double) {
        tokensPerSecond = exp(0.9 * log(tokensPerSecond) + 0.1 * log(max(other, Self.perSecond.lowerBound)))
    }

    /// The node runs at `ratio` of what it did, from now on.
    mutating func scale(by ratio: Double) {
        guard ratio.isFinite, ratio > 0 else { return }
        tokensPerSecond = min(max(tokensPerSecond * ratio, Self.perSecond.lowerBound), Self.perSecond.upperBound)
        relearning = Self.relearningSamples
    }
}

/// How long a node takes for one step of decoding, and with how many requests that was learned.
struct DecodeStep: Sendable {
    static let seconds = 0.0001...10.0
    /// A step costs as much as this many requests before the first: it reads the weights.
    static let batchOffset = 12.0
    /// An answer shorter than this says too little.
    static let tokensMin = 8

    private(set) var seconds: Double
    private(set) var decoding: Double
    private var samples = 0
    private var relearning = 0

    init(seconds: Double = 0.015, decoding: Double = 8) {
        self.seconds = seconds
        self.decoding = decoding
    }

    /// Predicted for a batch of so many and one more.
    func seconds(decoding: Double) -> Double {
        seconds * (Self.batchOffset + decoding + 1) / (Self.batchOffset + self.decoding)
    }

    mutating func learn(tokens: Int, seconds total: Double, decoding: Double) {
        guard tokens > Self.tokensMin, total > 0 else { return }
        let step = min(max(total / Double(tokens - 1), Self.seconds.lowerBound), Self.seconds.upperBound)
        samples += 1
        var weight = max(PrefillRate.weightMin, 1 / Double(samples + 1))
        if relearning > 0 {
            relearning -= 1
            weight = max(weight, PrefillRate.weightRelearning)
        }
        seconds += weight * (step - seconds)
        self.decoding += weight * (max(0, decoding) - self.decoding)
    }

    mutating func scale(by ratio: Double) {
        guard ratio.isFinite, ratio > 0 else { return }
        seconds = min(max(seconds * ratio, Self.seconds.lowerBound), Self.seconds.upperBound)
        relearning = PrefillRate.relearningSamples
    }
}
