import ArgumentParser
import ControlPlane
import Domain

struct Node: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "The model servers behind the gateway.",
        subcommands: [List.self, Show.self, Cordon.self, Uncordon.self]
    )

    struct List: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List all nodes.",
            discussion: """
                Examples:
                  tollgate node list
                  tollgate node list --json
                """)

        @OptionGroup var output: OutputOptions

        func run() throws {
            let nodes: [NodeDocument] = try AdminClient.fromEnvironment().call(.get, ["nodes"])
            guard !output.json else { return try Output.json(nodes) }
            var table = TextTable(
                .left("ID"), .left("SITE"), .left("STATE"), .left("ENGINE"), .right("REQUESTS"), .right("TOKENS"),
                .right("PREFILL/S"), .right("TTFT S"), .left("MODELS"))
            for node in nodes {
                table.add([
                    .init(node.id), .init(node.site), Present.status(node.state), .init(node.engine),
                    Present.count(node.inflightRequests), Present.count(node.inflightTokens),
                    Present.number(node.prefillTokensPerSecond, places: 0),
                    Present.number(node.firstTokenSeconds, places: 3),
                    .init(node.models.joined(separator: ", ")),
                ])
            }
            Output.table(table)
        }
    }

    struct Show: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Show a node.",
            discussion: """
                Examples:
                  tollgate node show austin-01
                """)

        @Argument(help: "The node's id.")
        var id: NodeID

        @OptionGroup var output: OutputOptions

        func run() throws {
            try Node.present(AdminClient.fromEnvironment().call(.get, ["nodes", id.rawValue]), output)
        }
    }

    struct Cordon: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Send a node no new requests.",
            discussion: """
                Requests that it runs are finished. Holds in every replica and through restarts, until uncordoned.

                Examples:
                  tollgate node cordon austin-01
                """)

        @Argument(help: "The node's id.")
        var id: NodeID

        @OptionGroup var output: OutputOptions

        func run() throws {
            try Node.present(AdminClient.fromEnvironment().call(.post, ["nodes", id.rawValue, "cordon"]), output)
        }
    }

    struct Uncordon: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Send a cordoned node requests again.",
            discussion: """
                Examples:
                  tollgate node uncordon austin-01
                """)

        @Argument(help: "The node's id.")
        var id: NodeID

        @OptionGroup var output: OutputOptions

        func run() throws {
            try Node.present(AdminClient.fromEnvironment().call(.post, ["nodes", id.rawValue, "uncordon"]), output)
        }
    }

    private static func present(_ node: NodeDocument, _ output: OutputOptions) throws {
        guard !output.json else { return try Output.json(node) }
        var table = TextTable(.left("NODE"), .left(node.id))
        table.add(["site", .init(node.site)])
        table.add(["engine", .init(node.engine)])
        table.add(["state", Present.status(node.state)])
        table.add(["models", .init(node.models.joined(separator: ", "))])
        table.add(["requests in flight", Present.count(node.inflightRequests)])
        table.add(["tokens in flight", Present.count(node.inflightTokens)])
        table.add(["prefill tokens/s", Present.number(node.prefillTokensPerSecond, places: 0)])
        table.add(["time to first token, s", Present.number(node.firstTokenSeconds, places: 3)])
        Output.table(table)
    }
}
