import ArgumentParser
import ControlPlane
import Domain

struct Ledger: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Every charge and top-up of an org.",
        subcommands: [List.self, Verify.self]
    )

    struct List: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List an org's ledger, oldest first.",
            discussion: """
                Examples:
                  tollgate ledger list --org acme
                  tollgate ledger list --org acme --limit 100 --json
                """)

        @Option(help: "The org.")
        var org: OrgID

        @Option(help: ArgumentHelp("At most so many entries; all if not given.", valueName: "n"))
        var limit: Int?

        @OptionGroup var output: OutputOptions

        func validate() throws {
            if let limit, limit < 1 { throw ValidationError("--limit must be at least 1.") }
        }

        func run() throws {
            let entries = try entries(from: AdminClient.fromEnvironment())
            guard !output.json else { return try Output.json(entries) }
            var table = TextTable(
                .left("AT"), .left("TYPE"), .right("AMOUNT"), .left("MODEL"), .right("PROMPT"), .right("CACHED"),
                .right("COMPLETION"), .left("KEY"), .left("REQUEST OR REFERENCE"))
            for entry in entries {
                let isSettle = entry.type == "settle"
                table.add([
                    .init(entry.at), .init(entry.type + (entry.estimated ? "*" : "")),
                    .init(NanoUSD(unchecked: entry.amount).description), Present.text(entry.model),
                    isSettle ? Present.count(entry.promptTokens) : "-",
                    isSettle ? Present.count(entry.cachedTokens) : "-",
                    isSettle ? Present.count(entry.completionTokens) : "-",
                    Present.text(entry.key), Present.text(entry.requestID ?? entry.reference),
                ])
            }
            Output.table(table)
            if entries.contains(where: \.estimated) { Output.note("* counted by the gateway: the node told no usage") }
        }

        /// Page after page, until the ledger or the limit ends.
        private func entries(from client: AdminClient) throws(CommandFailure) -> [LedgerEntryDocument] {
            var entries: [LedgerEntryDocument] = []
            while true {
                let wanted = min(AdminRoute.ledgerPageMax, (limit ?? .max) - entries.count)
                let page: [LedgerEntryDocument] = try client.call(
                    .get, ["orgs", org.rawValue, "ledger"],
                    query: ["limit": "\(wanted)", "after": entries.last?.id])
                entries += page
                if page.count < wanted || entries.count == limit { return entries }
            }
        }
    }

    struct Verify: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Sum an org's ledger again and compare it with the balance.",
            discussion: """
                Exits 1 if they differ.

                Examples:
                  tollgate ledger verify --org acme
                """)

        @Option(help: "The org.")
        var org: OrgID

        @OptionGroup var output: OutputOptions

        func run() throws {
            let verification: VerificationDocument = try AdminClient.fromEnvironment().call(
                .get, ["orgs", org.rawValue, "ledger", "verify"])
            if output.json {
                try Output.json(verification)
            } else {
                Output.line(
                    "\(verification.entries) entries, drift \(NanoUSD(unchecked: verification.drift)) USD, "
                        + "\(verification.openReservations) reservations open.")
            }
            if verification.drift != 0 {
                throw CommandFailure(
                    "the balance of \(org) differs from its entries by \(verification.drift) nano-dollars; "
                        + "suspend the org and compare the journals")
            }
        }
    }
}
