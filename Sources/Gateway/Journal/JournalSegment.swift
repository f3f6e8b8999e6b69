import Billing
import Domain
import Glibc

/// What is remembered of one segment.
struct JournalSegment: Sendable {
    var number: Int64
    /// Bytes of records.
    var length: Int
    /// Over every record's checksum and length, in order; the next segment's header repeats it. It finds segments that
    /// were lost, swapped, cut or restored from elsewhere; it is no signature.
    var chain: UInt64
    var created: WallTime
    /// The last sequence that this segment tells of each org.
    var lastSequences: [OrgID: Int64] = [:]

    static func fileName(_ number: Int64) -> String {
        let digits = String(number)
        return String(repeating: "0", count: max(0, 10 - digits.count)) + digits + ".journal"
    }

    /// The chain after a record with this frame (its length and checksum).
    static func chained(_ chain: UInt64, frame: UInt64) -> UInt64 {
        let product = (chain ^ frame).multipliedFullWidth(by: 0x9E37_79B9_7F4A_7C15)
        return product.high ^ product.low &+ frame
    }
}

/// Walks the records of one segment's bytes.
struct JournalScanner {
    enum End: Hashable {
        /// Everything from here on is zero, or the bytes end here.
        case clean
        case broken(reason: String)
    }

    let bytes: UnsafeRawBufferPointer
    private(set) var offset = 0
    private(set) var chain: UInt64 = 0

    init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

    /// The body of the record at `offset` and where the next one starts; nil where there is no whole, sound record.
    private func record(at offset: Int) -> (body: UnsafeRawBufferPointer, frame: UInt64, next: Int)? {
        guard bytes.count - offset > JournalRecord.frameBytes else { return nil }
        let frame = UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
        let length = Int(UInt32(truncatingIfNeeded: frame))
        let start = offset + JournalRecord.frameBytes
        guard length > 0, length <= JournalRecord.bytesMax - JournalRecord.frameBytes, bytes.count - start >= length
        else { return nil }
        let body = UnsafeRawBufferPointer(rebasing: bytes[start..<start + length])
        guard JournalChecksum.checksum(body, seed: UInt32(length)) == UInt32(truncatingIfNeeded: frame >> 32) else {
            return nil
        }
        return (body, frame, start + length)
    }

    /// - Returns: The next record's body; nil at the end, of which ``end()`` tells the kind.
    mutating func next(limit: Int) -> UnsafeRawBufferPointer? {
        guard offset < limit, let found = record(at: offset), found.next <= limit else { return nil }
        offset = found.next
        chain = JournalSegment.chained(chain, frame: found.frame)
        return found.body
    }

    /// What stands at `offset`, where ``next(limit:)`` found no record.
    func end() -> End {
        guard let last = lastWritten() else { return .clean }
        return .broken(
            reason: record(at: offset) == nil
                ? "no whole record with a right checksum, but data up to offset \(last)" : "a record of an unknown kind"
        )
    }

    /// Bytes that are taken to have been written since the last mark, at most: seconds of a stalled disk. More that
    /// cannot be read is damage.
    static let unmarkedMax = 4 << 20

    /// Whether what stands at `offset` can be what the power's failure left of records that were never synced.
    ///
    /// An interrupted `fdatasync` may have brought a later page to the disk and not an earlier one, so sound records may
    /// follow the tear: they are cut with it. A mark after the tear that puts the durable position beyond it proves the
    /// opposite: what cannot be read had been on the disk, and is damaged. The mark of the last sync may itself be lost,
    /// so up to two rounds of the journal's thread are not told apart from a tear.
    /// - Parameter durable: What the last mark before `offset` says.
    func isTornTail(durable: Int) -> Bool {
        guard let last = lastWritten(), last - durable < Self.unmarkedMax else { return false }
        var place = offset + 1
        while place <= last {
            guard let found = record(at: place) else {
                place += 1
                continue
            }
            if case .mark(let durable)? = JournalRecord(body: found.body), durable > offset { return false }
            place = found.next
        }
        return true
    }

    /// From `offset` to the last byte that is not zero.
    var unreadBytes: Int { lastWritten().map { $0 - offset + 1 } ?? 0 }

    private func lastWritten() -> Int? {
        guard offset < bytes.count else { return nil }
        // Mostly zeros that a preallocated file has to its end: eight at a time.
        var index = bytes.count
        while index - offset >= 8, bytes.loadUnaligned(fromByteOffset: index - 8, as: UInt64.self) == 0 { index -= 8 }
        while index > offset, bytes[index - 1] == 0 { index -= 1 }
        return index > offset ? index - 1 : nil
    }
}

