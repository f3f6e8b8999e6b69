import Yams

/// What one reading of a file collects: its problems, all of them, and its warnings.
final class ConfigurationFindings {
    let file: String
    let environment: [String: String]
    private(set) var problems: [ConfigurationProblem] = []
    private(set) var warnings: [ConfigurationProblem] = []

    init(file: String, environment: [String: String]) {
        self.file = file
        self.environment = environment
    }

    func problem(line: Int?, key: String, _ message: String) {
        problems.append(ConfigurationProblem(file: file, line: line, key: key, message: message))
    }

    func problem(variable: String, _ message: String) {
        problems.append(ConfigurationProblem(file: "environment", line: nil, key: variable, message: message))
    }

    func warning(line: Int?, key: String, _ message: String) {
        warnings.append(ConfigurationProblem(file: file, line: line, key: key, message: message))
    }

    /// Puts the values of variables in the place of `${NAME}`. What a variable holds is not read again.
    ///
    /// - Returns: nil where a variable is not set or the braces are not closed, which is then a problem.
    func interpolated(_ text: String, line: Int?, key: String) -> String? {
        guard text.contains("${") else { return text }
        var result = ""
        var rest = text[...]
        while let start = rest.firstRange(of: "${") {
            result += rest[..<start.lowerBound]
            rest = rest[start.upperBound...]
            guard let end = rest.firstIndex(of: "}") else {
                problem(line: line, key: key, "a ${ is not closed: write ${NAME}")
                return nil
            }
            let name = rest[..<end]
            guard Self.isVariableName(name) else {
                problem(line: line, key: key, "\"${\(name)}\" does not name a variable: letters, digits and _ only")
                return nil
            }
            guard let value = environment[String(name)] else {
                problem(line: line, key: key, "the environment variable \(name) is not set: set it, or write the value")
                return nil
            }
            result += value
            rest = rest[rest.index(after: end)...]
        }
        return result + rest
    }

    private static func isVariableName(_ name: Substring) -> Bool {
        guard let first = name.first, !first.isNumber else { return false }
        return name.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "_") }
    }
}

/// One mapping of the file as it is read: each key that is asked for becomes a known one, and ``finish()`` finds the
/// rest.
final class ConfigurationSection {
    private struct Entry {
        let key: String
        let line: Int?
        let node: Node
    }

    let path: String
    let line: Int?
    private let findings: ConfigurationFindings
    private var entries: [Entry] = []
    private var known: [String] = []
    private var notBuilt: Set<String> = []

    init(_ node: Node?, path: String, line: Int?, findings: ConfigurationFindings) {
        self.path = path
        self.line = line
        self.findings = findings
        guard let node, !Self.isNull(node) else { return }
        guard case .mapping(let mapping) = node else {
            findings.problem(line: node.mark?.line ?? line, key: path, "must be a mapping of keys to values")
            return
        }
        for (key, value) in mapping {
            let line = key.mark?.line ?? line
            guard case .scalar(let scalar) = key else {
                findings.problem(line: line, key: path, "has a key that is not a word")
                continue
            }
            entries.append(Entry(key: scalar.string, line: line, node: value))
        }
    }

    // MARK: Reading

    /// The scalar under `key`, parsed; nil where the key is absent or its value is a problem (which is then noted).
    ///
    /// - Parameter isSecret: Keeps the value out of the problem.
    func value<Value>(
        _ key: String, isSecret: Bool = false, _ parse: (String) throws(UnitFailure) -> Value
    ) -> Value? {
        guard let entry = entry(key) else { return nil }
        guard case .scalar(let scalar) = entry.node, !Self.isNull(entry.node) else {
            problem(
                key, Self.isNull(entry.node) ? "has no value: write one or remove the key" : "must be a single value")
            return nil
        }
        let fullKey = keyPath(key)
        guard let text = findings.interpolated(scalar.string, line: entry.line, key: fullKey) else { return nil }
        do throws(UnitFailure) {
            return try parse(text)
        } catch {
            // The raw text: what stands for a variable may be a secret.
            problem(
                key, isSecret || error.isSecret ? error.message : "\"\(Self.shown(scalar.string))\" \(error.message)")
            return nil
        }
    }

    /// As ``value(_:isSecret:_:)``; an absent key is a problem.
    func required<Value>(
        _ key: String, isSecret: Bool = false, _ parse: (String) throws(UnitFailure) -> Value
    ) -> Value? {
        guard has(key) else {
            _ = entry(key)
            problem(key, "is missing")
            return nil
        }
        return value(key, isSecret: isSecret, parse)
    }

    /// The mapping under `key`; an empty one where the key is absent.
    func section(_ key: String) -> ConfigurationSection {
        let entry = entry(key)
        return ConfigurationSection(entry?.node, path: keyPath(key), line: entry?.line ?? line, findings: findings)
    }

