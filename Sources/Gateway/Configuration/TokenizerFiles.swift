import Synchronization
import Tokenization

/// A model's vocabulary, as the configuration names it.
package struct ModelTokenizer: Hashable, Sendable {
    package let tokenizer: Tokenizer
    /// Of what was read: the file's path, the pattern, and the content.
    fileprivate let identity: Identity

    fileprivate struct Identity: Hashable {
        var file: String
        var pattern: PretokenizerPattern?
        var bytes: Int
        var contentHash: Int
    }

    package static func == (left: Self, right: Self) -> Bool { left.identity == right.identity }
    package func hash(into hasher: inout Hasher) { hasher.combine(identity) }
}

/// The tokenizer files that models name, each read once for one reading of the configuration. Off the event loops: a
/// large vocabulary takes a second to load.
///
/// A file that a configuration in use has loaded already, and that has not changed, is shared rather than loaded again.
final class TokenizerFiles {
    private struct Name: Hashable {
        var file: String
        var pattern: PretokenizerPattern?
    }

    private final class InUse {
        weak var tokenizer: Tokenizer?
        let identity: ModelTokenizer.Identity

        init(_ loaded: ModelTokenizer) {
            tokenizer = loaded.tokenizer
            identity = loaded.identity
        }
    }

    /// Vocabularies that some configuration holds; entries of those that none does are dropped with the next load.
    private static let inUse = Mutex<[Name: InUse]>([:])

    private var read: [Name: Result<ModelTokenizer, UnitFailure>] = [:]

    /// The files that were read.
    var files: [String] { Set(read.keys.map(\.file)).sorted() }

    /// - Throws: What is wrong with the file, in words that fit after its name.
    func tokenizer(_ file: String, pattern: PretokenizerPattern?) throws(UnitFailure) -> ModelTokenizer {
        let name = Name(file: file, pattern: pattern)
        if let known = read[name] { return try known.get() }
        let result = Result { () throws(UnitFailure) in try Self.load(name) }
        read[name] = result
        return try result.get()
    }

    private static func load(_ name: Name) throws(UnitFailure) -> ModelTokenizer {
        let bytes: [UInt8]
        do throws(ConfigurationLoader.FileFailure) {
            bytes = try ConfigurationLoader.contents(of: name.file, bytesMax: TokenizerLimits.fileBytesMax)
        } catch {
            throw UnitFailure(error.message)
        }
        var hasher = Hasher()
        bytes.withUnsafeBytes { hasher.combine(bytes: $0) }
        let identity = ModelTokenizer.Identity(
            file: name.file, pattern: name.pattern, bytes: bytes.count, contentHash: hasher.finalize())
        if let same = inUse.withLock({ $0[name].flatMap { $0.identity == identity ? $0.tokenizer : nil } }) {
            return ModelTokenizer(tokenizer: same, identity: identity)
        }
        let loaded: ModelTokenizer
        do throws(TokenizerError) {
            let tokenizer = try bytes.withUnsafeBytes { bytes in
                Result { () throws(TokenizerError) in
                    try Tokenizer.load(bytes, named: name.file, pattern: name.pattern)
                }
            }.get()
            loaded = ModelTokenizer(tokenizer: tokenizer, identity: identity)
        } catch {
            throw UnitFailure(error.message)
        }
        inUse.withLock { table in
            table = table.filter { $0.value.tokenizer != nil }
            table[name] = InUse(loaded)
        }
        return loaded
    }
}

extension FleetSections {
    private typealias Units = ConfigurationUnits

    /// `tokenizer: FILE`, or `{ file: FILE, pattern: NAME }` for a file that does not say how text is cut.
    func readTokenizer(_ section: ConfigurationSection) -> ModelTokenizer? {
        var (file, pattern): (String?, PretokenizerPattern?)
        if section.isMapping("tokenizer") {
            let tokenizer = section.section("tokenizer")
            file = tokenizer.required("file", Units.text)
            pattern = tokenizer.value("pattern", Units.word(PretokenizerPattern.self))
            tokenizer.finish()
            if tokenizer.has("pattern"), pattern == nil { return nil }
        } else {
            (file, pattern) = (section.value("tokenizer", Units.text), nil)
        }
        guard let name = file else { return nil }
        do throws(UnitFailure) {
            return try tokenizers.tokenizer(Units.path(name, beside: self.file), pattern: pattern)
        } catch {
            section.problem("tokenizer", "\"\(name)\" \(error.message)")
            return nil
        }
    }
}
