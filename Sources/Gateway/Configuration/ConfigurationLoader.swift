import NIOCore
import Redis
import Yams

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// Reads the configuration file: YAML with `${VARIABLES}`, checked once and completely.
///
/// One reading reports every problem that it finds, so that an operator mends a file in one go. Scalars are read as
/// their text, never through YAML's own numbers: a price is exact, `1e3` is no number, and `on` is no boolean.
package enum ConfigurationLoader {
    package static let fileBytesMax = 4 << 20
    package static let redisURLVariable = "TOLLGATE_REDIS_URL"

    /// - Parameter environment: What `${NAME}` stands for; ``redisURLVariable`` overrides `redis.url`.
    /// - Throws: ``ConfigurationFailure`` with every problem.
    package static func load(
        file: String, environment: [String: String]
    ) throws(ConfigurationFailure) -> GatewayConfiguration {
        let bytes: [UInt8]
        do throws(FileFailure) {
            bytes = try contents(of: file)
        } catch {
            throw whole(file, error.message)
        }
        guard let yaml = String(validating: bytes, as: UTF8.self) else {
            throw whole(file, "is not UTF-8: save it as UTF-8")
        }
        return try parse(yaml: yaml, fileName: file, environment: environment)
    }

    /// - Parameter fileName: What problems call the text.
    /// - Throws: ``ConfigurationFailure`` with every problem.
    package static func parse(
        yaml: String, fileName: String, environment: [String: String]
    ) throws(ConfigurationFailure) -> GatewayConfiguration {
        let root: Node?
        do {
            root = try Yams.compose(yaml: yaml)
        } catch {
            throw ConfigurationFailure(problems: [syntaxProblem(error, file: fileName)])
        }
        let findings = ConfigurationFindings(file: fileName, environment: environment)
        let section = ConfigurationSection(root, path: "", line: 1, findings: findings)
        let configuration = ConfigurationSections(root: section, findings: findings).read()
        guard findings.problems.isEmpty, var configuration else {
            throw ConfigurationFailure(
                // Stable, so that problems of one line stay in the order in which they were found.
                problems: findings.problems.enumerated().sorted {
                    ($0.element.line ?? 0, $0.offset) < ($1.element.line ?? 0, $1.offset)
                }.map(\.element))
        }
        configuration.warnings = findings.warnings.map(\.description)
        return configuration
    }

    // MARK: Inside

    struct FileFailure: Error {
        let message: String
    }

    private static func whole(_ file: String, _ message: String) -> ConfigurationFailure {
        ConfigurationFailure(problems: [ConfigurationProblem(file: file, line: nil, key: "", message: message)])
    }

    /// A whole file; its name is the caller's to say.
    static func contents(of file: String, bytesMax: Int = fileBytesMax) throws(FileFailure) -> [UInt8] {
        func failure() -> FileFailure { FileFailure(message: "cannot be read: \(String(cString: strerror(errno)))") }
        let descriptor = open(file, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw failure() }
        defer { close(descriptor) }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 64 << 10)
        while true {
            let count = read(descriptor, &chunk, chunk.count)
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw failure() }
            guard count > 0 else { return bytes }
            bytes += chunk[..<count]
            guard bytes.count <= bytesMax else {
                throw FileFailure(message: "is larger than \(bytesMax >> 20) MiB")
            }
        }
    }

    /// Only the parser's words and place: its own description quotes the line, which may hold a secret.
    private static func syntaxProblem(_ error: any Error, file: String) -> ConfigurationProblem {
        var line: Int?
        var message = "is not YAML"
        switch error as? YamlError {
        case .scanner(_, let problem, let mark, _), .parser(_, let problem, let mark, _),
            .composer(_, let problem, let mark, _):
            line = mark.line
            message = "is not YAML: \(problem)"
        case .reader(let problem, _, _, _):
            message = "is not YAML: \(problem)"
        case .duplicatedKeysInMapping(let duplicates, let context):
            line = context.mark.line
            message = "the mapping that begins here has keys twice: \(duplicates.sorted().joined(separator: ", "))"
        default:
            break
        }
        return ConfigurationProblem(file: file, line: line, key: "", message: message)
    }
}
