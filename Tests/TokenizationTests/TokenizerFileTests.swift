import Testing

@testable import Tokenization

/// What loaders refuse, and in which words; what they accept is held against the judges in ``MergingTests``.
@Suite struct TokenizerFileTests {
    private static let bytes: MadeUpVocabulary = {
        var generator = TextGenerator(seed: 7)
        return MadeUpVocabulary(3, of: Array("ab".utf8), using: &generator)
    }()

    private func refusal(_ file: [UInt8], pattern: PretokenizerPattern? = nil) -> String {
        do throws(TokenizerError) {
            _ = try load(file, pattern: pattern)
            return "loaded"
        } catch { return error.description }
    }

    private func refusal(_ file: String, pattern: PretokenizerPattern? = nil) -> String {
        refusal(Array(file.utf8), pattern: pattern)
    }

    private func model(_ members: String, rest: String = "") -> String {
        #"{"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]\#(members)}\#(rest)}"#
    }

    @Test func tiktokenFileWithoutPatternIsRefusedWithTheChoices() {
        #expect(refusal(Self.bytes.tiktoken).contains("gpt2, cl100k, o200k, llama3, qwen2, tekken"))
    }

    @Test func brokenTiktokenFilesAreRefusedByLine() {
        let good = String(decoding: Self.bytes.tiktoken, as: UTF8.self)
        #expect(refusal(good + "!!!! 900\n", pattern: .gpt2).contains("line 260: the token is not base64"))
        #expect(refusal(good + "YWE=\n", pattern: .gpt2).contains("line 260: expected base64, a space and a rank"))
        #expect(refusal(good + "enp6 -1\n", pattern: .gpt2).contains("line 260: the rank is not a number"))
        #expect(refusal(good + " 900\n", pattern: .gpt2).contains("line 260: the token is empty"))
        #expect(refusal(good + "enp6 5\n", pattern: .gpt2).contains("two tokens have the id 5"))
        #expect(refusal(good + "YQ== 900\n", pattern: .gpt2).contains("the ids 97 and 900 have the same bytes"))
        #expect(refusal(good + "enp6 99999999999\n", pattern: .gpt2).contains("line 260: id 99999999999 is not in"))
        let lacking = good.split(separator: "\n").filter { !$0.hasSuffix(" 66") }.joined(separator: "\n")
        #expect(refusal(lacking, pattern: .gpt2).contains("no token is the single byte 0x42"))
    }

    @Test func idsMayHaveGaps() throws {
        let tokenizer = try load(Self.bytes.tiktoken + Array("enp6 5000\n".utf8), pattern: .gpt2)
        #expect(tokenizer.ids("zzz") == [5000])
        #expect(tokenizer.vocabularySize == 5001)
    }

    @Test func filesOfNoFormatAreRefused() {
        #expect(refusal("").contains("neither a tokenizer.json, a tekken.json nor a tiktoken file"))
        #expect(refusal("\u{0}\u{1}").contains("neither"))
        #expect(refusal("[1]").contains("neither"))
        #expect(refusal("{}").contains("no model"))
        #expect(refusal(String(repeating: "[", count: 5000)).contains("neither"))
        #expect(refusal(#"{"model":"# + String(repeating: "[", count: 5000)).contains("inside each other"))
        #expect(refusal(model(""), pattern: .gpt2).contains("the file has its own pattern"))
    }

