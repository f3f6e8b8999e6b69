import JSON

/// Counts the tokens of a request's prompt as its JSON says it, by a model's vocabulary.
///
/// Texts are counted as they read once their escapes are undone. What is not text (tool calls, tools) is counted as the
/// JSON that was sent, which is what templates print but for blanks. Images are bounded elsewhere, by the model's
/// `image_tokens_max`.
///
/// One per event loop, for all tokenizers.
package final class PromptCounter {
    /// The largest text buffer that is kept from one call to the next.
    static let textBytesKept = 64 << 10
    /// Within how many bytes of its ends a text must show that it is not blank, since templates trim.
    private static let endBytes = 8
    /// Tokens that trimming a text which is not blank, and joining it to its neighbours, may save.
    private static let savedMax = 16

    /// Bytes of new text that are counted for one request, since an event loop waits for it: 5 to 30 ms. Texts that were
    /// counted before are free, and what does not fit is estimated by its bytes, and bounded by them.
    package static let newBytesMax = 1 << 20

    private let scratch = TokenizerScratch()
    /// Of the call under way.
    private var newBytesLeft = 0
    private let cache: TextCountCache
    private var text: [UInt8] = []

    package init(cache: TextCountCache) {
        self.cache = cache
    }

    /// Bytes held between calls, the shared cache aside.
    package var memoryBytes: Int { scratch.memoryBytes + text.capacity }

    // MARK: Prompts

    /// Counts a conversation: `messages`, or the items of a response's `input`.
    ///
    /// - Parameters:
    ///   - json: An array of objects, or a string, that ``JSONScanner`` has validated.
    ///   - newBytes: How much new text may be counted; lowered by what was.
    package func countConversation(_ json: UnsafeRawBufferPointer, by tokenizer: Tokenizer, newBytes: inout Int)
        -> PromptCount
    {
        newBytesLeft = newBytes
        defer { newBytes = newBytesLeft }
        var total = PromptCount()
        var reader = Reader(json, tokenizer: tokenizer, counter: self)
        do throws(JSONError) {
            if try reader.scanner.peek() == UInt8(ascii: "\"") {
                total = reader.text(try reader.scanner.value(), isCertain: true)
                total.messages = 1
            } else {
                try reader.scanner.enter()
                var isFirst = true
                while try reader.scanner.nextElement(&isFirst) { total.add(try reader.message()) }
            }
        } catch {
            // Cannot be: the text was validated. What is not counted stays bounded by its bytes.
            total.isWhole = false
        }
        total.prompts = 1
        giveBack()
        return total
    }

    /// Counts `prompt` or `input`: a string, token ids, or a list of either.
    package func countPrompts(_ json: UnsafeRawBufferPointer, by tokenizer: Tokenizer, newBytes: inout Int)
        -> PromptCount
    {
        newBytesLeft = newBytes
        defer { newBytes = newBytesLeft }
        var reader = Reader(json, tokenizer: tokenizer, counter: self)
        let total = (try? reader.prompts()) ?? PromptCount()
        giveBack()
        return total
    }

    /// Counts what stands in the prompt as JSON: `tools`, a system prompt in parts.
    package func countStructure(_ json: UnsafeRawBufferPointer, by tokenizer: Tokenizer, newBytes: inout Int)
        -> PromptCount
    {
        newBytesLeft = newBytes
        defer { newBytes = newBytesLeft }
        var count = PromptCount()
        if json.first == UInt8(ascii: "\"") {
            let reader = Reader(json, tokenizer: tokenizer, counter: self)
            count = reader.text(0..<json.count, isCertain: false)
        } else {
            count.structuredTokens = tokens(of: json, by: tokenizer) ?? Self.estimate(json)
            count.isWhole = false
        }
        giveBack()
        return count
    }

    /// Counts a text that a model wrote, as its JSON has it.
    ///
    /// - Parameter escaped: Contents of strings, one after the other.
    package func countEscaped(_ escaped: UnsafeRawBufferPointer, by tokenizer: Tokenizer) -> Int {
        defer { giveBack() }
        return count(escaped, by: tokenizer)
    }

    // MARK: Texts

    fileprivate func tokens(of raw: UnsafeRawBufferPointer, by tokenizer: Tokenizer) -> Int? {
        cache.tokens(of: raw, owner: tokenizer.cacheOwner) {
            take(raw.count) ? tokenizer.count(raw, scratch: scratch) : nil
        }
    }

    /// Of a string's content as it stands in the body.
    fileprivate func tokens(ofEscaped raw: UnsafeRawBufferPointer, by tokenizer: Tokenizer) -> Int? {
        cache.tokens(of: raw, owner: tokenizer.cacheOwner) { take(raw.count) ? count(raw, by: tokenizer) : nil }
    }

    private func take(_ bytes: Int) -> Bool {
        guard bytes <= newBytesLeft else { return false }
        newBytesLeft -= bytes
        return true
    }

    /// Four bytes a token, as where no vocabulary is known.
    fileprivate static func estimate(_ raw: UnsafeRawBufferPointer) -> Int { (raw.count + 3) / 4 }

    private func count(_ escaped: UnsafeRawBufferPointer, by tokenizer: Tokenizer) -> Int {
        guard escaped.contains(UInt8(ascii: "\\")) else { return tokenizer.count(escaped, scratch: scratch) }
        text.removeAll(keepingCapacity: true)
        JSONDecoding.append(unescaped: escaped, to: &text)
        return text.withUnsafeBytes { tokenizer.count($0, scratch: scratch) }
    }

    private func giveBack() {
        if text.capacity > Self.textBytesKept { text = [] }
    }
}

