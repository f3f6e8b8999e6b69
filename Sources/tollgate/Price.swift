import ArgumentParser
import ControlPlane
import Domain

struct Price: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "What models cost.",
        subcommands: [List.self, Set.self]
    )

    struct List: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List the price of each model, in US dollars per million tokens.",
            discussion: """
                Examples:
                  tollgate price list
                """)

        @OptionGroup var output: OutputOptions

        func run() throws {
            let prices: [PriceDocument] = try AdminClient.fromEnvironment().call(.get, ["prices"])
            guard !output.json else { return try Output.json(prices) }
            var table = TextTable(
                .left("MODEL"), .right("INPUT"), .right("CACHED INPUT"), .right("OUTPUT"), .right("VERSION"),
                .left("SINCE"))
            for price in prices {
                table.add([
                    .init(price.model), Present.money(price.input), Present.money(price.cachedInput),
                    Present.money(price.output), Present.count(price.priceVersion), .init(price.at),
                ])
            }
            Output.table(table)
        }
    }

    struct Set: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Set a model's price, in US dollars per million tokens.",
            discussion: """
                Requests that run are charged at the price they began with.

                Examples:
                  tollgate price set llama-3.1-8b --input 0.05 --cached-input 0.01 --output 0.08
                """)

        @Argument(help: "The model's public id.")
        var model: ModelID

        @Option(help: ArgumentHelp("Prompt tokens that no node had cached.", valueName: "usd"))
        var input: DollarArgument

        @Option(help: ArgumentHelp("Prompt tokens from a node's cache.", valueName: "usd"))
        var cachedInput: DollarArgument

        @Option(help: ArgumentHelp("Completion tokens.", valueName: "usd"))
        var output: DollarArgument

        @OptionGroup var outputOptions: OutputOptions

        func run() throws {
            let price: PriceDocument = try AdminClient.fromEnvironment().call(
                .put, ["prices", model.rawValue],
                body: [
                    "input_usd": input.value, "cached_input_usd": cachedInput.value, "output_usd": output.value,
                ])
            guard !outputOptions.json else { return try Output.json(price) }
            Output.line(
                "\(price.model) costs \(NanoUSD(unchecked: price.input)) in, "
                    + "\(NanoUSD(unchecked: price.cachedInput)) cached in and \(NanoUSD(unchecked: price.output)) out, "
                    + "USD per million tokens, version \(price.priceVersion).")
        }
    }
}
