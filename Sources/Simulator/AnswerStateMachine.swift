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
        var isOpened = false
        var isFinished = false
    }

    let stream: Bool
    let isChunked: Bool
    private let continuousUsage: Bool
    private let faults: RequestFaults
    private var renderer: any AnswerRenderer
    private let promptTokens: Int
    private var cachedTokens = 0
    private var progress: [Progress] = []
    private var cursor = 0
    /// Over all choices.
    private var writtenTokens = 0
    private var unfinished: Int
    private var isOpened = false
    private var badEventIsDue: Bool
    private var sink: EventSink

    /// - Parameter isChunked: Whether the client's HTTP version knows chunks.
    init(request: GenerationRequest, renderer: any AnswerRenderer, faults: RequestFaults, isChunked: Bool) {
        stream = request.stream
        continuousUsage = request.continuousUsage
        promptTokens = request.promptTokens
        badEventIsDue = faults.badJSON
        self.faults = faults
        self.renderer = renderer
        self.isChunked = isChunked
        sink = EventSink(isChunked: isChunked)
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
    var usage: TokenUsage { usage(completionTokens: progress.reduce(0) { $0 + $1.choice.tokens }) }

    /// Whether there is something to write before the engine has generated anything.
    var writesAtOnce: Bool { stream && renderer.opensAtOnce }

    private func usage(completionTokens: Int) -> TokenUsage {
        let scale = 100 + (faults.usagePercent ?? 0)
        func scaled(_ tokens: Int) -> Int { (tokens * scale + 99) / 100 }
        let prompt = scaled(promptTokens)
        return TokenUsage(
            promptTokens: prompt, cachedTokens: min(cachedTokens, prompt), completionTokens: scaled(completionTokens))
    }

    private var visible: [GenerationRequest.Choice] { progress.map(\.choice).filter { !$0.isHidden } }

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
        var body = ByteBuffer()
        renderer.answer(visible, usage: faults.noUsage ? nil : usage, into: &body)
        if faults.badJSON { body.moveWriterIndex(to: body.writerIndex * 2 / 3) }
        HTTPText.head(
            status: 200, contentType: "application/json", length: body.readableBytes, isChunked: false,
            saysClose: saysClose, into: &buffer)
        buffer.writeBuffer(&body)
        return .finish
    }

    private mutating func writeEvents(into buffer: inout ByteBuffer, bytesMax: Int) -> Action {
        // Swapped rather than copied: two holders of one storage would copy it at the first write.
        swap(&buffer, &sink.out)
        defer { swap(&buffer, &sink.out) }
        if renderer.opensAtOnce { open() }
        while unfinished > 0 {
            if let action = fault(after: writtenTokens) { return action }
            guard sink.out.readableBytes < bytesMax else { return .writeThenContinue }
            guard let index = nextDue() else { return .writeThenWait }
            open()
            writeEvent(of: index)
            cursor = index + 1
        }
        // What `best_of` throws away is generated nonetheless, and the usage counts it.
        guard isGenerated else { return .writeThenWait }
        renderer.ended(visible, usage: faults.noUsage ? nil : usage, isComplete: !faults.noDone, into: &sink)
        sink.end()
        return .finish
    }

    private mutating func open() {
        guard !isOpened else { return }
        isOpened = true
        renderer.opened(usage: faults.noUsage ? nil : usage(completionTokens: 0), into: &sink)
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

    /// What the choice shows next: what stands before its tokens, a token (one behind a stop string shows nothing), or
    /// what stands after them.
    private mutating func writeEvent(of index: Int) {
        let due = progress[index]
        let counted = continuousUsage && !faults.noUsage
        var token = AnswerToken(
            text: "", index: due.written, offset: due.writtenBytes,
            usage: counted ? usage(completionTokens: due.written) : nil)
        if !due.isOpened {
            progress[index].isOpened = true
            return renderer.choiceOpened(due.choice, due.index, token, &sink)
        }
        guard due.written < due.choice.tokens else {
            progress[index].isFinished = true
            unfinished -= 1
            return renderer.choiceFinished(due.choice, due.index, usage: token.usage, &sink)
        }
        token.text = due.choice.shown(of: due.choice.text.token(due.written), after: due.writtenBytes)
        progress[index].written += 1
        writtenTokens += 1
        progress[index].writtenBytes += token.text.utf8.count
        guard !token.text.isEmpty else { return }
        if badEventIsDue {
            badEventIsDue = false
            renderer.brokenToken(into: &sink)
        } else {
            if counted { token.usage = usage(completionTokens: due.written + 1) }
            renderer.token(token, of: due.choice, due.index, &sink)
        }
    }

    private func fault(after tokens: Int) -> Action? {
        if let limit = faults.dieAfterTokens, tokens >= limit { return .reset }
        if let limit = faults.stallAfterTokens, tokens >= limit { return .stall }
        return nil
    }
}
