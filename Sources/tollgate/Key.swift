import ArgumentParser
import ControlPlane
import Domain

struct Key: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "What authenticates: create, limit and revoke API keys.",
        subcommands: [Create.self, List.self, Show.self, Update.self, Revoke.self]
    )

    struct Create: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Create a key and print its secret, this once.",
            discussion: """
                The org's limits hold beside the key's own.

                Examples:
                  tollgate key create --org acme
                  tollgate key create --org acme --name batch --rpm 60 --concurrency 4
                  tollgate key create --org acme --models llama-3.1-8b,bge-m3
                  tollgate key create --org acme --region eu
                  KEY=$(tollgate key create --org acme --json | jq -r .key)
                """)

        @Option(help: "The org that pays.")
        var org: OrgID

        @Option(help: "A name for people.")
        var name: String?

        @Option(help: ArgumentHelp("All that it may use, by id or alias; every model if not given.", valueName: "a,b"))
        var models: ModelListArgument?

        @OptionGroup var region: RegionOptions
        @OptionGroup var limits: LimitOptions
        @OptionGroup var output: OutputOptions

        func run() throws {
            var body = limits.members
            if let region = region.value { body["region"] = region }
            body["org"] = .string(org.rawValue)
            if let models { body["models"] = models.value }
            if let name { body["name"] = .string(name) }
            let key: CreatedKeyDocument = try AdminClient.fromEnvironment().call(.post, ["keys"], body: body)
            guard !output.json else { return try Output.json(key) }
            Output.line(key.secret)
            Output.note("Key \(key.summary.id) of \(key.summary.org). Keep the secret now: it is not shown again.")
        }
    }

    struct List: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List an org's keys.",
            discussion: """
                Examples:
                  tollgate key list --org acme
                """)

        @Option(help: "The org.")
        var org: OrgID

        @OptionGroup var output: OutputOptions

        func run() throws {
            let keys: [KeyDocument] = try AdminClient.fromEnvironment().call(
                .get, ["keys"], query: ["org": org.rawValue])
            guard !output.json else { return try Output.json(keys) }
            var table = TextTable(
                .left("ID"), .left("NAME"), .left("LAST 4"), .left("STATUS"), .right("RPM"), .right("TPM"),
                .right("CONCURRENCY"), .left("MODELS"), .left("CREATED"))
            for key in keys {
                table.add([
                    .init(key.id), .init(key.name), .init(key.last4), Present.status(key.status),
                    Present.limit(key.rpm), Present.limit(key.tpm), Present.limit(key.concurrency),
                    Key.models(key), .init(key.createdAt),
                ])
            }
            Output.table(table)
        }
    }

    struct Show: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Show a key, without its secret.",
            discussion: """
                Examples:
                  tollgate key show 4fT9kQ2mXa7B
                """)

        @Argument(help: "The key's id, the part of the key that is not secret.")
        var id: KeyID

        @OptionGroup var output: OutputOptions

        func run() throws {
            try Key.present(AdminClient.fromEnvironment().call(.get, ["keys", id.rawValue]), output)
        }
    }

    struct Update: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Change a key's name, limits, models or region.",
            discussion: """
                What is not named stays.

                Examples:
                  tollgate key update 4fT9kQ2mXa7B --rpm 120 --tpm unlimited
                  tollgate key update 4fT9kQ2mXa7B --models llama-3.1-8b
                  tollgate key update 4fT9kQ2mXa7B --all-models
                """)

        @Argument(help: "The key's id.")
        var id: KeyID

        @Option(help: "A name for people.")
        var name: String?

        @Option(help: ArgumentHelp("All that it may use, by id or alias.", valueName: "a,b"))
        var models: ModelListArgument?

        @Flag(help: "It may use every model.")
        var allModels = false

        @OptionGroup var region: RegionOptions
        @OptionGroup var limits: LimitOptions
        @OptionGroup var output: OutputOptions

        func validate() throws {
            guard name != nil || !limits.isEmpty || models != nil || allModels || region.value != nil else {
                throw ValidationError("Nothing to change: name at least one option.")
            }
            guard models == nil || !allModels else {
                throw ValidationError("--models and --all-models exclude each other: name one of them.")
            }
        }

        func run() throws {
            var body = limits.members
            if let models { body["models"] = models.value }
            if allModels { body["models"] = .null }
            if let region = region.value { body["region"] = region }
            if let name { body["name"] = .string(name) }
            try Key.present(AdminClient.fromEnvironment().call(.patch, ["keys", id.rawValue], body: body), output)
        }
    }

    struct Revoke: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Refuse a key from now on, for good.",
            discussion: """
                Requests that run are finished and charged.

                Examples:
                  tollgate key revoke 4fT9kQ2mXa7B
                """)

        @Argument(help: "The key's id.")
        var id: KeyID

        @OptionGroup var output: OutputOptions

        func run() throws {
            try Key.present(AdminClient.fromEnvironment().call(.post, ["keys", id.rawValue, "revoke"]), output)
        }
    }

    private static func present(_ key: KeyDocument, _ output: OutputOptions) throws {
        guard !output.json else { return try Output.json(key) }
        var table = TextTable(.left("KEY"), .left(key.id))
        table.add(["org", .init(key.org)])
        table.add(["name", .init(key.name)])
        table.add(["last 4", .init(key.last4)])
        table.add(["status", Present.status(key.status)])
        table.add(["requests a minute", Present.limit(key.rpm)])
        table.add(["tokens a minute", Present.limit(key.tpm)])
        table.add(["concurrency", Present.limit(key.concurrency)])
        table.add(["models", models(key)])
        table.add(["region", .init(key.region ?? "any")])
        table.add(["created", .init(key.createdAt)])
        Output.table(table)
    }

    private static func models(_ key: KeyDocument) -> TextTable.Cell {
        .init(key.models?.joined(separator: ",") ?? "all")
    }
}
