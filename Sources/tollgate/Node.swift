import ArgumentParser
import ControlPlane
import Domain

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

struct Node: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "The model servers behind the gateway.",
        subcommands: [List.self, Show.self, Cordon.self, Uncordon.self, Drain.self, Add.self, Remove.self]
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
            abstract: "Show a node: what it does, what was learned of it, and what it says of itself.",
            discussion: """
                As the gateway sees it that TOLLGATE_ADMIN_URL names. What other gateways have in flight there is what \
                they tell, or what the node reports beyond that.

                Examples:
                  tollgate node show austin-01
                  tollgate node show austin-01 --json
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
            abstract: "Send a cordoned or draining node requests again.",
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

    struct Drain: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Send a node no new requests, and end what still runs at a deadline.",
            discussion: """
                At the deadline a request of whose answer nothing went down yet is sent to another node; a stream ends \
                with an error event. Holds in every replica and through restarts, until uncordoned; `node cordon` keeps \
                the node out and takes the deadline back.

                Examples:
                  tollgate node drain austin-01 --deadline 5m
                  tollgate node drain austin-01 --deadline 0s
                  tollgate node drain austin-01 --deadline 10m --wait && ssh austin-01 reboot
                """)

        /// How often --wait looks.
        static let pollMilliseconds: UInt32 = 500

        @Argument(help: "The node's id.")
        var id: NodeID

        @Option(help: ArgumentHelp("What running requests are left: 30s, 5m, 2h. Default 5m.", valueName: "time"))
        var deadline: TimeArgument?

        @Flag(help: "Return only when nothing runs there any more, for this gateway and those that it hears of.")
        var wait = false

        @OptionGroup var output: OutputOptions

        func run() throws {
            let client = try AdminClient.fromEnvironment()
            let path = ["nodes", id.rawValue]
            var node: NodeDetailDocument = try client.call(
                .post, path + ["drain"], body: deadline.map { ["deadline_seconds": $0.value] })
            while wait, node.summary.inflightRequests + node.peerRequests > 0 {
                guard node.drainEndsAt != nil else {
                    throw CommandFailure("somebody ended the drain of \(id) before it was empty")
                }
                usleep(Self.pollMilliseconds * 1_000)
                node = try client.call(.get, path)
            }
            try Node.present(node, output)
        }
    }

    static func present(_ node: NodeDetailDocument, _ output: OutputOptions) throws {
        guard !output.json else { return try Output.json(node) }
        let summary = node.summary
        var table = TextTable(.left("NODE"), .left(summary.id))
        table.add(["site", .init(summary.site)])
        table.add(["origin", .init(summary.origin)])
        table.add(["url", .init(node.url)])
        table.add(["addresses", .init(node.addresses.joined(separator: ", "))])
        table.add(["engine", .init(summary.engine)])
        table.add(["class", .init(node.speedClass)])
        table.add(["state", Present.status(summary.state)])
        if let end = node.drainEndsAt { table.add(["drained at", .init(end)]) }
        if node.isCordoned { table.add(["cordoned", "yes"]) }
        if let curtailment = node.curtailment { table.add(["curtailed", .init(Present.sentence(curtailment))]) }
        let models = node.upstreamNames.sorted { $0.key < $1.key }.map { "\($0.key) (\($0.value))" }
        table.add(["models", .init(models.joined(separator: ", "))])
        table.add(["requests in flight", .init("\(summary.inflightRequests) of \(node.maxConcurrency)")])
        table.add(["of them queued", Present.count(node.queuedRequests)])
        table.add(["tokens in flight", Present.count(summary.inflightTokens)])
        table.add(["other gateways' requests", Present.count(node.peerRequests)])
        table.add(["of them queued", Present.count(node.peerQueuedRequests)])
        table.add(["other gateways' tokens", Present.count(node.peerTokens)])
        table.add(["prefill tokens/s", Present.number(summary.prefillTokensPerSecond, places: 0)])
        table.add(["decode step, ms", Present.number(node.decodeStep.map { $0 * 1_000 }, places: 1)])
        table.add(["time to first token, s", Present.number(summary.firstTokenSeconds, places: 3)])
        table.add(["predicted wait, s", Present.number(node.waitSeconds, places: 3)])
        table.add(["round trip configured, ms", Present.number(node.rttConfigured * 1_000, places: 1)])
        table.add(["round trip measured, ms", Present.number(node.rttMeasured.map { $0 * 1_000 }, places: 1)])
        table.add(["KV cache, tokens", Present.count(node.kvCapacityTokens)])
        table.add(["prefix blocks known", Present.count(node.prefixBlocks)])
        table.add(["breaker", node.isBreakerOpen ? .init("open", .bad) : "closed"])
        table.add(["penalty, s", Present.number(node.penaltySeconds, places: 3)])
        addReport(node.report, believedCapacity: node.kvCapacityTokens, to: &table)
        Output.table(table)
    }

    private static func addReport(
        _ report: NodeReportDocument, believedCapacity: Int, to table: inout TextTable
    ) {
        switch report.state {
        case "distrusted":
            table.add(["its own metrics", .init("not believed: \(report.reason ?? report.distrust ?? "")", .bad)])
        case "unread": table.add(["its own metrics", "not read under this policy or engine"])
        case "none": table.add(["its own metrics", "none so far"])
        default: table.add(["its own metrics", .init("believed", .good)])
        }
        guard let running = report.runningRequests else { return }
        table.add(["  running", Present.number(running, places: 0)])
        table.add(["  waiting", Present.number(report.waitingRequests, places: 0)])
        table.add(["  KV cache used", report.kvUsage.map { .init("\(Int(($0 * 100).rounded()))%") } ?? "-"])
        if report.state == "trusted", let capacity = report.kvCapacityTokens,
            capacity.rounded(.towardZero) != Double(believedCapacity)
        {
            table.add(["  KV cache claimed", Present.number(capacity, places: 0)])
            table.add(["", .init("not believed: more than 16 times, or less than a 64th of, its class's", .bad)])
        }
        table.add(["  seconds old", Present.number(report.ageSeconds, places: 1)])
    }
}
