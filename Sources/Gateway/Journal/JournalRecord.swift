import Billing
import Domain

/// One line of the journal.
///
/// On disk: length (4 bytes, of what follows the checksum), CRC-32C of it seeded with the length, a type byte, fields.
/// Integers are little-endian of fixed width, names one byte of length and their bytes. A length of zero is where a
/// preallocated segment has not been written yet.
enum JournalRecord: Hashable, Sendable {
    case header(JournalHeader)
    case open(JournalOpen)
    /// Completion tokens that a stream has delivered in all.
    case progress(RequestID, completionTokens: Int)
    case charge(OrgID, Charge)
    /// An open stream that ended without a charge.
    case released(RequestID)
    /// The org's last sequence, repeated before the segments that tell it are deleted.
    case position(OrgID, lastSequence: Int64)
    /// Everything in this segment before this offset was on the disk, and all segments before it, when this was
    /// written.
    case mark(durable: Int)

    static let frameBytes = 8
    /// No record is longer, frame included: the longest holds three names of 64 bytes.
    static let bytesMax = 512
    /// What a mark takes.
    static let markBytes = frameBytes + 1 + 8

    enum Kind: UInt8 {
        case header = 1
        case open, progress, charge, released, position, mark
    }
}

/// The first record of each segment.
struct JournalHeader: Hashable, Sendable {
    static let version: UInt32 = 0x314A_4754  // "TGJ1"

    var journal: JournalID
    var incarnation: Int64
    /// The segment's own number.
    var number: Int64
    /// Bytes of the segment before it, and the chain over its records; 0 where this is the first.
    var previousLength: Int64
    var previousChain: UInt64
    var created: WallTime
}

/// A stream whose first byte goes down: enough to charge it if nothing more is heard of it.
struct JournalOpen: Hashable, Sendable {
    var requestID: RequestID
    var org: OrgID
    var key: KeyID
    var model: ModelID
    var price: Price
    var promptTokens: Int
    var hold: NanoUSD
    var booking: RateBooking
}

extension JournalRecord {
    /// Writes the record with its frame at the start of `buffer`, which has room for ``bytesMax``.
    ///
    /// - Returns: Its bytes; nil where a name is too long.
    func encode(into buffer: UnsafeMutableRawBufferPointer) -> Int? {
        var writer = RecordWriter(buffer: buffer, offset: Self.frameBytes)
        switch self {
        case .header(let header):
            writer.put(Kind.header.rawValue)
            writer.put(JournalHeader.version)
            writer.put(header.journal.rawValue)
            writer.put(header.incarnation)
            writer.put(header.number)
            writer.put(header.previousLength)
            writer.put(header.previousChain)
            writer.put(header.created.milliseconds)
        case .open(let open):
            writer.put(Kind.open.rawValue)
            writer.put(open.requestID)
            writer.put(open.org.rawValue)
            writer.put(open.key.rawValue)
            writer.put(open.model.rawValue)
            writer.put(open.price.version)
            writer.put(open.price.input)
            writer.put(open.price.cachedInput)
            writer.put(open.price.output)
            writer.put(Int64(open.promptTokens))
            writer.put(open.hold.nanodollars)
            writer.put(open.booking)
        case .progress(let id, let tokens):
            writer.put(Kind.progress.rawValue)
            writer.put(id)
            writer.put(Int64(tokens))
        case .charge(let org, let charge):
            writer.put(Kind.charge.rawValue)
            writer.put(org.rawValue)
            writer.put(charge)
        case .released(let id):
            writer.put(Kind.released.rawValue)
            writer.put(id)
        case .position(let org, let sequence):
            writer.put(Kind.position.rawValue)
            writer.put(org.rawValue)
            writer.put(sequence)
        case .mark(let durable):
            writer.put(Kind.mark.rawValue)
            writer.put(Int64(durable))
        }
        guard !writer.isOverflown else { return nil }
        let body = UnsafeRawBufferPointer(rebasing: buffer[Self.frameBytes..<writer.offset])
        let length = UInt32(body.count)
        let total = writer.offset
        writer.offset = 0
        writer.put(length)
        writer.put(JournalChecksum.checksum(body, seed: length))
        return total
    }

