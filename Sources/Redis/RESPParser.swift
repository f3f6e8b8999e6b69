import CHiredis
import NIOCore

/// A stream of bytes that is not RESP2, or passes a limit. The connection that carried it is of no more use.
package struct RESPProtocolError: Error, Hashable, Sendable {
    package let message: String
}

/// Turns a stream of bytes into replies: hiredis's `redisReader` finds them, our callbacks build the Swift values.
///
/// Feed bytes as they come, in any split; then take replies with ``next()`` until nil. Once it has thrown it throws for
/// ever. Belongs to one event loop (not Sendable).
package final class RESPParser {
    // SAFETY: made in `init`, freed only in `deinit`, never handed out. `reader.pointee.fn` points at a value that is
    // never freed and `privdata` at `builder`, which this object keeps alive longer than the reader.
    private let reader: UnsafeMutablePointer<redisReader>
    private let builder: RESPValueBuilder
    private let replyBytesMax: Int
    /// Bytes fed since the last whole reply, an upper bound of what the unfinished one occupies.
    private var unfinishedBytes = 0
    private var failure: RESPProtocolError?

    package init(limits: RedisLimits = RedisLimits()) {
        builder = RESPValueBuilder(elementsMax: limits.replyElementsMax)
        replyBytesMax = limits.replyBytesMax
        guard let reader = redisReaderCreateWithFunctions(RESPValueBuilder.functions) else {
            preconditionFailure("redisReaderCreateWithFunctions: out of memory")
        }
        self.reader = reader
        reader.pointee.privdata = Unmanaged.passUnretained(builder).toOpaque()
    }

    deinit {
        redisReaderFree(reader)
    }

    package func feed(_ buffer: ByteBuffer) {
        buffer.withUnsafeReadableBytes { feed($0) }
    }

    /// Copies the bytes; they need not outlive the call.
    package func feed(_ bytes: UnsafeRawBufferPointer) {
        guard failure == nil, let base = bytes.baseAddress, !bytes.isEmpty else { return }
        unfinishedBytes += bytes.count
        // SAFETY: `base` has `bytes.count` readable bytes for the duration of the call, and hiredis copies them.
        if redisReaderFeed(reader, base.assumingMemoryBound(to: CChar.self), bytes.count) != REDIS_OK {
            fail()
        }
    }

    /// - Returns: The next whole reply; nil where more bytes are needed.
    package func next() throws(RESPProtocolError) -> RESPValue? {
        if let failure { throw failure }
        var reply: UnsafeMutableRawPointer?
        // `reply` is a token that only says that the root was built; the value itself is in `builder`.
        if redisReaderGetReply(reader, &reply) != REDIS_OK {
            throw fail()
        }
        if reply != nil, let value = builder.takeReply() {
            unfinishedBytes = reader.pointee.len - reader.pointee.pos
            return value
        }
        if unfinishedBytes > replyBytesMax {
            throw fail("a reply passes \(replyBytesMax) bytes")
        }
        return nil
    }

    /// Remembers the reason and frees what was built.
    @discardableResult
    private func fail(_ message: String? = nil) -> RESPProtocolError {
        let failure = RESPProtocolError(message: message ?? builder.rejection ?? readerMessage)
        self.failure = failure
        builder.reset()
        return failure
    }

    private var readerMessage: String {
        // SAFETY: `errstr` is a NUL-terminated array inside the live reader; the bytes are copied before the call ends.
        withUnsafeBytes(of: &reader.pointee.errstr) { bytes in
            String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
        }
    }
}

/// Builds one reply at a time from hiredis's callbacks.
///
/// hiredis walks a reply depth first and asks for an object per node. We give it the same non-null token each time and
/// keep the values on a stack of open arrays, so no memory of ours is owned by C and an error half-way leaks nothing.
/// (hiredis 0.14's own `createArray` multiplies without an overflow check, CVE-2021-32765; it is not used here.)
private final class RESPValueBuilder {
    private struct OpenArray {
        var elements: [RESPValue]
        var remaining: Int
    }

