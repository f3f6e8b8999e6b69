import ArgumentParser
import ControlPlane
import Domain

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

extension Node {
    struct Add: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "add",
            abstract: "Add a node without a change of the configuration file.",
            discussion: """
                Holds in every replica and through restarts, until removed. Site and models are those of the \
                configuration. Adding a node again under its id changes it. A key that the node asks for is read from \
                the environment variable that --api-key-variable names, and is kept in Redis.

                Examples:
                  tollgate node add austin-09 --site austin --url http://10.0.0.9:8000 --engine vllm \
                --models llama-3.1-8b=meta-llama/Llama-3.1-8B-Instruct
                  NODE_KEY=... tollgate node add b1 --site berlin --url https://b1.example.com --engine sglang \
                --class h100 --max-concurrency 128 --models llama-3.1-8b --api-key-variable NODE_KEY
                """)

        @Argument(help: "The node's id.")
        var id: NodeID

        @Option(help: "Where it stands.")
        var site: SiteID

        @Option(help: "Its server: http://host:port or https://, without /v1.")
        var url: String

        @Option(help: "vllm, sglang, llamacpp or openai.")
        var engine: String

        @Option(
            help: ArgumentHelp(
                "Models: public ids, each with = and the node's name for it where that differs.",
                valueName: "id=name,..."))
        var models: ServedModelsArgument

        @Option(name: .customLong("class"), help: "Nodes of one class are equally fast.")
        var speedClass: String?

        @Option(help: ArgumentHelp("Requests at once. Default 64.", valueName: "n"))
        var maxConcurrency: Int64?

        @Option(help: ArgumentHelp("The environment variable with the node's key.", valueName: "name"))
        var apiKeyVariable: String?

        @OptionGroup var output: OutputOptions

        func run() throws {
            var body: [String: JSONValue] = [
                "id": .string(id.rawValue), "site": .string(site.rawValue), "url": .string(url),
                "engine": .string(engine), "models": models.value,
            ]
            if let speedClass { body["class"] = .string(speedClass) }
            if let maxConcurrency { body["max_concurrency"] = .integer(maxConcurrency) }
            if let apiKeyVariable {
                guard let key = ProcessInfo.processInfo.environment[apiKeyVariable], !key.isEmpty else {
                    throw CommandFailure(
                        "the environment variable \(apiKeyVariable) is not set; set it to the node's key")
                }
                body["api_key"] = .string(key)
            }
            let client = try AdminClient.fromEnvironment()
            let _: AdmissionDocument = try client.call(.post, ["nodes"], body: body)
            try Node.present(client.call(.get, ["nodes", id.rawValue]), output)
        }
    }

    struct Remove: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "remove",
            abstract: "Remove a node that was added, or that registered itself.",
            discussion: """
                Requests that it runs are finished; `tollgate node drain` ends them first. A node that still sends its \
                heartbeat comes back. Nodes of the configuration file are removed there.

                Examples:
                  tollgate node remove austin-09
                """)

        @Argument(help: "The node's id.")
        var id: NodeID

        @OptionGroup var output: OutputOptions

        func run() throws {
            let removed: RemovalDocument = try AdminClient.fromEnvironment().call(.delete, ["nodes", id.rawValue])
            guard !output.json else { return try Output.json(removed) }
            Output.note("\(removed.id) is removed")
        }
    }
}

/// `public-id=name-on-the-node,...`; an id alone is called the same there.
struct ServedModelsArgument: ExpressibleByArgument {
    let names: [String: String]

    init?(argument: String) {
        var names: [String: String] = [:]
        for part in argument.split(separator: ",", omittingEmptySubsequences: false) {
            let pair = part.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
            let name = pair.count == 2 ? pair[1] : pair[0]
            guard ModelID(pair[0]) != nil, !name.isEmpty, names.updateValue(name, forKey: pair[0]) == nil else {
                return nil
            }
        }
        self.names = names
    }

    init(names: [String: String]) { self.names = names }

    var value: JSONValue { .object(names.mapValues { .string($0) }) }
}