    /// - Parameter body: What follows the checksum, which has been checked.
    init?(body: UnsafeRawBufferPointer) {
        var reader = RecordReader(bytes: body)
        switch Kind(rawValue: reader.get(UInt8.self)) {
        case .header:
            guard reader.get(UInt32.self) == JournalHeader.version else { return nil }
            self = .header(
                JournalHeader(
                    journal: JournalID(reader.text()), incarnation: reader.get(Int64.self),
                    number: reader.get(Int64.self), previousLength: reader.get(Int64.self),
                    previousChain: reader.get(UInt64.self), created: WallTime(milliseconds: reader.get(Int64.self))))
        case .open:
            self = .open(
                JournalOpen(
                    requestID: reader.requestID(), org: OrgID(unchecked: reader.text()),
                    key: KeyID(unchecked: reader.text()), model: ModelID(unchecked: reader.text()),
                    price: Price(
                        version: reader.get(Int64.self), input: reader.get(Int64.self),
                        cachedInput: reader.get(Int64.self), output: reader.get(Int64.self)),
                    promptTokens: reader.integer(), hold: reader.money(), booking: reader.booking()))
        case .progress: self = .progress(reader.requestID(), completionTokens: reader.integer())
        case .charge: self = .charge(OrgID(unchecked: reader.text()), reader.charge())
        case .released: self = .released(reader.requestID())
        case .position: self = .position(OrgID(unchecked: reader.text()), lastSequence: reader.get(Int64.self))
        case .mark: self = .mark(durable: reader.integer())
        case nil: return nil
        }
        guard reader.isComplete else { return nil }
    }

    /// Whether a body is a charge of `org`, without decoding it.
    static func isCharge(_ body: UnsafeRawBufferPointer, of org: OrgID) -> Bool {
        let name = org.rawValue.utf8
        guard body.count > 2 + name.count, body[0] == Kind.charge.rawValue, Int(body[1]) == name.count else {
            return false
        }
        return name.elementsEqual(body[2..<2 + name.count])
    }
}

/// Fields one after another into a buffer that is known to be large enough for every record with well-formed names.
private struct RecordWriter {
    let buffer: UnsafeMutableRawBufferPointer
    var offset: Int
    var isOverflown = false

    mutating func put<Value: FixedWidthInteger>(_ value: Value) {
        // Not reached with names of at most 64 bytes; guards the buffer all the same.
        guard buffer.count - offset >= MemoryLayout<Value>.size else {
            isOverflown = true
            return
        }
        buffer.storeBytes(of: value.littleEndian, toByteOffset: offset, as: Value.self)
        offset += MemoryLayout<Value>.size
    }

    mutating func put(_ text: String) {
        let utf8 = text.utf8
        guard utf8.count <= OrgID.bytesMax, buffer.count - offset > utf8.count else {
            isOverflown = true
            return
        }
        put(UInt8(utf8.count))
        let start = offset
        let isCopied: Void? = utf8.withContiguousStorageIfAvailable { bytes in
            buffer[start..<start + bytes.count].copyBytes(from: bytes)
        }
        if isCopied == nil { buffer[start..<start + utf8.count].copyBytes(from: Array(utf8)) }
        offset += utf8.count
    }

    mutating func put(_ id: RequestID) {
        put(id.high)
        put(id.low)
    }

    mutating func put(_ booking: RateBooking) {
        put(booking.second)
        put(Int64(booking.tokens))
    }

    mutating func put(_ charge: Charge) {
        put(charge.sequence)
        put(charge.requestID)
        put(charge.key.rawValue)
        put(charge.model.rawValue)
        put(charge.priceVersion)
        put(Int64(charge.usage.promptTokens))
        put(Int64(charge.usage.cachedTokens))
        put(Int64(charge.usage.completionTokens))
        put(charge.amount.nanodollars)
        put(UInt8(charge.isEstimated ? 1 : 0))
        put(charge.at.milliseconds)
        put(charge.booking)
        put(Int64(charge.unusedTokens))
    }
}

/// The reverse. Reading past the end gives zeros and makes the record incomplete.
private struct RecordReader {
    let bytes: UnsafeRawBufferPointer
    var offset = 0
    var isShort = false

    var isComplete: Bool { !isShort && offset == bytes.count }

    mutating func get<Value: FixedWidthInteger>(_: Value.Type) -> Value {
        guard bytes.count - offset >= MemoryLayout<Value>.size else {
            isShort = true
            return 0
        }
        defer { offset += MemoryLayout<Value>.size }
        return Value(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: Value.self))
    }

    mutating func integer() -> Int { Int(get(Int64.self)) }
    mutating func money() -> NanoUSD { NanoUSD(unchecked: get(Int64.self)) }

    mutating func text() -> String {
        let count = Int(get(UInt8.self))
        guard bytes.count - offset >= count else {
            isShort = true
            return ""
        }
        defer { offset += count }
        return String(decoding: bytes[offset..<offset + count], as: UTF8.self)
    }

    mutating func requestID() -> RequestID {
        let high = get(UInt64.self)
        return RequestID(high: high, low: get(UInt64.self))
    }

    mutating func booking() -> RateBooking {
        let second = get(Int64.self)
        return RateBooking(second: second, tokens: integer())
    }

    mutating func charge() -> Charge {
        Charge(
            sequence: get(Int64.self), requestID: requestID(), key: KeyID(unchecked: text()),
            model: ModelID(unchecked: text()), priceVersion: get(Int64.self),
            usage: TokenUsage(promptTokens: integer(), cachedTokens: integer(), completionTokens: integer()),
            amount: money(), isEstimated: get(UInt8.self) == 1, at: WallTime(milliseconds: get(Int64.self)),
            booking: booking(), unusedTokens: integer())
    }
}
