import ControlPlane
import JSON
import Tokenization

/// Many texts through one tokenizer in one process: what the tests ask that hold ours against the libraries.
///
/// Records come on standard input, each a length (4 bytes, little-endian) and a text; a line goes out for each as soon as
/// it is whole, so that one process can be asked for hours.
struct TokenizerRecords {
    private let tokenizer: Tokenizer
    private let counts: Bool
    private let benchSeconds: Double?
    private let isCold: Bool
    private let learnedMax: Int?
    private var estimator = TokenEstimator()
    private let scratch = TokenizerScratch()
    private var ids: [UInt32] = []

    /// - Parameter learnedMax: Print what the estimator says instead, which learns from the first so many records.
    init(_ tokenizer: Tokenizer, counts: Bool, benchSeconds: Double?, isCold: Bool, learnedMax: Int?) {
        self.learnedMax = learnedMax
        self.tokenizer = tokenizer
        self.counts = counts
        self.benchSeconds = benchSeconds
        self.isCold = isCold
    }

    mutating func answer() throws(CommandFailure) {
        let input = try InputFile(nil)
        var pending: [UInt8] = []
        while try input.read(into: &pending) {
            var at = 0
            var lines = ""
            pending.withUnsafeBytes { bytes in
                while let text = Self.record(in: bytes, at: at) {
                    lines += line(UnsafeRawBufferPointer(rebasing: bytes[text])) + "\n"
                    at = text.upperBound
                }
            }
            pending.removeFirst(at)
            if !lines.isEmpty { Output.line(lines, terminator: "") }
        }
        guard pending.isEmpty else {
            throw CommandFailure("the last record is cut off: \(pending.count) bytes of it came")
        }
    }

    /// Where the text of the record at `start` is; nil while it is not whole.
    private static func record(in bytes: UnsafeRawBufferPointer, at start: Int) -> Range<Int>? {
        guard start + 4 <= bytes.count else { return nil }
        let length = Int(UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: start, as: UInt32.self)))
        guard length <= bytes.count - start - 4 else { return nil }
        return (start + 4)..<(start + 4 + length)
    }

    private mutating func line(_ text: UnsafeRawBufferPointer) -> String {
        if let benchSeconds {
            let speed = TokenizerSpeed.measure(tokenizer, text, seconds: benchSeconds, isCold: isCold)
            return """
                {"encode_megabytes_per_second":\(speed.encode),"count_megabytes_per_second":\(speed.count),\
                "tokens":\(speed.tokens),"bytes":\(text.count)}
                """
        }
        if let learnedMax { return estimate(text, learnedMax) }
        if counts { return "\(tokenizer.count(text, scratch: scratch))" }
        ids.removeAll(keepingCapacity: true)
        tokenizer.encode(text, into: &ids, scratch: scratch)
        return ids.map { "\($0)" }.joined(separator: " ")
    }

    /// The estimate, the tokens, the bytes as JSON, and the seconds that scanning and learning took.
    private mutating func estimate(_ text: UnsafeRawBufferPointer, _ learnedMax: Int) -> String {
        var json: [UInt8] = []
        JSONWriter.append(escapingContent: text, to: &json)
        var features = TextFeatures()
        let scanSeconds = TokenizerSpeed.seconds { features = json.withUnsafeBytes { TextFeatures($0) } }
        features.messages = 1
        let estimated = estimator.tokens(features)
        let tokens = tokenizer.count(text, scratch: scratch)
        var learnSeconds = 0.0
        if estimator.requestsLearned < learnedMax {
            learnSeconds = TokenizerSpeed.seconds { estimator.learn(features, tokens: tokens) }
        }
        return "\(estimated) \(tokens) \(json.count) \(scanSeconds) \(learnSeconds)"
    }
}