/// What the segments of a directory say, all read and checked.
struct JournalScan {
    private(set) var segments: [JournalSegment] = []
    /// Streams that were open when the gateway ended, in the order in which they opened.
    private(set) var interrupted: [(open: JournalOpen, completionTokens: Int)] = []
    private(set) var incarnation: Int64 = 0
    /// The last sequence of every org.
    private(set) var lastSequences: [OrgID: Int64] = [:]
    /// Where the last segment has to be cut, and how many bytes of a torn record go.
    private(set) var cut: (path: String, length: Int, bytes: Int)?
    /// Segments that were made ahead of need and never used.
    private(set) var unused: [String] = []

    private var opens: [RequestID: (open: JournalOpen, completionTokens: Int)] = [:]
    private var openOrder: [RequestID] = []

    /// - Parameter numbers: Of the segments in the directory, ascending.
    init(directory: String, journal: JournalID, numbers: [Int64]) throws(JournalStartFailure) {
        var numbers = numbers
        func path(_ number: Int64) -> String { directory + "/" + JournalSegment.fileName(number) }
        var headers: [JournalHeader] = []
        for number in numbers {
            let file = try MappedFile(path(number))
            var scanner = JournalScanner(file.bytes)
            if let body = scanner.next(limit: file.bytes.count), case .header(let header)? = JournalRecord(body: body) {
                guard header.number == number, header.journal == journal else {
                    throw .corrupt(file: path(number), offset: 0, reason: "it belongs to another journal or place")
                }
                headers.append(header)
            } else if scanner.end() == .clean || scanner.isTornTail(durable: 0), number == numbers.last {
                unused.append(path(number))
            } else {
                throw .corrupt(file: path(number), offset: 0, reason: "no segment header")
            }
        }
        numbers.removeLast(unused.count)
        for (index, number) in numbers.enumerated() {
            let next = index + 1 < headers.count ? headers[index + 1] : nil
            if let next, next.number != number + 1 {
                throw .corrupt(file: path(number + 1), offset: 0, reason: "the segment is missing")
            }
            try read(path(number), headers[index], next)
        }
        interrupted = openOrder.compactMap { opens[$0] }
        opens = [:]
        openOrder = []
    }

    private mutating func read(
        _ path: String, _ header: JournalHeader, _ next: JournalHeader?
    ) throws(JournalStartFailure) {
        let file = try MappedFile(path)
        var scanner = JournalScanner(file.bytes)
        var segment = JournalSegment(number: header.number, length: 0, chain: 0, created: header.created)
        let limit = next.map { min(Int($0.previousLength), file.bytes.count) } ?? file.bytes.count
        var durable = 0
        while true {
            let start = scanner.offset
            guard let body = scanner.next(limit: limit) else { break }
            guard let record = JournalRecord(body: body) else {
                throw .corrupt(file: path, offset: start, reason: "a record of an unknown kind")
            }
            if case .mark(let marked) = record { durable = marked }
            take(record, &segment)
        }
        if let next {
            guard scanner.offset == Int(next.previousLength) else {
                throw .corrupt(
                    file: path, offset: scanner.offset,
                    reason: "no whole record, but \(next.previousLength) bytes were written"
                )
            }
            guard scanner.chain == next.previousChain else {
                throw .corrupt(
                    file: path, offset: scanner.offset, reason: "its records are not those that were written")
            }
        } else if case .broken(let reason) = scanner.end() {
            guard scanner.isTornTail(durable: durable) else {
                throw .corrupt(file: path, offset: scanner.offset, reason: reason)
            }
            cut = (path, scanner.offset, scanner.unreadBytes)
        } else {
            cut = (path, scanner.offset, 0)
        }
        segment.length = scanner.offset
        segment.chain = scanner.chain
        segments.append(segment)
    }

    private mutating func take(_ record: JournalRecord, _ segment: inout JournalSegment) {
        switch record {
        case .header(let header): incarnation = max(incarnation, header.incarnation)
        case .open(let open):
            opens[open.requestID] = (open, 0)
            openOrder.append(open.requestID)
            compactOrder()
        case .progress(let id, let tokens):
            if let count = opens[id]?.completionTokens { opens[id]?.completionTokens = max(count, tokens) }
        case .charge(let org, let charge):
            opens[charge.requestID] = nil
            note(org, charge.sequence, &segment)
        case .released(let id): opens[id] = nil
        case .position(let org, let sequence): note(org, sequence, &segment)
        case .mark: break
        }
    }

    private mutating func note(_ org: OrgID, _ sequence: Int64, _ segment: inout JournalSegment) {
        segment.lastSequences[org] = max(sequence, segment.lastSequences[org] ?? 0)
        lastSequences[org] = max(sequence, lastSequences[org] ?? 0)
    }

    /// Closed streams leave their place in the order; it is swept when most of it is gone.
    private mutating func compactOrder() {
        guard openOrder.count > 1_024, openOrder.count > 2 * opens.count else { return }
        openOrder.removeAll { opens[$0] == nil }
    }
}
