/// The control plane's bearer token. Prints as `<redacted>`.
package struct AdminToken: Sendable, CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
    /// Longest token that is taken, in bytes.
    package static let bytesMax = 512

    private let padded: [UInt8]
    private let count: Int

    /// - Returns: nil for an empty token and for one of more than ``bytesMax`` bytes.
    package init?(_ text: some StringProtocol) {
        let bytes = Array(text.utf8)
        guard !bytes.isEmpty, bytes.count <= Self.bytesMax else { return nil }
        count = bytes.count
        padded = bytes + [UInt8](repeating: 0, count: Self.bytesMax - bytes.count)
    }

    /// Compares all ``bytesMax`` bytes whatever they are, so that the time says nothing of where two tokens differ or
    /// how long the right one is.
    package func matches(_ presented: AdminToken) -> Bool {
        var difference = UInt(bitPattern: count ^ presented.count)
        for index in 0..<Self.bytesMax {
            difference |= UInt(padded[index] ^ presented.padded[index])
        }
        return difference == 0
    }

    package var description: String { "<redacted>" }
    package var debugDescription: String { description }
    package var customMirror: Mirror { Mirror(self, children: []) }
}