    /// What an array's announced length may reserve at once; longer ones grow as their elements really come.
    private static let reservedElementsMax = 1_024
    private static let okBytes = Array("OK".utf8)

    /// A struct, so that to put a value where it belongs is one access to the builder.
    private struct Stack {
        var open: [OpenArray] = []
        var finished: RESPValue?

        /// A value that completes an array completes what encloses it, too.
        mutating func deposit(_ value: RESPValue) {
            var value = value
            while let last = open.indices.last {
                open[last].elements.append(value)
                open[last].remaining -= 1
                guard open[last].remaining == 0 else { return }
                value = .array(open.removeLast().elements)
            }
            finished = value
        }
    }

    private var stack = Stack()
    private let elementsMax: Int
    private var elementsAnnounced = 0
    /// Why a callback refused; hiredis would only say "Out of memory".
    private(set) var rejection: String?

    init(elementsMax: Int) {
        self.elementsMax = elementsMax
    }

    func takeReply() -> RESPValue? {
        defer {
            stack.finished = nil
            elementsAnnounced = 0
        }
        return stack.finished
    }

    func reset() {
        stack = Stack()
    }

    func string(_ bytes: UnsafeRawBufferPointer, type: Int32) {
        switch type {
        case REDIS_REPLY_STATUS:
            deposit(.simpleString(bytes.elementsEqual(Self.okBytes) ? Self.okBytes : Array(bytes)))
        case REDIS_REPLY_ERROR:
            deposit(.error(RedisServerError(String(decoding: bytes, as: UTF8.self))))
        default:
            deposit(.bulkString(Array(bytes)))
        }
    }

    func array(count: Int) -> Bool {
        elementsAnnounced += count
        guard elementsAnnounced <= elementsMax else {
            rejection = "a reply has more than \(elementsMax) elements"
            return false
        }
        if count == 0 {
            deposit(.array([]))
        } else {
            var elements: [RESPValue] = []
            elements.reserveCapacity(min(count, Self.reservedElementsMax))
            stack.open.append(OpenArray(elements: elements, remaining: count))
        }
        return true
    }

    func deposit(_ value: RESPValue) { stack.deposit(value) }

    /// The builder of the reader that is calling back, and the token to give it.
    private static func current(
        _ task: UnsafePointer<redisReadTask>?
    ) -> (builder: RESPValueBuilder, token: UnsafeMutableRawPointer)? {
        guard let token = task?.pointee.privdata else { return nil }
        // SAFETY: hiredis copies the reader's `privdata` into every task; RESPParser set it to its builder, which
        // outlives the reader. Callbacks run only inside `redisReaderGetReply`, on the parser's thread.
        return (Unmanaged<RESPValueBuilder>.fromOpaque(token).takeUnretainedValue(), token)
    }

    // SAFETY: written once, before its first use, and never again; hiredis only reads it. Never freed: every reader of
    // the process points here.
    nonisolated(unsafe) static let functions: UnsafeMutablePointer<redisReplyObjectFunctions> = {
        let functions = UnsafeMutablePointer<redisReplyObjectFunctions>.allocate(capacity: 1)
        functions.initialize(
            to: redisReplyObjectFunctions(
                createString: { task, bytes, count in
                    guard let (builder, token) = RESPValueBuilder.current(task), let task else { return nil }
                    // SAFETY: hiredis passes `count` readable bytes of its buffer; they are copied before returning.
                    builder.string(UnsafeRawBufferPointer(start: bytes, count: count), type: task.pointee.type)
                    return token
                },
                createArray: { task, count in
                    guard let (builder, token) = RESPValueBuilder.current(task) else { return nil }
                    return count >= 0 && builder.array(count: Int(count)) ? token : nil
                },
                createInteger: { task, value in
                    guard let (builder, token) = RESPValueBuilder.current(task) else { return nil }
                    builder.deposit(.integer(value))
                    return token
                },
                createNil: { task in
                    guard let (builder, token) = RESPValueBuilder.current(task) else { return nil }
                    builder.deposit(.null)
                    return token
                },
                freeObject: { _ in }
            )
        )
        return functions
    }()
}
