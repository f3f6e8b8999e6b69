import Glibc

/// Why the journal did not take a record. New work is refused until the gateway is restarted or room is there again.
package struct JournalFailure: Error, Hashable, Sendable, CustomStringConvertible {
    package enum Operation: String, Hashable, Sendable {
        case write, sync, allocate
        /// No space is left that is not set aside for the charges of running requests.
        case reserve
        /// A name in the record is longer than an identifier can be.
        case encode
        case closed
    }

    package var operation: Operation
    /// errno; 0 where the system was not asked.
    package var code: Int32

    package init(_ operation: Operation, code: Int32 = 0) {
        self.operation = operation
        self.code = code
    }

    package var description: String {
        "journal \(operation.rawValue) failed" + (code == 0 ? "" : ": \(String(cString: strerror(code)))")
    }
}

/// Why the journal cannot be opened. The gateway does not start without it.
package enum JournalStartFailure: Error, Hashable, Sendable, CustomStringConvertible {
    /// Another process has the directory.
    case locked(directory: String)
    /// A record that cannot be read, and that is not the torn end of the last segment.
    case corrupt(file: String, offset: Int, reason: String)
    case system(path: String, operation: String, code: Int32)

    package var description: String {
        switch self {
        case .locked(let directory):
            "journal \(directory) is in use by another process: give each gateway a directory of its own"
        case .corrupt(let file, let offset, let reason):
            "journal is damaged: \(file) at offset \(offset): \(reason); restore the file from a copy, or move the "
                + "directory away to start with a new journal: charges that only this one has are lost then, and what "
                + "it borrowed from balances stays set aside"
        case .system(let path, let operation, let code):
            "journal: cannot \(operation) \(path): \(String(cString: strerror(code)))"
        }
    }
}
