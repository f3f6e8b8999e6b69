import JSON

/// What the data plane serves, a row of ``descriptor`` each.
///
/// To add one: a case, a row, and what ``scanRequest(_:endpoint:)`` must look for in its body.
package enum Endpoint: Int, Hashable, Sendable, CaseIterable {
    case chatCompletions, completions, embeddings, models, model

    package struct Descriptor: Hashable, Sendable {
        /// The one method it takes.
        package let method: String
        /// The whole path, or what stands before `/{id}`.
        package let path: String
        /// Whether one more segment follows, which may hold slashes itself (`meta-llama/Llama-3.1-8B`).
        package let takesArgument: Bool
        /// A closed set: metric labels and access-log lines say this.
        package let label: String
        /// The field that holds the prompt; nil where no body is read.
        package let promptField: PromptField?
        /// Whether completion tokens are generated, so that a max-token field belongs upstream.
        package let generates: Bool
    }

    package enum PromptField: String, Hashable, Sendable {
        case messages, prompt, input
    }

    package var descriptor: Descriptor {
        switch self {
        case .chatCompletions:
            Descriptor(
                method: "POST", path: "/v1/chat/completions", takesArgument: false, label: "chat_completions",
                promptField: .messages, generates: true)
        case .completions:
            Descriptor(
                method: "POST", path: "/v1/completions", takesArgument: false, label: "completions",
                promptField: .prompt, generates: true)
        case .embeddings:
            Descriptor(
                method: "POST", path: "/v1/embeddings", takesArgument: false, label: "embeddings",
                promptField: .input, generates: false)
        case .models:
            Descriptor(
                method: "GET", path: "/v1/models", takesArgument: false, label: "models", promptField: nil,
                generates: false)
        case .model:
            Descriptor(
                method: "GET", path: "/v1/models", takesArgument: true, label: "model", promptField: nil,
                generates: false)
        }
    }

    /// The path on the node: the same as ours.
    package var path: String { descriptor.path }
    package var label: String { descriptor.label }
    package var generates: Bool { descriptor.generates }
    /// Whether requests of this kind go to a node.
    package var isInference: Bool { descriptor.promptField != nil }

    /// Finds the endpoint of a request line.
    ///
    /// - Parameters:
    ///   - method: As on the wire; methods are case-sensitive.
    ///   - path: The request target. What follows `?` is ignored. Paths match byte for byte: a trailing slash, a doubled
    ///     one and percent-encoded letters are other paths, so that no proxy in front can be led to another decision.
    package static func match(method: String, path: Substring) -> RouteMatch {
        let target = path.utf8
        let end = target.firstIndex(of: UInt8(ascii: "?")) ?? target.endIndex
        let path = path[..<end]
        var allow: String?
        for endpoint in allCases {
            let descriptor = endpoint.descriptor
            var argument: String?
            if descriptor.takesArgument {
                guard let found = Self.argument(of: path, after: descriptor.path) else { continue }
                argument = found
            } else if path != descriptor.path {
                continue
            }
            if method == descriptor.method { return .found(endpoint, argument: argument) }
            allow = allow.map { "\($0), \(descriptor.method)" } ?? descriptor.method
        }
        return allow.map { .methodNotAllowed(allow: $0) } ?? .notFound
    }

    package static func match(method: String, path: String) -> RouteMatch { match(method: method, path: path[...]) }

    /// What follows `prefix` and a slash, percent-decoded; nil where nothing does or the encoding is broken.
    private static func argument(of path: Substring, after prefix: String) -> String? {
        let bytes = Array(path.utf8)
        let prefix = Array(prefix.utf8)
        guard bytes.count > prefix.count + 1, bytes.starts(with: prefix), bytes[prefix.count] == UInt8(ascii: "/"),
            bytes.last != UInt8(ascii: "/")
        else { return nil }
        var decoded: [UInt8] = []
        var at = prefix.count + 1
        while at < bytes.count {
            guard bytes[at] == UInt8(ascii: "%") else {
                decoded.append(bytes[at])
                at += 1
                continue
            }
            guard at + 2 < bytes.count, let high = HexDigit.value(bytes[at + 1]),
                let low = HexDigit.value(bytes[at + 2])
            else { return nil }
            decoded.append(high << 4 | low)
            at += 3
        }
        return String(validating: decoded, as: UTF8.self)
    }
}

package enum RouteMatch: Hashable, Sendable {
    /// `argument` is the `{id}` of the path, decoded, where the endpoint has one.
    case found(Endpoint, argument: String?)
    case notFound
    /// `allow` is the value of the `Allow` header.
    case methodNotAllowed(allow: String)
}
