import ArgumentParser
import ControlPlane
import Gateway

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

struct Config: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "The configuration file.",
        subcommands: [Check.self]
    )

    struct Check: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Check a configuration file without starting anything.",
            discussion: """
                Variables such as ${NODE_KEY} are taken from the environment. Exits 1 and names file, line and key if
                something is wrong.

                Examples:
                  tollgate config check tollgate.yaml
                """)

        @Argument(help: "The file.", completion: .file(extensions: ["yaml", "yml"]))
        var file: String

        @OptionGroup var output: OutputOptions

        /// What `--json` prints for a file that is valid; one that is not ends with exit 1.
        private struct Verdict: Encodable {
            var file: String
            var valid = true
            var warnings: [String]
        }

        func run() throws {
            let warnings: [String]
            do {
                warnings = try ConfigurationLoader.load(file: file, environment: ProcessInfo.processInfo.environment)
                    .warnings
            } catch {
                throw CommandFailure("\(error)")
            }
            if output.json {
                try Output.json(Verdict(file: file, warnings: warnings))
            } else {
                for warning in warnings { Output.note("warning: \(warning)") }
                Output.line("\(file) is valid.")
            }
        }
    }
}