extension PromptCounter {
    /// One walk over one prompt.
    private struct Reader {
        // SAFETY: borrowed for the duration of the call that makes the reader.
        let json: UnsafeRawBufferPointer
        let tokenizer: Tokenizer
        let counter: PromptCounter
        var scanner: JSONScanner

        init(_ json: UnsafeRawBufferPointer, tokenizer: Tokenizer, counter: PromptCounter) {
            self.json = json
            self.tokenizer = tokenizer
            self.counter = counter
            scanner = JSONScanner(json)
        }

        mutating func prompts() throws(JSONError) -> PromptCount {
            var total = PromptCount()
            switch try scanner.peek() {
            case UInt8(ascii: "\""):
                total = text(try scanner.value(), isCertain: true)
                total.certainTokens = total.textTokens
                total.prompts = 1
            case UInt8(ascii: "["):
                var longest = 0
                var isFirst = true
                try scanner.enter()
                while try scanner.nextElement(&isFirst) {
                    var one = PromptCount()
                    switch try scanner.peek() {
                    case UInt8(ascii: "\""):
                        one = text(try scanner.value(), isCertain: true)
                        one.prompts = 1
                        longest = max(longest, one.textTokens)
                    case UInt8(ascii: "["):
                        one = try prompts()
                        longest = max(longest, one.textTokens)
                    default:
                        // A token id: itself.
                        one.textTokens = 1
                        one.textBytes = try scanner.value().count
                        longest += 1
                    }
                    total.add(one)
                }
                total.prompts = max(1, total.prompts)
                total.certainTokens = longest
            default:
                try scanner.value()
                total.isWhole = false
            }
            return total
        }

        mutating func message() throws(JSONError) -> PromptCount {
            var count = PromptCount()
            guard try scanner.peek() == UInt8(ascii: "{") else {
                try scanner.value()
                count.isWhole = false
                return count
            }
            count.messages = 1
            var isCertain = false
            try scanner.enter()
            var isFirst = true
            while let key = try scanner.nextMember(&isFirst) {
                if key.matches("content", in: json) || key.matches("output", in: json) {
                    count.add(try content())
                } else if key.matches("role", in: json) {
                    let role = try scanner.value()
                    // What a model said before may be shortened: templates drop its thoughts.
                    isCertain = isSaidByClient(role)
                } else if key.matches("type", in: json) || key.matches("id", in: json)
                    || key.matches("status", in: json)
                {
                    try scanner.value()
                } else {
                    try structure(&count)
                }
            }
            if !isCertain { count.certainTokens = 0 }
            return count
        }