    /// The mappings in the list under `key`; none where the key is absent.
    func sections(_ key: String, countMax: Int) -> [ConfigurationSection] {
        guard let entry = entry(key), !Self.isNull(entry.node) else { return [] }
        guard case .sequence(let sequence) = entry.node else {
            problem(key, "must be a list: begin each of its entries with a dash")
            return []
        }
        guard sequence.count <= countMax else {
            problem(key, "has \(sequence.count) entries; at most \(countMax) are allowed")
            return []
        }
        return sequence.enumerated().map { index, node in
            if Self.isNull(node) {
                findings.problem(line: node.mark?.line, key: "\(keyPath(key))[\(index)]", "is empty")
            }
            return ConfigurationSection(
                node, path: "\(keyPath(key))[\(index)]", line: node.mark?.line ?? entry.line, findings: findings)
        }
    }

    /// The scalars in the list under `key`, each parsed; none where the key is absent. One that is there twice, or more
    /// than `countMax`, are problems.
    func values<Value: Hashable>(
        _ key: String, countMax: Int, _ parse: (String) throws(UnitFailure) -> Value
    ) -> [Value] {
        guard let entry = entry(key), !Self.isNull(entry.node) else { return [] }
        guard case .sequence(let sequence) = entry.node else {
            problem(key, "must be a list: write [a, b]")
            return []
        }
        guard sequence.count <= countMax else {
            problem(key, "has \(sequence.count) entries; at most \(countMax) are allowed")
            return []
        }
        var values: [Value] = []
        for (index, node) in sequence.enumerated() {
            let line = node.mark?.line ?? entry.line
            let path = "\(keyPath(key))[\(index)]"
            guard case .scalar(let scalar) = node, !Self.isNull(node) else {
                findings.problem(line: line, key: path, "must be a single value")
                continue
            }
            guard let text = findings.interpolated(scalar.string, line: line, key: path) else { continue }
            do throws(UnitFailure) {
                let value = try parse(text)
                if values.contains(value) {
                    findings.problem(line: line, key: path, "\"\(Self.shown(scalar.string))\" is listed twice")
                } else {
                    values.append(value)
                }
            } catch {
                findings.problem(line: line, key: path, "\"\(Self.shown(scalar.string))\" \(error.message)")
            }
        }
        return values
    }

    /// The value under `key` as JSON: scalars, lists and maps. nil where the key is absent or its value is a problem.
    func json(_ key: String, bytesMax: Int, depthMax: Int) -> [UInt8]? {
        guard let entry = entry(key) else { return nil }
        var writer = ConfigurationJSON(bytesMax: bytesMax, depthMax: depthMax)
        do throws(UnitFailure) {
            try writer.write(entry.node) { text in
                findings.interpolated(text, line: entry.line, key: keyPath(key))
            }
            return writer.bytes
        } catch {
            if !error.message.isEmpty { problem(key, error.message) }
            return nil
        }
    }

    /// The section's own keys, for mappings whose keys are names. They all become known.
    func names() -> [String] {
        for entry in entries { known.append(entry.key) }
        return entries.map(\.key)
    }

    /// Whether there is a mapping under `key`, where a single value would do as well.
    func isMapping(_ key: String) -> Bool {
        guard case .mapping? = entries.first(where: { $0.key == key })?.node else { return false }
        return true
    }

    func has(_ key: String) -> Bool { entries.contains { $0.key == key } }

    /// Notes keys that the interface promises and this version does not serve.
    func notBuiltYet(_ keys: [String], _ what: String) {
        for key in keys {
            notBuilt.insert(key)
            if entry(key) != nil { problem(key, "\(what) not built yet: remove the key") }
        }
    }

    /// Notes every key that nobody asked for.
    func finish() {
        let expected = known.filter { !notBuilt.contains($0) }
        for entry in entries where !known.contains(entry.key) {
            findings.problem(
                line: entry.line, key: keyPath(Self.shown(entry.key)),
                expected.isEmpty ? "unknown key" : "unknown key: known here are \(expected.joined(separator: ", "))")
        }
    }

    func problem(_ key: String, _ message: String) {
        findings.problem(line: line(of: key), key: keyPath(key), message)
    }

    func warning(_ key: String, _ message: String) {
        findings.warning(line: line(of: key), key: keyPath(key), message)
    }

    // MARK: Inside

    private func entry(_ key: String) -> Entry? {
        if !known.contains(key) { known.append(key) }
        return entries.first { $0.key == key }
    }

    private func line(of key: String) -> Int? { entries.first { $0.key == key }?.line ?? line }

    private func keyPath(_ key: String) -> String { path.isEmpty ? key : "\(path).\(key)" }

    private static func isNull(_ node: Node) -> Bool {
        guard case .scalar(let scalar) = node, scalar.style == .plain || scalar.style == .any else { return false }
        return ["", "~", "null", "Null", "NULL"].contains(scalar.string)
    }

    private static func shown(_ text: String) -> String {
        let printable = String(
            text.unicodeScalars.filter { $0.value >= 0x20 && $0.value != 0x7F }.prefix(64).map(Character.init))
        return printable.count < text.count ? printable + "..." : printable
    }
}
