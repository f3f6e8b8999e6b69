/// Bounds on server-sent events.
package enum SSELimits {
    /// Bytes of an event whose end has not come. Whoever buffers enforces it: past it the node's answer is invalid.
    package static let tailBytesMax = 1 << 20
}

/// Finds where events end in a stream of server-sent events, without copying and without looking at a byte twice.
///
/// An event ends with a blank line. A line ends with LF, CR or CR LF; a CR that is the last byte at hand ends its line
/// at once, and an LF that then comes first belongs to it: no event waits for a byte of the next. That LF stands at the
/// head of the following event, where ``SSEEvent`` passes over it. A blank line with nothing before it is an event of
/// its own, without data.
package enum SSEScanner {
    /// How far a stream has been looked at. Offsets count from the first byte of the buffer given.
    package struct Position: Hashable, Sendable {
        /// Bytes already looked at.
        package private(set) var offset = 0
        /// No byte of the current line has been seen.
        fileprivate var isLineEmpty = true
        /// The last byte seen was a CR; an LF now belongs to it.
        fileprivate var isAfterCR = false

        package init() {}

        /// Says that the caller has removed this many bytes from the front of its buffer: not more than ``offset``.
        package mutating func discard(_ bytes: Int) {
            assert(bytes <= offset)
            offset -= bytes
        }

        fileprivate mutating func move(to newOffset: Int) { offset = newOffset }
    }

    /// Looks at the bytes after `position` for the end of an event.
    ///
    /// - Parameter buffer: From where ``Position/offset`` counts to the last byte received.
    /// - Returns: The offset after the event's last byte (its blank line included), where the next event starts; nil
    ///   where the end has not come, and all bytes have been looked at.
    package static func nextEventEnd(in buffer: UnsafeRawBufferPointer, from position: inout Position) -> Int? {
        var at = position.offset
        if position.isAfterCR, at < buffer.count {
            if buffer[at] == UInt8(ascii: "\n") { at += 1 }
            position.isAfterCR = false
        }
        while true {
            let end = lineEnd(in: buffer, from: at)
            if end > at { position.isLineEmpty = false }
            guard end < buffer.count else {
                position.move(to: buffer.count)
                return nil
            }
            at = end + 1
            if buffer[end] == UInt8(ascii: "\r") {
                if at == buffer.count {
                    position.isAfterCR = true
                } else if buffer[at] == UInt8(ascii: "\n") {
                    at += 1
                }
            }
            let isBlank = position.isLineEmpty
            position.isLineEmpty = true
            position.move(to: at)
            if isBlank { return at }
            if at == buffer.count { return nil }
        }
    }

    /// The offset of the first CR or LF at or after `start`, or the buffer's end. Eight bytes at a time: see
    /// `JSONScanner` for the arithmetic.
    static func lineEnd(in buffer: UnsafeRawBufferPointer, from start: Int) -> Int {
        let ones: UInt64 = 0x0101_0101_0101_0101
        var at = start
        while at + 8 <= buffer.count {
            let word = UInt64(littleEndian: buffer.loadUnaligned(fromByteOffset: at, as: UInt64.self))
            let feed = word ^ (ones &* 0x0A)
            let carriage = word ^ (ones &* 0x0D)
            let found = (((feed &- ones) & ~feed) | ((carriage &- ones) & ~carriage)) & (ones &* 0x80)
            if found != 0 { return at + found.trailingZeroBitCount >> 3 }
            at += 8
        }
        while at < buffer.count, buffer[at] != UInt8(ascii: "\n"), buffer[at] != UInt8(ascii: "\r") { at += 1 }
        return at
    }
}

/// What one whole event says.
package enum SSEEvent {
    package enum Payload: Hashable, Sendable {
        /// No data: comments, blank lines, fields that are not data.
        case comment
        /// `[DONE]`.
        case done
        /// One line of data, where it stands in the event.
        case data(Range<Int>)
        /// Several lines of data, joined with LF.
        case joined([UInt8])
    }

    /// - Parameter event: One event as ``SSEScanner/nextEventEnd(in:from:)`` delimits it. A byte order mark at its head is
    ///   passed over.
    package static func payload(in event: UnsafeRawBufferPointer) -> Payload {
        if let line = onlyLine(of: event) { return line }
        var first: Range<Int>?
        var joined: [UInt8]?
        forEachField(in: event) { name, value in
            guard event[name].elementsEqual("data".utf8) else { return }
            guard let line = first else { return first = value }
            if joined == nil { joined = Array(event[line]) }
            joined?.append(UInt8(ascii: "\n"))
            joined?.append(contentsOf: event[value])
        }
        if let joined { return .joined(joined) }
        guard let first else { return .comment }
        // As the official clients do: by its beginning.
        return event[first].starts(with: "[DONE]".utf8) ? .done : .data(first)
    }

    /// What nearly every event of a model server is: one line `data: {...}` and LF LF.
    private static func onlyLine(of event: UnsafeRawBufferPointer) -> Payload? {
        let start = 6
        let end = event.count - 2
        guard end > start, event[start] == UInt8(ascii: "{"),
            event.loadUnaligned(as: UInt32.self) == UInt32(littleEndian: 0x6174_6164),  // "data"
            event[4] == UInt8(ascii: ":"), event[5] == UInt8(ascii: " "),
            SSEScanner.lineEnd(in: event, from: start) == end,
            event[end] == UInt8(ascii: "\n"), event[end + 1] == UInt8(ascii: "\n")
        else { return nil }
        return .data(start..<end)
    }

    /// The value of the last `event` field, which names the kind of event.
    package static func name(in event: UnsafeRawBufferPointer) -> Range<Int>? {
        var found: Range<Int>?
        forEachField(in: event) { name, value in
            if event[name].elementsEqual("event".utf8) { found = value }
        }
        return found
    }

    private static func forEachField(in event: UnsafeRawBufferPointer, _ body: (Range<Int>, Range<Int>) -> Void) {
        var at = event.starts(with: [0xEF, 0xBB, 0xBF]) ? 3 : 0
        while at < event.count {
            let end = SSEScanner.lineEnd(in: event, from: at)
            if end > at {
                let colon = event[at..<end].firstIndex(of: UInt8(ascii: ":")) ?? end
                var start = min(colon + 1, end)
                if start < end, event[start] == UInt8(ascii: " ") { start += 1 }
                // A line that starts with a colon is a comment.
                if colon > at { body(at..<colon, start..<end) }
            }
            at = end + 1
        }
    }
}