        private func isSaidByClient(_ role: Range<Int>) -> Bool {
            json[role].elementsEqual("\"user\"".utf8) || json[role].elementsEqual("\"system\"".utf8)
        }

        /// A text, or an array of parts.
        private mutating func content() throws(JSONError) -> PromptCount {
            var count = PromptCount()
            switch try scanner.peek() {
            case UInt8(ascii: "\""): return text(try scanner.value(), isCertain: true)
            case UInt8(ascii: "["):
                try scanner.enter()
                var isFirst = true
                while try scanner.nextElement(&isFirst) { count.add(try part()) }
                return count
            default:
                try scanner.value()
                return count
            }
        }

        private mutating func part() throws(JSONError) -> PromptCount {
            var count = PromptCount()
            switch try scanner.peek() {
            case UInt8(ascii: "\""): return text(try scanner.value(), isCertain: true)
            case UInt8(ascii: "{"): break
            default:
                try scanner.value()
                return count
            }
            try scanner.enter()
            var isFirst = true
            while let key = try scanner.nextMember(&isFirst) {
                let isText =
                    key.matches("text", in: json) || key.matches("thinking", in: json)
                    || key.matches("refusal", in: json)
                if isText, try scanner.peek() == UInt8(ascii: "\"") {
                    let isCertain = key.matches("text", in: json)
                    count.add(text(try scanner.value(), isCertain: isCertain))
                } else if key.matches("content", in: json) {
                    var inner = try content()
                    inner.certainTokens = 0
                    count.add(inner)
                } else if key.matches("type", in: json) {
                    try scanner.value()
                } else if key.matches("input", in: json) || key.matches("arguments", in: json) {
                    try structure(&count)
                } else {
                    // An image, or a mark for a cache: none of it is text.
                    try scanner.value()
                    count.isWhole = false
                }
            }
            return count
        }

        private mutating func structure(_ count: inout PromptCount) throws(JSONError) {
            let span = try scanner.value()
            guard json[span.lowerBound] != UInt8(ascii: "n") else { return }
            let raw = UnsafeRawBufferPointer(rebasing: json[span])
            count.structuredTokens += counter.tokens(of: raw, by: tokenizer) ?? PromptCounter.estimate(raw)
            count.isWhole = false
        }

        /// - Parameter span: A string, quotes included.
        func text(_ span: Range<Int>, isCertain: Bool) -> PromptCount {
            let raw = UnsafeRawBufferPointer(rebasing: json[(span.lowerBound + 1)..<(span.upperBound - 1)])
            var count = PromptCount()
            guard let tokens = counter.tokens(ofEscaped: raw, by: tokenizer) else {
                count.structuredTokens = PromptCounter.estimate(raw)
                count.isWhole = false
                return count
            }
            count.textBytes = raw.count
            count.textTokens = tokens
            if isCertain, !isMostlyBlank(raw), !mayNameSpecials(raw) {
                count.certainTokens = max(0, count.textTokens - PromptCounter.savedMax)
            }
            return count
        }

        /// Whether a node that reads special tokens in texts could find any: each is one token, however long.
        private func mayNameSpecials(_ raw: UnsafeRawBufferPointer) -> Bool {
            raw.contains(UInt8(ascii: "<")) || raw.contains(UInt8(ascii: "["))
        }

        /// Whether trimming could take more than a few blanks of it: unless both ends show soon that they are none. An
        /// escape may stand for anything.
        private func isMostlyBlank(_ raw: UnsafeRawBufferPointer) -> Bool {
            func isBlank(_ end: some Collection<UInt8>) -> Bool {
                end.contains(UInt8(ascii: "\\"))
                    || !end.contains { (0x21...0x7E).contains($0) || (0xC3...0xDF).contains($0) || $0 >= 0xE4 }
            }
            return isBlank(raw.prefix(PromptCounter.endBytes)) || isBlank(raw.suffix(PromptCounter.endBytes))
        }
    }
}
