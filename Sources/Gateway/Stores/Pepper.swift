/// The server-side secrets that key hashes are made with, from `TOLLGATE_PEPPER`: `ID:SECRET[,ID:SECRET]`.
///
/// The first is current: new hashes use it. The others are accepted, so that a pepper can be changed without a moment in
/// which keys fail. Never printed.
package struct Peppers: Sendable, CustomStringConvertible, CustomReflectable {
    package static let secretBytesMin = 16
    package static let countMax = 8

    struct Pepper: Sendable {
        let id: String
        let secret: [UInt8]
    }

    /// Never empty.
    let all: [Pepper]

    /// - Throws: What is wrong with the text, in words that do not repeat any of a secret.
    package init(_ text: String) throws(PepperFailure) {
        var all: [Pepper] = []
        for (index, part) in text.split(separator: ",", omittingEmptySubsequences: false).enumerated() {
            guard let colon = part.firstIndex(of: ":") else { throw .missingColon(position: index + 1) }
            let id = part[..<colon]
            guard (1...32).contains(id.utf8.count), id.utf8.allSatisfy(Self.isWordByte) else {
                throw .badID(position: index + 1)
            }
            let secret = Array(part[part.index(after: colon)...].utf8)
            guard secret.count >= Self.secretBytesMin else {
                throw .shortSecret(id: String(id), bytes: secret.count)
            }
            guard !all.contains(where: { $0.id == id }) else { throw .repeatedID(String(id)) }
            all.append(Pepper(id: String(id), secret: secret))
        }
        guard all.count <= Self.countMax else { throw .tooMany(all.count) }
        self.all = all
    }

    var current: Pepper { all[0] }

    package var description: String { "peppers \(all.map(\.id).joined(separator: ", "))" }
    package var customMirror: Mirror { Mirror(self, children: ["ids": all.map(\.id)]) }

    private static func isWordByte(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"):
            true
        default: false
        }
    }
}

/// Why `TOLLGATE_PEPPER` cannot be used.
package enum PepperFailure: Error, Hashable, Sendable, CustomStringConvertible {
    case missingColon(position: Int)
    case badID(position: Int)
    case shortSecret(id: String, bytes: Int)
    case repeatedID(String)
    case tooMany(Int)

    package var description: String {
        switch self {
        case .missingColon(let position):
            "TOLLGATE_PEPPER: part \(position) has no colon; write ID:SECRET[,ID:SECRET], the current one first"
        case .badID(let position):
            "TOLLGATE_PEPPER: the id of part \(position) must be 1 to 32 letters, digits, '-' or '_'"
        case .shortSecret(let id, let bytes):
            "TOLLGATE_PEPPER: the secret of '\(id)' has \(bytes) bytes; use at least \(Peppers.secretBytesMin)"
        case .repeatedID(let id):
            "TOLLGATE_PEPPER: the id '\(id)' occurs twice"
        case .tooMany(let count):
            "TOLLGATE_PEPPER: \(count) peppers; at most \(Peppers.countMax) are kept"
        }
    }
}
