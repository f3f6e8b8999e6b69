import ArgumentParser
import ControlPlane
import Domain

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// `--json`, on every command.
struct OutputOptions: ParsableArguments {
    @Flag(help: "Print one JSON document and nothing else.")
    var json = false
}

/// The limits that orgs and keys share.
struct LimitOptions: ParsableArguments {
    @Option(help: ArgumentHelp("Requests a minute, or 'unlimited'.", valueName: "n"))
    var rpm: LimitArgument?

    @Option(help: ArgumentHelp("Tokens a minute, or 'unlimited'.", valueName: "n"))
    var tpm: LimitArgument?

    @Option(help: ArgumentHelp("Requests at once, or 'unlimited'.", valueName: "n"))
    var concurrency: LimitArgument?

    var isEmpty: Bool { rpm == nil && tpm == nil && concurrency == nil }

    /// The members of a request's body: only those that were given.
    var members: [String: JSONValue] {
        var members: [String: JSONValue] = [:]
        if let rpm { members["rpm"] = rpm.value }
        if let tpm { members["tpm"] = tpm.value }
        if let concurrency { members["concurrency"] = concurrency.value }
        return members
    }
}

/// A whole number above zero, or `unlimited`.
struct LimitArgument: ExpressibleByArgument {
    /// null is unlimited.
    let value: JSONValue

    init?(argument: String) {
        if argument == "unlimited" {
            value = .null
        } else if let number = Int64(argument), number >= 1 {
            value = .integer(number)
        } else {
            return nil
        }
    }
}

/// Names of models, commas between them.
struct ModelListArgument: ExpressibleByArgument {
    let value: JSONValue

    init?(argument: String) {
        let names = argument.split(separator: ",", omittingEmptySubsequences: false).map(String.init)
        guard names.allSatisfy({ ModelID($0) != nil }) else { return nil }
        value = .array(names.map { .string($0) })
    }
}

/// Dollars as people write them: `25`, `0.000001`.
struct DollarArgument: ExpressibleByArgument {
    let amount: NanoUSD

    init?(argument: String) {
        guard let amount = NanoUSD(dollars: argument), amount >= .zero else { return nil }
        self.amount = amount
    }

    /// As the control plane takes it: a decimal string, exact.
    var value: JSONValue { .string(amount.description) }
}

extension Identifier: ExpressibleByArgument {
    package init?(argument: String) { self.init(argument) }
}

extension UTCDate: ExpressibleByArgument {
    package init?(argument: String) { self.init(argument) }
}

extension UsageGrouping: ExpressibleByArgument {}

extension AdminClient {
    /// For the gateway that the environment names.
    static func fromEnvironment() throws(CommandFailure) -> AdminClient {
        try AdminClient(environment: ProcessInfo.processInfo.environment)
    }
}
