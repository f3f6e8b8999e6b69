import ArgumentParser
import ControlPlane
import Domain

struct Site: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "The places where nodes stand, and their power.",
        subcommands: [List.self, Show.self, Curtail.self, Restore.self]
    )

    struct List: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List all sites.",
            discussion: """
                Examples:
                  tollgate site list
                  tollgate site list --json
                """)

        @OptionGroup var output: OutputOptions

        func run() throws {
            let sites: [SiteDocument] = try AdminClient.fromEnvironment().call(.get, ["sites"])
            guard !output.json else { return try Output.json(sites) }
            var table = TextTable(
                .left("ID"), .left("REGION"), .left("STATE"), .right("POWER"), .right("NODES"), .right("SERVING"),
                .right("REQUESTS"), .right("TOKENS"), .right("RTT MS"), .right("MEASURED MS"), .left("CURTAILMENT"))
            for site in sites {
                table.add([
                    .init(site.id), Present.text(site.region), Present.status(site.state),
                    Present.percent(site.powerPercent), Present.count(site.nodes), Present.count(site.nodesServing),
                    Present.count(site.inflightRequests), Present.count(site.inflightTokens),
                    Present.number(site.rttConfigured * 1_000, places: 1),
                    Present.number(site.rttMeasured.map { $0 * 1_000 }, places: 1),
                    Present.text(site.curtailment.map(Present.sentence)),
                ])
            }
            Output.table(table)
        }
    }

    struct Show: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Show a site.",
            discussion: """
                Examples:
                  tollgate site show austin
                """)

        @Argument(help: "The site's id.")
        var id: SiteID

        @OptionGroup var output: OutputOptions

        func run() throws {
            try Site.present(AdminClient.fromEnvironment().call(.get, ["sites", id.rawValue]), output)
        }
    }

    struct Curtail: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Run a site at a share of its power.",
            discussion: """
                Its nodes count as that much slower at once, and what they really do is learned anew. At 0% they get no \
                new requests; with --in they get, until then, only what is predicted to end before. What runs is never \
                ended by this: `tollgate node drain` does that. Holds in every replica and through restarts, until \
                restored or for the time of --for.

                Examples:
                  tollgate site curtail austin --to 40%
                  tollgate site curtail austin --to 40% --for 2h
                  tollgate site curtail austin --to 0% --in 5m --for 2h
                """)

        @Argument(help: "The site's id.")
        var id: SiteID

        @Option(help: ArgumentHelp("What is left of its power, as 40%.", valueName: "share"))
        var to: ShareArgument

        @Option(name: .customLong("in"), help: ArgumentHelp("From when on: 30s, 5m, 2h.", valueName: "time"))
        var start: TimeArgument?

        @Option(
            name: .customLong("for"),
            help: ArgumentHelp("For how long from then; without it, until restored.", valueName: "time"))
        var time: TimeArgument?

        @OptionGroup var output: OutputOptions

        func run() throws {
            var body = ["to_permille": to.value]
            if let start { body["in_seconds"] = start.value }
            if let time { body["for_seconds"] = time.value }
            try Site.present(
                AdminClient.fromEnvironment().call(.post, ["sites", id.rawValue, "curtail"], body: body), output)
        }
    }

    struct Restore: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Give a site its full power back.",
            discussion: """
                Also takes back a curtailment that was announced.

                Examples:
                  tollgate site restore austin
                """)

        @Argument(help: "The site's id.")
        var id: SiteID

        @OptionGroup var output: OutputOptions

        func run() throws {
            try Site.present(
                AdminClient.fromEnvironment().call(.post, ["sites", id.rawValue, "restore"]), output)
        }
    }

    private static func present(_ site: SiteDocument, _ output: OutputOptions) throws {
        guard !output.json else { return try Output.json(site) }
        var table = TextTable(.left("SITE"), .left(site.id))
        table.add(["region", Present.text(site.region)])
        table.add(["state", Present.status(site.state)])
        table.add(["power", Present.percent(site.powerPercent)])
        if let curtailment = site.curtailment { table.add(["curtailment", .init(Present.sentence(curtailment))]) }
        table.add(["nodes", .init("\(site.nodes), \(site.nodesServing) of them serving")])
        table.add(["requests in flight", Present.count(site.inflightRequests)])
        table.add(["tokens in flight", Present.count(site.inflightTokens)])
        table.add(["round trip configured, ms", Present.number(site.rttConfigured * 1_000, places: 1)])
        table.add(["round trip measured, ms", Present.number(site.rttMeasured.map { $0 * 1_000 }, places: 1)])
        Output.table(table)
    }
}

extension Present {
    static func percent(_ percent: Double) -> TextTable.Cell {
        let tenths = Int((percent * 10).rounded())
        let text = tenths.isMultiple(of: 10) ? "\(tenths / 10)%" : "\(tenths / 10).\(tenths % 10)%"
        return TextTable.Cell(text, tenths < 1_000 ? .warning : .plain)
    }

    /// `to 40% from 2026-11-22T17:50:00.123Z until 2026-11-22T19:50:00.123Z`.
    static func sentence(_ curtailment: CurtailmentDocument) -> String {
        let until = curtailment.endsAt.map { " until \($0)" } ?? " until restored"
        let tenths = Int((curtailment.toPercent * 10).rounded())
        let share = tenths.isMultiple(of: 10) ? "\(tenths / 10)" : "\(tenths / 10).\(tenths % 10)"
        return "to \(share)% from \(curtailment.startsAt)\(until)"
    }
}
