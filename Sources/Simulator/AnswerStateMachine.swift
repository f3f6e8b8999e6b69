import Domain
import NIOCore

/// One generation on its way out: how far the engine is, how far the writing is, and where a fault cuts in.
///
/// The text is a function of seed and index, so tokens that a slow reader has not taken yet are two numbers, not a
/// buffer. Pure: it fills the buffer that it is given, and the shell writes, closes or resets.
///
/// States: *generating* until every choice is written, then *finished*; *stalled* and *dead* by fault, which only the end
/// of the connection leaves.
struct AnswerStateMachine {
    enum Action: Equatable {
        /// The buffer is full; call again when the connection takes more.
        case writeThenContinue
        /// Nothing more until the engine generates.
        case writeThenWait
        case finish
        /// Nothing more at all, the connection stays open.
        case stall
        /// Write what is in the buffer, then reset the connection.
        case reset
    }

    private struct Progress {
        var prompt: Int
        /// As the answer numbers it.
        var index: Int
        var choice: GenerationRequest.Choice
        var generated = 0
        var written = 0
        var writtenBytes = 0
        var roleIsWritten = false
        var isFinished = false
    }

    let stream: Bool
    let isChunked: Bool
    private let includeUsage: Bool
    private let faults: RequestFaults
    private let renderer: AnswerRenderer
    private let promptTokens: Int
    private var cachedTokens = 0
    private var progress: [Progress] = []
    private var cursor = 0
    /// Over all choices.
    private var writtenTokens = 0
    private var unfinished: Int
    private var badEventIsDue: Bool
    private var event = ByteBuffer()

    /// - Parameter isChunked: Whether the client's HTTP version knows chunks.
    init(request: GenerationRequest, renderer: AnswerRenderer, faults: RequestFaults, isChunked: Bool) {
        stream = request.stream
        includeUsage = request.includeUsage
        promptTokens = request.promptTokens
        badEventIsDue = faults.badJSON
        self.faults = faults
        self.renderer = renderer
        self.isChunked = isChunked
        var index = 0
        for (prompt, row) in request.choices.enumerated() {
            for choice in row {
                progress.append(Progress(prompt: prompt, index: index, choice: choice))
                if !choice.isHidden { index += 1 }
            }
        }
        unfinished = progress.count { !$0.choice.isHidden }
    }

    /// What the node reports; off by the fault's percentage.
    var usage: TokenUsage {
        let scale = 100 + (faults.usagePercent ?? 0)
        func scaled(_ tokens: Int) -> Int { (tokens * scale + 99) / 100 }
        let prompt = scaled(promptTokens)
        return TokenUsage(
            promptTokens: prompt, cachedTokens: min(cachedTokens, prompt),
            completionTokens: scaled(progress.reduce(0) { $0 + $1.choice.tokens }))
    }

    private var isGenerated: Bool { progress.allSatisfy { $0.generated == $0.choice.tokens } }

    /// One of the prompts has entered the engine.
    mutating func promptAdmitted(cachedTokens: Int) {
        self.cachedTokens += cachedTokens
    }

    /// Each choice of that prompt has `tokens` tokens, or its whole length if that is less.
    /// - Returns: How many tokens are new.
    mutating func tokensGenerated(prompt: Int, tokens: Int) -> Int {
        var new = 0
        for index in progress.indices where progress[index].prompt == prompt {
            let generated = min(tokens, progress[index].choice.tokens)
            new += max(0, generated - progress[index].generated)
            progress[index].generated = max(progress[index].generated, generated)
        }
        return new
    }

    /// Fills the buffer with what is due, up to about `bytesMax` for a stream.
    mutating func write(into buffer: inout ByteBuffer, bytesMax: Int, saysClose: Bool) -> Action {
        stream ? writeEvents(into: &buffer, bytesMax: bytesMax) : writePlain(into: &buffer, saysClose: saysClose)
    }

    private mutating func writePlain(into buffer: inout ByteBuffer, saysClose: Bool) -> Action {
        let generated = progress.reduce(0) { $0 + ($1.choice.isHidden ? 0 : $1.generated) }
        if let action = fault(after: generated) { return action }
        guard isGenerated else { return .writeThenWait }
        event.clear()
        renderer.answer(progress.map(\.choice), usage: faults.noUsage ? nil : usage, into: &event)
        if faults.badJSON { event.moveWriterIndex(to: event.writerIndex * 2 / 3) }
        HTTPText.head(
            status: 200, contentType: "application/json", length: event.readableBytes, isChunked: false,
            saysClose: saysClose, into: &buffer)
        buffer.writeBuffer(&event)
        return .finish
    }

    private mutating func writeEvents(into buffer: inout ByteBuffer, bytesMax: Int) -> Action {
        while unfinished > 0 {
            if let action = fault(after: writtenTokens) { return action }
            guard buffer.readableBytes < bytesMax else { return .writeThenContinue }
            guard let index = nextDue() else { return .writeThenWait }
            event.clear()
            if writeEvent(of: index) { HTTPText.event(event, isChunked: isChunked, into: &buffer) }
            cursor = index + 1
        }
        // What `best_of` throws away is generated nonetheless, and the usage counts it.
        guard isGenerated else { return .writeThenWait }
        if includeUsage, !faults.noUsage {
            event.clear()
            renderer.usage(usage, into: &event)
            HTTPText.event(event, isChunked: isChunked, into: &buffer)
        }
        if !faults.noDone { HTTPText.event(ByteBuffer(string: "[DONE]"), isChunked: isChunked, into: &buffer) }
        if isChunked { buffer.writeStaticString("0\r\n\r\n") }
        return .finish
    }

    /// The next choice, round robin, that has something to write.
    private func nextDue() -> Int? {
        for offset in 0..<progress.count {
            let index = (cursor + offset) % progress.count
            let choice = progress[index]
            guard !choice.choice.isHidden, !choice.isFinished else { continue }
            if choice.written < choice.generated || choice.generated == choice.choice.tokens { return index }
        }
        return nil
    }

    /// - Returns: Whether there is an event: a token behind a stop string has none.
    private mutating func writeEvent(of index: Int) -> Bool {
        let due = progress[index]
        if renderer.kind == .chat, !due.roleIsWritten {
            progress[index].roleIsWritten = true
            renderer.role(due.index, into: &event)
            return true
        }
        guard due.written < due.choice.tokens else {
            progress[index].isFinished = true
            unfinished -= 1
            renderer.finish(due.choice, due.index, into: &event)
            return true
        }
        let text = FillerText(seed: due.choice.seed).token(due.written)
            .prefix(due.choice.visibleBytes - due.writtenBytes)
        progress[index].written += 1
        writtenTokens += 1
        progress[index].writtenBytes += text.utf8.count
        guard !text.isEmpty else { return false }
        if badEventIsDue {
            badEventIsDue = false
            renderer.brokenEvent(into: &event)
        } else {
            renderer.token(text, due.index, into: &event)
        }
        return true
    }

    private func fault(after tokens: Int) -> Action? {
        if let limit = faults.dieAfterTokens, tokens >= limit { return .reset }
        if let limit = faults.stallAfterTokens, tokens >= limit { return .stall }
        return nil
    }
}
