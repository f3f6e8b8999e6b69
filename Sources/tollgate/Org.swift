import ArgumentParser
import ControlPlane
import Domain

struct Org: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Who pays: create, credit, limit and suspend orgs.",
        subcommands: [
            Create.self, List.self, Show.self, Credit.self, Update.self, Suspend.self, Resume.self,
        ]
    )

    struct Create: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Create an org.",
            discussion: """
                Limits that are not named are the configuration's org_defaults.

                Examples:
                  tollgate org create acme --credit 25
                  tollgate org create acme --name "Acme Ltd" --credit 12.50 --rpm 600 --tpm unlimited
                """)

        @Argument(help: "The org's id: letters, digits and . _ - / :")
        var id: OrgID

        @Option(help: "A name for people; the id if not given.")
        var name: String?

        @Option(help: ArgumentHelp("Opening top-up in US dollars.", valueName: "usd"))
        var credit: DollarArgument?

        @OptionGroup var limits: LimitOptions
        @OptionGroup var output: OutputOptions

        func run() throws {
            var body = limits.members
            body["id"] = .string(id.rawValue)
            if let name { body["name"] = .string(name) }
            if let credit { body["opening_credit_usd"] = credit.value }
            try Org.present(AdminClient.fromEnvironment().call(.post, ["orgs"], body: body), output)
        }
    }

    struct List: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List all orgs.",
            discussion: """
                Examples:
                  tollgate org list
                  tollgate org list --json
                """)

        @OptionGroup var output: OutputOptions

        func run() throws {
            let orgs: [OrgDocument] = try AdminClient.fromEnvironment().call(.get, ["orgs"])
            guard !output.json else { return try Output.json(orgs) }
            var table = TextTable(
                .left("ID"), .left("NAME"), .left("STATUS"), .right("BALANCE"), .right("AVAILABLE"),
                .right("RESERVED"))
            for org in orgs {
                table.add([
                    .init(org.id), .init(org.name), Present.status(org.status),
                    Present.money(org.balance), Present.money(org.available),
                    Present.money(org.reserved),
                ])
            }
            Output.table(table)
        }
    }

    struct Show: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Show an org: balance, what is reserved, limits.",
            discussion: """
                Examples:
                  tollgate org show acme
                  tollgate org show acme --json
                """)

        @Argument(help: "The org's id.")
        var id: OrgID

        @OptionGroup var output: OutputOptions

        func run() throws {
            try Org.present(AdminClient.fromEnvironment().call(.get, ["orgs", id.rawValue]), output)
        }
    }

    struct Credit: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Add money to an org's balance.",
            discussion: """
                A reference counts once: the same one with the same amount again changes nothing, so a command whose
                answer was lost can be repeated.

                Examples:
                  tollgate org credit acme 50 --ref invoice-2026-0042
                """)

        @Argument(help: "The org's id.")
        var id: OrgID

        @Argument(help: ArgumentHelp("Amount in US dollars, such as 12.50.", valueName: "usd"))
        var amount: DollarArgument

        @Option(help: "What the payment is known by elsewhere; unique in the org.")
        var ref: String

        @OptionGroup var output: OutputOptions

        func validate() throws {
            guard amount.amount > .zero else { throw ValidationError("The amount must be above zero.") }
        }

        func run() throws {
            let credit: CreditDocument = try AdminClient.fromEnvironment().call(
                .post, ["orgs", id.rawValue, "credit"],
                body: ["amount_usd": amount.value, "reference": .string(ref)])
            guard !output.json else { return try Output.json(credit) }
            Output.line(
                credit.isRepeat
                    ? "\(id) had been credited under '\(ref)' before; nothing changed."
                    : "\(id) is credited with \(NanoUSD(unchecked: credit.entry.amount)) USD, entry \(credit.entry.id)."
            )
        }
    }

    struct Update: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Change an org's name, credit limit, limits or region.",
            discussion: """
                What is not named stays.

                Examples:
                  tollgate org update acme --credit-limit 100
                  tollgate org update acme --rpm 1200 --concurrency unlimited
                  tollgate org update acme --region eu
                """)

        @Argument(help: "The org's id.")
        var id: OrgID

        @Option(help: "A name for people.")
        var name: String?

        @Option(help: ArgumentHelp("How far below zero the balance may go, in US dollars.", valueName: "usd"))
        var creditLimit: DollarArgument?

        @OptionGroup var region: RegionOptions
        @OptionGroup var limits: LimitOptions
        @OptionGroup var output: OutputOptions

        func validate() throws {
            guard name != nil || creditLimit != nil || !limits.isEmpty || region.value != nil else {
                throw ValidationError("Nothing to change: name at least one option.")
            }
        }

        func run() throws {
            var body = limits.members
            if let name { body["name"] = .string(name) }
            if let creditLimit { body["credit_limit_usd"] = creditLimit.value }
            if let region = region.value { body["region"] = region }
            try Org.present(AdminClient.fromEnvironment().call(.patch, ["orgs", id.rawValue], body: body), output)
        }
    }

    struct Suspend: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Refuse all new requests of an org.",
            discussion: """
                Requests that run are finished and charged.

                Examples:
                  tollgate org suspend acme
                """)

        @Argument(help: "The org's id.")
        var id: OrgID

        @OptionGroup var output: OutputOptions

        func run() throws {
            try Org.present(AdminClient.fromEnvironment().call(.post, ["orgs", id.rawValue, "suspend"]), output)
        }
    }

    struct Resume: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Serve a suspended org again.",
            discussion: """
                Examples:
                  tollgate org resume acme
                """)

        @Argument(help: "The org's id.")
        var id: OrgID

        @OptionGroup var output: OutputOptions

        func run() throws {
            try Org.present(AdminClient.fromEnvironment().call(.post, ["orgs", id.rawValue, "resume"]), output)
        }
    }

    private static func present(_ org: OrgDocument, _ output: OutputOptions) throws {
        guard !output.json else { return try Output.json(org) }
        var table = TextTable(.left("ORG"), .left(org.id))
        table.add(["name", .init(org.name)])
        table.add(["status", Present.status(org.status)])
        table.add(["balance", Present.money(org.balance)])
        table.add(["credit limit", Present.money(org.creditLimit)])
        table.add(["reserved", .init("\(NanoUSD(unchecked: org.reserved)) by \(org.openReservations) running")])
        table.add(["leased", Present.money(org.leased)])
        table.add(["available", Present.money(org.available)])
        table.add(["region", .init(org.region ?? "any")])
        table.add(["requests a minute", Present.limit(org.rpm)])
        table.add(["tokens a minute", Present.limit(org.tpm)])
        table.add(["concurrency", Present.limit(org.concurrency)])
        table.add(["keys at most", Present.count(org.keysMax)])
        table.add(["created", .init(org.createdAt)])
        Output.table(table)
    }
}
