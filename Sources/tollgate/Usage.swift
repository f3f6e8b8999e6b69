import ArgumentParser
import ControlPlane
import Domain

struct Usage: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "What an org used and what it cost.",
        discussion: """
            Dates are UTC and both are included; without them, the present month.

            Examples:
              tollgate usage --org acme
              tollgate usage --org acme --by model
              tollgate usage --org acme --from 2026-11-01 --to 2026-11-30 --by day --json
            """
    )

    @Option(help: "The org.")
    var org: OrgID

    @Option(help: ArgumentHelp("First day, as YYYY-MM-DD.", valueName: "date"))
    var from: UTCDate?

    @Option(help: ArgumentHelp("Last day, as YYYY-MM-DD.", valueName: "date"))
    var to: UTCDate?

    @Option(help: "A row for each key, model or day.")
    var by: UsageGrouping?

    @OptionGroup var output: OutputOptions

    func validate() throws {
        if let from, let to, from > to { throw ValidationError("--from must not be after --to.") }
    }

    func run() throws {
        let rows: [UsageDocument] = try AdminClient.fromEnvironment().call(
            .get, ["orgs", org.rawValue, "usage"],
            query: ["from": from?.description, "to": to?.description, "by": by?.rawValue])
        guard !output.json else { return try Output.json(rows) }
        var table = TextTable(
            .left(by?.rawValue.uppercased() ?? "ORG"), .right("REQUESTS"), .right("PROMPT"), .right("CACHED"),
            .right("COMPLETION"), .right("COST"))
        for row in rows {
            table.add([
                .init(row.key ?? row.model ?? row.day ?? org.rawValue), Present.count(row.requests),
                Present.count(row.promptTokens), Present.count(row.cachedTokens), Present.count(row.completionTokens),
                Present.money(row.cost),
            ])
        }
        Output.table(table)
    }
}
