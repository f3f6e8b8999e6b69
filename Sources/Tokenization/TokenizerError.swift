/// Why a tokenizer file was not loaded. Nothing that a file asks for is skipped: what is not done is an error.
package struct TokenizerError: Error, Hashable, Sendable, CustomStringConvertible {
    package enum Reason: Hashable, Sendable {
        /// The file is not what its format says.
        case malformed
        /// The file is well-formed and asks for something that is not implemented.
        case unsupported
        /// One of ``TokenizerLimits`` is exceeded.
        case tooLarge
        /// The format does not say something, and the caller did not either.
        case ambiguous
    }

    package let reason: Reason
    /// The name that the caller gave the file.
    package let file: String
    /// For people: what is wrong and where, in words that fit after "file: ".
    package let message: String

    package init(_ reason: Reason, in file: String, _ message: String) {
        self.reason = reason
        self.file = file
        self.message = message
    }

    package var description: String { "\(file): \(message)" }
}
