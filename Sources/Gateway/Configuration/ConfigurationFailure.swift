/// One thing that is wrong with a configuration, where, and what to do about it.
package struct ConfigurationProblem: Hashable, Sendable, CustomStringConvertible {
    /// The file as it was named, or `environment`.
    package var file: String
    /// From 1; nil where the problem has no place in the file.
    package var line: Int?
    /// The path of keys, `nodes[0].url`; an environment variable's name; empty for the file as a whole.
    package var key: String
    /// Never holds a secret, nor a value that came from the environment.
    package var message: String

    package var description: String {
        var text = file
        if let line { text += ":\(line)" }
        if !key.isEmpty { text += ": \(key)" }
        return text + ": \(message)"
    }
}

/// A configuration that cannot be used: every problem that one reading finds, in the order of the file.
package struct ConfigurationFailure: Error, Hashable, Sendable, CustomStringConvertible {
    /// Never empty.
    package var problems: [ConfigurationProblem]

    /// A line for each problem.
    package var description: String { problems.map(\.description).joined(separator: "\n") }
}
