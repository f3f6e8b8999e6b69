import Domain
import Testing

@testable import Tokenization

/// Counting what a request's JSON says, by a vocabulary in which each byte is a token, and "aa" and "aaaa" are.
struct PromptCounterTests {
    private let tokenizer: Tokenizer
    private let counter = PromptCounter(cache: TextCountCache())

    init() throws {
        tokenizer = try MadeUpVocabulary(further: ["aa", "aaaa"]).tiktoken.withUnsafeBytes {
            try Tokenizer.load($0, named: "made up", pattern: .gpt2)
        }
    }

    private func conversation(_ json: String) -> PromptCount {
        var newBytes = PromptCounter.newBytesMax
        return Array(json.utf8).withUnsafeBytes {
            counter.countConversation($0, by: tokenizer, newBytes: &newBytes)
        }
    }

    private func prompts(_ json: String) -> PromptCount {
        var newBytes = PromptCounter.newBytesMax
        return Array(json.utf8).withUnsafeBytes { counter.countPrompts($0, by: tokenizer, newBytes: &newBytes) }
    }

    @Test func textsAreCountedAsTheyReadAndBoundedAsTheyStand() {
        let count = conversation(
            #"[{"role":"user","content":"aaaa\n\u00e9"},{"content":[{"type":"text","text":"xy"}]}]"#)
        #expect(count.textTokens == 1 + 1 + 2 + 2)
        #expect(count.textBytes == #"aaaa\n\u00e9"#.utf8.count + 2)
        #expect(count.messages == 2)
        #expect(count.isWhole)
    }

    @Test func callsAreCountedAsTheirJSONAndMakeTheCountIncomplete() {
        let call = #"[{"id":"x","function":{"name":"f"}}]"#
        let count = conversation(#"[{"role":"assistant","content":null,"tool_calls":\#(call)}]"#)
        #expect(count.textTokens == 0)
        #expect(count.structuredTokens == call.utf8.count)
        #expect(!count.isWhole)
    }

    @Test func onlyWhatAClientSaysIsCertain() {
        let text = String(repeating: "word ", count: 100) + "end"
        func certain(_ role: String, _ text: String) -> Int {
            conversation(#"[{"content":"\#(text)","role":"\#(role)"}]"#).certainTokens
        }
        #expect(certain("user", text) == text.utf8.count - 16)
        #expect(certain("assistant", text) == 0)
        // A template that trims could leave nothing of it.
        #expect(certain("user", String(repeating: " ", count: 500)) == 0)
        #expect(certain("user", "\\u0020\\u0020" + text) == 0)
        // Nodes may read it as one token.
        #expect(certain("user", text + "<|endoftext|> and on") == 0)
    }

    @Test func promptsAreStringsTokensOrListsOfThem() {
        #expect(prompts(#""aaaab""#).textTokens == 2)
        #expect(prompts(#"["aaaa","bc"]"#).textTokens == 3)
        #expect(prompts(#"["aaaa","bc"]"#).prompts == 2)
        #expect(prompts(#"["aaaa","bc"]"#).certainTokens == 2)
        #expect(prompts("[5, 600,7]").textTokens == 3)
        #expect(prompts("[[5,6],[7]]").textTokens == 3)
        #expect(prompts("[[5,6],[7]]").prompts == 2)
    }

    @Test func aTextTooLongToCountIsEstimatedAndStaysBoundedByItsBytes() {
        let long = String(repeating: "a", count: PromptCounter.newBytesMax)
        let count = conversation(#"[{"role":"user","content":"b\#(long)"},{"content":"aaaa"}]"#)
        #expect(count.textTokens == 1)
        #expect(count.textBytes == 4)
        #expect(count.structuredTokens == PromptCounter.newBytesMax / 4 + 1)
        #expect(!count.isWhole)
        // Each request begins anew, and what was counted once is free.
        #expect(conversation(#"[{"role":"user","content":"\#(long)"}]"#).textTokens == PromptCounter.newBytesMax / 4)
        let both = #"[{"role":"user","content":"\#(long)"},{"content":"\#(String(long.dropLast(4)))"}]"#
        #expect(conversation(both).textTokens == PromptCounter.newBytesMax / 2 - 1)
    }

    @Test func aTextThatComesAgainIsNotCountedAgain() {
        let cache = TextCountCache()
        let text = Array(String(repeating: "a long text ", count: 20).utf8)
        var counted = 0
        for owner in [UInt32(32), 32, 64] {
            let tokens = text.withUnsafeBytes {
                cache.tokens(of: $0, owner: owner) {
                    counted += 1
                    return 7
                }
            }
            #expect(tokens == 7)
        }
        // Once for each vocabulary.
        #expect(counted == 2)
    }

    @Test func theCacheAnswersAsTheTokenizerDoesWhateverComesAndGoes() {
        let seed = UInt64.random(in: 0...UInt64.max)
        print("theCacheAnswersAsTheTokenizerDoes seed \(seed)")
        var random = SplitMix64(seed: seed)
        let alphabet = Array("aab c".utf8)
        let texts = (0..<300).map { _ in
            (0..<Int.random(in: 60...90, using: &random)).map { _ in alphabet.randomElement(using: &random) ?? 97 }
        }
        let scratch = TokenizerScratch()
        let counter = PromptCounter(cache: TextCountCache(slotsPerShard: 4))
        for _ in 0..<3_000 {
            let text = texts.randomElement(using: &random) ?? []
            let json = Array("[{\"content\":\"".utf8) + text + Array("\"}]".utf8)
            var newBytes = PromptCounter.newBytesMax
            let count = json.withUnsafeBytes { counter.countConversation($0, by: tokenizer, newBytes: &newBytes) }
            #expect(count.textTokens == text.withUnsafeBytes { tokenizer.count($0, scratch: scratch) })
        }
    }
}

struct TemplateOverheadTests {
    @Test func aTemplatesTokensAreLearnedExactly() {
        var overhead = TemplateOverhead(conversation: 4, message: 4)
        #expect(overhead.tokens(messages: 1) == 8)
        let seed = UInt64.random(in: 0...UInt64.max)
        print("aTemplatesTokensAreLearnedExactly seed \(seed)")
        var random = SplitMix64(seed: seed)
        for _ in 0..<200 {
            let messages = Int.random(in: 1...20, using: &random)
            overhead.learn(overhead: 23 + 5 * messages, messages: messages)
        }
        for messages in 1...50 { #expect(overhead.tokens(messages: messages) == 23 + 5 * messages) }
        // Another template: the old one is forgotten.
        for _ in 0..<2_000 {
            let messages = Int.random(in: 1...20, using: &random)
            overhead.learn(overhead: 2 + 3 * messages, messages: messages)
        }
        for messages in 1...50 { #expect(overhead.tokens(messages: messages) == 2 + 3 * messages) }
    }

    @Test func oneLengthOfConversationIsEnoughForItself() {
        var overhead = TemplateOverhead(conversation: 4, message: 4)
        for _ in 0..<100 { overhead.learn(overhead: 300, messages: 1) }
        #expect(overhead.tokens(messages: 1) == 300)
        for _ in 0..<100 { overhead.learn(overhead: 1_000_000, messages: 1) }
        #expect(overhead.tokens(messages: 1) == 300)
    }
}
