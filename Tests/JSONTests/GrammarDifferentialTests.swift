import Foundation
import JSON
import Testing

/// Foundation's parser as a second opinion on the grammar.
struct GrammarDifferentialTests {
    private static func weAccept(_ bytes: [UInt8]) -> Bool {
        failure(bytes) == nil
    }

    private static func foundationAccepts(_ bytes: [UInt8]) -> Bool {
        (try? JSONSerialization.jsonObject(with: Data(bytes), options: .fragmentsAllowed)) != nil
    }

    /// Where the two differ, and are meant to:
    ///
    /// 1. Foundation guesses UTF-16 and UTF-32 from zero bytes and marks at the start; we take UTF-8 only.
    /// 2. Foundation takes a comma after the last element; the RFC and we do not.
    /// 3. Foundation refuses numbers that a double cannot hold; the grammar has no such bound, and ``JSONValue``, which
    ///    computes them, refuses them too.
    private static func isDifferenceByIntent(_ bytes: [UInt8]) -> Bool {
        if bytes.prefix(4).contains(0) || bytes.starts(with: [0xEF, 0xBB, 0xBF]) || bytes.starts(with: [0xFF, 0xFE])
            || bytes.starts(with: [0xFE, 0xFF])
        {
            return true
        }
        switch failure(bytes) {
        case let error? where error.offset < bytes.count && "]}".utf8.contains(bytes[error.offset]):
            return bytes[..<error.offset].last { $0 > 0x20 } == UInt8(ascii: ",")
        case nil:
            return (try? JSONValue(parsing: bytes)) == nil
        default:
            return false
        }
    }

    private static func failure(_ bytes: [UInt8]) -> JSONError? {
        bytes.withUnsafeBytes { text in
            do throws(JSONError) {
                try validateJSON(text)
                return nil
            } catch {
                return error
            }
        }
    }

    @Test(arguments: [1, 2, 3, 4] as [UInt64])
    func acceptsEveryValidDocument(seed: UInt64) {
        var random = RandomJSON(seed: seed)
        for _ in 0..<1_500 {
            let text = random.document()
            #expect(Self.weAccept(Array(text.utf8)), "seed \(seed): \(text)")
            #expect(Self.foundationAccepts(Array(text.utf8)), "seed \(seed): the generator is wrong: \(text)")
        }
    }

    @Test(arguments: [11, 12, 13, 14, 15, 16] as [UInt64])
    func agreesWithFoundationOnMutatedDocuments(seed: UInt64) {
        var random = RandomJSON(seed: seed)
        var rejected = 0
        for _ in 0..<3_000 {
            let bytes = random.mutated(random.document(depth: 3))
            guard !Self.isDifferenceByIntent(bytes) else { continue }
            let ours = Self.weAccept(bytes)
            let theirs = Self.foundationAccepts(bytes)
            if !ours { rejected += 1 }
            #expect(
                ours == theirs,
                "seed \(seed): ours \(ours), theirs \(theirs): \(String(decoding: bytes, as: UTF8.self)) \(bytes)")
        }
        // Else the mutations harm nothing, and the agreement means nothing.
        #expect(rejected > 1_000)
    }

    @Test func everyShortTextIsJudgedAlike() {
        let alphabet = Array("{}[]\":,10-.eE+ \\nut".utf8)
        var texts: [[UInt8]] = [[]]
        for _ in 0..<3 {
            texts = texts.flatMap { text in alphabet.map { text + [$0] } }
            for text in texts {
                #expect(
                    Self.weAccept(text) == Self.foundationAccepts(text), "\(String(decoding: text, as: UTF8.self))")
            }
        }
    }

    @Test func decodesWhatFoundationDecodes() throws {
        var random = RandomJSON(seed: 77)
        for _ in 0..<1_000 {
            let text = random.document()
            let ours = try JSONValue(parsing: text)
            let theirs = try JSONSerialization.jsonObject(with: Data(text.utf8), options: .fragmentsAllowed)
            #expect(Self.isEqual(ours, theirs), "\(text)")
            // What we write reads back as the same.
            #expect(try JSONValue(parsing: ours.bytes) == ours)
        }
    }

    private static func isEqual(_ ours: JSONValue, _ theirs: Any) -> Bool {
        switch ours {
        case .null: return theirs is NSNull
        case .bool(let value): return theirs as? Bool == value
        case .integer(let value): return (theirs as? NSNumber)?.int64Value == value
        case .number(let value):
            // Foundation rounds the last digit of long numbers wrongly.
            return (theirs as? NSNumber).map { abs($0.doubleValue - value) <= abs(value) * 1e-15 } ?? false
        case .string(let value): return theirs as? String == value
        case .array(let elements):
            guard let others = theirs as? [Any], others.count == elements.count else { return false }
            return zip(elements, others).allSatisfy { isEqual($0, $1) }
        case .object(let members):
            guard let others = theirs as? [String: Any], others.count == members.count else { return false }
            return members.allSatisfy { member in others[member.key].map { isEqual(member.value, $0) } ?? false }
        }
    }
}