    @Test(arguments: [
        (#","dropout":0.1"#, "", "model.dropout: must be null"),
        (#","continuing_subword_prefix":"\u0023""#, "", "model.continuing_subword_prefix: must be empty"),
        (#","end_of_word_suffix":"</w>""#, "", "model.end_of_word_suffix: must be empty"),
        (#","unk_token":"<unk>""#, "", "unk_token is not in vocab"),
        (#","byte_fallback":true"#, "", "byte_fallback without the token <0x00>"),
        (#","new":1"#, "", "model.new: is not known"),
        (#","merges":[]"#, "", "the key occurs twice"),
        ("", #","normalizer":{"type":"NFKC"}"#, "normalizer: the normalizer NFKC"),
        ("", #","normalizer":{"type":"Replace","pattern":{"String":"x"},"content":"y"}"#, "normalizer: Replace of"),
        ("", #","pre_tokenizer":{"type":"Whitespace"}"#, "pre_tokenizer: the pre-tokenizer Whitespace"),
        (
            "",
            #","pre_tokenizer":{"type":"Split","pattern":{"Regex":"\\w+"},"behavior":"Isolated","invert":false}"#,
            #"Split by a pattern other than gpt2, cl100k, o200k, llama3, qwen2, tekken: \w+"#
        ),
        ("", #","pre_tokenizer":{"type":"ByteLevel","use_regex":true}"#, "no token is the single byte 0x00"),
        ("", #","pre_tokenizer":{"type":"Metaspace","replacement":"▁"}"#, "spaces are U+2581, which is not in vocab"),
        ("", #","post_processor":{"type":"Else"}"#, "post_processor: the post-processor Else"),
        ("", #","truncation":{"max_length":5}"#, "truncation: must be null"),
        ("", #","extra":1"#, "the member extra is not known"),
    ])
    func whatIsNotDoneIsRefusedByName(members: String, rest: String, words: String) {
        let message = refusal(model(members, rest: rest))
        #expect(message.contains(words), "\(message)")
    }

    @Test func brokenMergesAreRefusedByNumber() {
        func file(_ merges: String, _ vocabulary: String = #""a":0,"b":1,"ab":2"#) -> String {
            #"{"model":{"type":"BPE","vocab":{\#(vocabulary)},"merges":[\#(merges)]}}"#
        }
        #expect(refusal(file(#""a b","a c""#)).contains("merge 1 is of tokens"))
        #expect(refusal(file(#""b a""#)).contains("merge 0 is of tokens, or makes one"))
        #expect(refusal(file(#""ab""#)).contains("merge 0 is not two tokens"))
        #expect(refusal(file(#"["a"]"#)).contains("merge 0 is not of two tokens"))
        #expect(refusal(file("7")).contains("merge 0 is neither"))
        #expect(refusal(file(#""a b""#, #""a":0,"b":0,"ab":2"#)).contains("two tokens have the id 0"))
        #expect(refusal(file(#""a b""#, #""a":0,"b":1,"ab":2,"a":3"#)).contains("a token occurs twice"))
        #expect(refusal(file(#""a b""#, #""a":0,"b":1,"ab":2,"":3"#)).contains("the token is empty"))
        #expect(refusal(file(#""a b""#, #""a":0,"b":1,"ab":-2"#)).contains("id -2 is not in"))
    }

    @Test func filesCutOffAnywhereAreRefused() {
        let file = Self.bytes.huggingFace(asArrays: false)
        for end in stride(from: 0, to: file.count, by: 37) { #expect(refusal(Array(file[..<end])) != "loaded") }
    }

    /// Long tokens that come before all that they could be made of: their last merge is found by looking up bytes, part by
    /// part, as no trained vocabulary asks for.
    @Test func aFileOfLongTokensBeforeTheirPartsLoadsInTimeThatGrowsWithIt() throws {
        func hostile(_ count: Int) -> [UInt8] {
            var generator = TextGenerator(seed: 1)
            var made = MadeUpVocabulary(0, of: [0x61], using: &generator)
            var names: Set<[UInt8]> = []
            while names.count < count {
                let name = (0..<TokenizerLimits.tokenBytesMax).map { _ in
                    UInt8.random(in: 0x61...0x64, using: &generator)
                }
                names.insert(name)
            }
            made.tokens += names.sorted { $0.lexicographicallyPrecedes($1) }
            for first in UInt8(0x61)...0x64 {
                for second in UInt8(0x61)...0x64 { made.tokens.append([first, second]) }
            }
            return made.tiktoken
        }
        let (small, large) = (hostile(12), hostile(48))
        var loaded = 0
        let seconds = [small, large].map { file in
            processorTime { loaded += (try? load(file, pattern: .gpt2)) == nil ? 0 : 1 } / 1e9
        }
        #expect(loaded == 6)
        #expect(seconds[1] < 8 * seconds[0], "\(seconds)")
    }

    // MARK: tokenizer.json beyond merging

    private func added(_ tokens: String, specialsAreText: Bool = false) throws -> Tokenizer {
        try load(Self.bytes.huggingFace(asArrays: true, added: tokens), specialsAreText: specialsAreText)
    }

    @Test func theLongestAddedTokenIsTakenWithTheWhitespaceItAsksFor() throws {
        let tokenizer = try added(
            """
            [{"id":900,"content":"<x>","lstrip":true,"special":true},{"id":901,"content":"<x>>","rstrip":true,"special":true},
            {"id":902,"content":"no","single_word":true,"special":false}]
            """)
        // The library numbers them after the vocabulary, whatever the file says.
        let first = UInt32(Self.bytes.tokens.count)
        #expect(tokenizer.ids("z \n<x>z") == [0x7A, first, 0x7A])
        #expect(tokenizer.ids("z<x>> \u{3000}z") == [0x7A, first + 1, 0x7A])
        #expect(tokenizer.ids("no") == [first + 2])
        #expect(tokenizer.ids("not") == [0x6E, 0x6F, 0x74])
        #expect(tokenizer.vocabularySize == Int(first) + 3)
    }

    @Test func specialTokensAreTextWhereThatIsAskedFor() throws {
        let tokens = #"[{"id":900,"content":"<x>","special":true},{"id":901,"content":"<y>","special":false}]"#
        let tokenizer = try added(tokens, specialsAreText: true)
        let second = UInt32(Self.bytes.tokens.count) + 1
        #expect(tokenizer.ids("<x><y>") == [0x3C, 0x78, 0x3E, second])
    }

    @Test func wholePiecesAreTokensOnlyWhereMergesAreIgnored() throws {
        var made = Self.bytes
        made.tokens.append(Array("zq".utf8))
        let id = UInt32(made.tokens.count - 1)
        #expect(try load(made.huggingFace(asArrays: true)).ids("zq") == [0x7A, 0x71])
        #expect(try load(made.huggingFace(asArrays: true, ignoresMerges: true)).ids("zq") == [id])
    }

    @Test func unknownCharactersFallBackToBytesOrToTheUnknownToken() throws {
        let bytes = (0..<256).map { byte in
            let hex = String(byte, radix: 16, uppercase: true)
            return "\"<0x\(byte < 16 ? "0" : "")\(hex)>\":\(byte + 10)"
        }.joined(separator: ",")
        func file(_ options: String, _ vocabulary: String) -> [UInt8] {
            Array(
                #"""
                {"normalizer":{"type":"Replace","pattern":{"String":" "},"content":"▁"},"model":{"type":"BPE",
                "unk_token":"<unk>",\#(options),"vocab":{"<unk>":0,"▁":1,"a":2,"▁a":3\#(vocabulary)},"merges":["▁ a"]}}
                """#.utf8)
        }
        let fallback = try load(file(#""byte_fallback":true"#, "," + bytes))
        #expect(fallback.ids("a a▁aé") == [2, 3, 3, 0xC3 + 10, 0xA9 + 10])
        #expect(try load(file(#""fuse_unk":true"#, "")).ids("éé aé") == [0, 3, 0])
        #expect(try load(file(#""fuse_unk":false"#, "")).ids("éé aé") == [0, 0, 3, 0])
    }

    @Test func tokensOfThePostProcessorAreCountedApart() throws {
        let processor = #"""
            ,"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>","type_id":0}},
            {"Sequence":{"id":"A","type_id":0}}],"pair":[],"special_tokens":{"<s>":{"id":"<s>","ids":[1],"tokens":["<s>"]}}}
            """#
        let tokenizer = try load(Array(model("", rest: processor).utf8))
        #expect(tokenizer.specialsAdded == 1)
        #expect(tokenizer.ids("ab") == [2])
    }
}
