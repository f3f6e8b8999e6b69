import ArgumentParser
import ControlPlane
import Tokenization

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// `tollgate bench`: measures parts of the gateway by themselves.
struct Bench: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Measure parts of the gateway by themselves.",
        subcommands: [Tokens.self, BenchRouting.self, BenchDecisions.self])

    struct Tokens: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Measure how fast a vocabulary encodes and counts a text.",
            discussion: """
                One thread, its processor time, the median of rounds over the whole text. The cache of pieces is warm, the \
                most that it can give, but for --cold.

                Examples:
                  tollgate bench tokens --tokenizer llama-3.1.json --text prompts.txt
                """)

        @OptionGroup var file: TokenizerOptions

        @Option(help: "The text.", completion: .file())
        var text: String

        @Option(help: "At least so many seconds for each of the two.")
        var seconds = 2.0

        @Flag(help: "Begin each round with an empty cache of pieces.")
        var cold = false

        @OptionGroup var output: OutputOptions

        private struct Figures: Encodable {
            var encode, count: Double
            var tokens, bytes, memoryBytes, vocabularySize: Int

            enum CodingKeys: String, CodingKey {
                case encode = "encode_megabytes_per_second"
                case count = "count_megabytes_per_second"
                case tokens, bytes
                case memoryBytes = "memory_bytes"
                case vocabularySize = "vocabulary_size"
            }
        }

        func validate() throws {
            guard seconds > 0, seconds <= 600 else { throw ValidationError("--seconds must be above 0, at most 600.") }
        }

        func run() throws {
            let tokenizer = try file.load()
            let text = try InputFile.contents(of: text)
            guard !text.isEmpty else { throw CommandFailure("\(self.text) is empty: give a text to measure with") }
            let speed = text.withUnsafeBytes {
                TokenizerSpeed.measure(tokenizer, $0, seconds: seconds, isCold: cold)
            }
            guard output.json else {
                Output.line("encode \(Int(speed.encode)) MB/s, count \(Int(speed.count)) MB/s, \(speed.tokens) tokens")
                return
            }
            try Output.json(
                Figures(
                    encode: speed.encode, count: speed.count, tokens: speed.tokens, bytes: text.count,
                    memoryBytes: tokenizer.memoryBytes, vocabularySize: tokenizer.vocabularySize))
        }
    }
}

/// Megabytes (10^6 bytes) per second of this thread's processor time: what else the machine does is not in it.
struct TokenizerSpeed {
    var encode, count: Double
    var tokens: Int

    /// Rounds of each at least.
    private static let roundsMin = 3

    /// - Parameter isCold: Each round begins with an empty cache of pieces; emptying it is not counted.
    static func measure(
        _ tokenizer: Tokenizer, _ text: UnsafeRawBufferPointer, seconds: Double, isCold: Bool
    ) -> TokenizerSpeed {
        let scratch = TokenizerScratch()
        var tokens = 0
        func prepare() { if isCold { scratch.forgetPieces() } }
        let count = megabytesPerSecond(text.count, seconds, prepare: prepare) {
            tokens = tokenizer.count(text, scratch: scratch)
        }
        var ids: [UInt32] = []
        ids.reserveCapacity(tokens)
        let encode = megabytesPerSecond(text.count, seconds, prepare: prepare) {
            ids.removeAll(keepingCapacity: true)
            tokenizer.encode(text, into: &ids, scratch: scratch)
        }
        return TokenizerSpeed(encode: encode, count: count, tokens: tokens)
    }

    private static func megabytesPerSecond(
        _ bytes: Int, _ seconds: Double, prepare: () -> Void, _ work: () -> Void
    ) -> Double {
        var rounds: [Double] = []
        var total = 0.0
        while rounds.count < roundsMin || total < seconds {
            prepare()
            rounds.append(Self.seconds(work))
            total += rounds[rounds.count - 1]
        }
        rounds.sort()
        return Double(bytes) / 1e6 / rounds[rounds.count / 2]
    }

    static func seconds(_ work: () -> Void) -> Double {
        let start = processorSeconds()
        work()
        return processorSeconds() - start
    }

    private static func processorSeconds() -> Double {
        var time = timespec()
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }
}
