import ArgumentParser
import ControlPlane
import Domain

@main
struct Tollgate: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "tollgate",
        abstract: "An inference gateway that is exact about GPUs and about money.",
        discussion: """
            Commands other than serve, demo, simulate, config, tokenize and bench call the control plane of a running gateway:
              TOLLGATE_ADMIN_URL    where it is; default http://127.0.0.1:8081
              TOLLGATE_ADMIN_TOKEN  its token

            Examples:
              tollgate demo
              tollgate org create acme --credit 25
              tollgate key create --org acme --json
              tollgate usage --org acme --by model
            """,
        subcommands: [
            Serve.self, Demo.self, Simulate.self, Org.self, Key.self, Price.self, Usage.self, Ledger.self, Node.self,
            Site.self, Config.self, Tokenize.self, Bench.self,
        ]
    )

    /// ArgumentParser prints a usage text under each error; what the user asked for is one line that says what to do.
    static func main() async {
        let arguments = Array(CommandLine.arguments.dropFirst())
        do {
            var command = try await asyncParseAsRoot(arguments)
            if var asynchronous = command as? any AsyncParsableCommand {
                try await asynchronous.run()
            } else {
                try command.run()
            }
        } catch let failure as CommandFailure {
            Output.end(failure.description, code: ExitCode.failure.rawValue)
        } catch {
            let code = exitCode(for: error)
            if code == .validationFailure {
                Output.end(
                    "\(oneLine(message(for: error))); see '\(commandPath(arguments)) --help'", code: code.rawValue)
            }
            let text = message(for: error)
            if code == .success || text.isEmpty { exit(withError: error) }
            Output.end(oneLine(text), code: code.rawValue)
        }
    }

    private static func oneLine(_ text: String) -> String {
        var line = text.split(whereSeparator: \.isNewline).map { $0.trimmingSpaces }.joined(separator: " ")
        while line.hasSuffix(".") { line.removeLast() }
        return line
    }

    /// The command that the arguments name, as far as they name one: `tollgate org create`.
    private static func commandPath(_ arguments: [String]) -> String {
        var path = "tollgate"
        var command: any ParsableCommand.Type = Tollgate.self
        for argument in arguments {
            guard let next = command.configuration.subcommands.first(where: { $0._commandName == argument }) else {
                break
            }
            path += " \(argument)"
            command = next
        }
        return path
    }
}

extension Substring {
    fileprivate var trimmingSpaces: Substring {
        let front = drop { $0 == " " }
        return front.lastIndex { $0 != " " }.map { front[...$0] } ?? ""
    }
}
