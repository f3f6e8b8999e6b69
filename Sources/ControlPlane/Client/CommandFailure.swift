/// Why a command ended without doing what it was asked: printed as one line, exit 1.
package struct CommandFailure: Error, Hashable, Sendable, CustomStringConvertible {
    /// What, and what to do. One line, no secrets; several problems are separated by semicolons.
    package var description: String

    package init(_ description: String) {
        self.description = description.split(whereSeparator: \.isNewline).joined(separator: "; ")
    }
}
