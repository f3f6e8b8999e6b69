import ArgumentParser
import ControlPlane
import Tokenization

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif
#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// Which vocabulary a command works with.
struct TokenizerOptions: ParsableArguments {
    @Option(help: "A tokenizer.json, a tekken.json or a tiktoken file.", completion: .file())
    var tokenizer: String

    @Option(help: ArgumentHelp("How a tiktoken file's text is cut: \(Self.patterns).", valueName: "name"))
    var pattern: String?

    private static var patterns: String { PretokenizerPattern.allCases.map(\.rawValue).joined(separator: ", ") }

    func load() throws -> Tokenizer {
        var known: PretokenizerPattern?
        if let pattern {
            known = PretokenizerPattern(rawValue: pattern)
            guard known != nil else { throw ValidationError("--pattern must be one of \(Self.patterns).") }
        }
        let bytes = try InputFile.contents(of: tokenizer, bytesMax: TokenizerLimits.fileBytesMax)
        do throws(TokenizerError) {
            return try bytes.withUnsafeBytes { bytes in
                Result { () throws(TokenizerError) in try Tokenizer.load(bytes, named: tokenizer, pattern: known) }
            }.get()
        } catch {
            throw CommandFailure("\(error)")
        }
    }
}

/// Files and standard input.
struct InputFile: ~Copyable {
    private let descriptor: Int32
    private let name: String

    /// - Parameter file: nil for standard input.
    init(_ file: String?) throws(CommandFailure) {
        name = file ?? "standard input"
        descriptor = file.map { open($0, O_RDONLY | O_CLOEXEC) } ?? STDIN_FILENO
        guard descriptor >= 0 else { throw Self.failure(name) }
    }

    deinit { if descriptor != STDIN_FILENO { close(descriptor) } }

    private static func failure(_ name: String) -> CommandFailure {
        CommandFailure("\(name) cannot be read: \(String(cString: strerror(errno)))")
    }

    /// Appends what is there to read, as soon as anything is.
    ///
    /// - Returns: False at the end.
    borrowing func read(into bytes: inout [UInt8]) throws(CommandFailure) -> Bool {
        var count = 0
        let chunk = [UInt8](unsafeUninitializedCapacity: 256 << 10) { buffer, filled in
            repeat {
                count = Glibc.read(descriptor, buffer.baseAddress, buffer.count)
            } while count < 0 && errno == EINTR
            filled = max(0, count)
        }
        guard count >= 0 else { throw Self.failure(name) }
        bytes += chunk
        return count > 0
    }

    static func contents(of file: String?, bytesMax: Int = .max) throws(CommandFailure) -> [UInt8] {
        let input = try InputFile(file)
        var bytes: [UInt8] = []
        while try input.read(into: &bytes) {
            guard bytes.count <= bytesMax else {
                throw CommandFailure("\(input.name) is larger than \(bytesMax >> 20) MiB")
            }
        }
        return bytes
    }
}
