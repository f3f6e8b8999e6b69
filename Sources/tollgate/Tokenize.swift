import ArgumentParser
import ControlPlane
import Tokenization

/// `tollgate tokenize`: what a vocabulary makes of a text.
struct Tokenize: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Turn text on standard input into token ids, or count them.",
        discussion: """
            Reads a Hugging Face tokenizer.json, a tekken.json or a tiktoken file. Ids are those of the library that \
            defines the format; special tokens in the text are ordinary text in tiktoken and tekken files, and tokens \
            in a tokenizer.json that marks them.

            Examples:
              echo -n 'Hello world' | tollgate tokenize --tokenizer llama-3.1.json
              tollgate tokenize --tokenizer o200k_base.tiktoken --pattern o200k --count < prompt.txt
            """)

    @OptionGroup var file: TokenizerOptions

    @Flag(help: "Print how many there are, not which.")
    var count = false

    // For the tests that hold ids against the libraries, text by text in one process.
    @Flag(help: .init("Read records: each a length, 4 bytes, little-endian, and a text.", visibility: .hidden))
    var lines = false

    @Option(help: .init("Measure instead, for so many seconds of processor time.", visibility: .hidden))
    var bench: Double?

    @Flag(help: .init("Measure with an empty cache in each round.", visibility: .hidden))
    var cold = false

    @Option(help: .init("Estimate instead, learning from the first so many records.", visibility: .hidden))
    var estimate: Int?

    @OptionGroup var output: OutputOptions

    private struct IDs: Encodable { var ids: [UInt32] }
    private struct Count: Encodable { var count: Int }

    func validate() throws {
        if let bench, !(bench > 0) { throw ValidationError("--bench needs a number of seconds above 0.") }
    }

    func run() throws {
        let tokenizer = try file.load()
        if lines {
            var records = TokenizerRecords(
                tokenizer, counts: count, benchSeconds: bench, isCold: cold, learnedMax: estimate)
            return try records.answer()
        }
        let text = try InputFile.contents(of: nil)
        let scratch = TokenizerScratch()
        if count {
            let count = text.withUnsafeBytes { tokenizer.count($0, scratch: scratch) }
            return try output.json ? Output.json(Count(count: count)) : Output.line("\(count)")
        }
        var ids: [UInt32] = []
        text.withUnsafeBytes { tokenizer.encode($0, into: &ids, scratch: scratch) }
        try output.json ? Output.json(IDs(ids: ids)) : Output.line(ids.map { "\($0)" }.joined(separator: " "))
    }
}
