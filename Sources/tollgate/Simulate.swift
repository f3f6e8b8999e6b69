import ArgumentParser
import Domain
import ServiceLifecycle
import Simulator

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// `tollgate simulate`: model servers without a GPU.
struct Simulate: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "simulate", abstract: "Run model servers without a GPU, and fleets of them in virtual time.",
        subcommands: [Node.self, Fleet.self])
}

extension Simulate {
    /// `tollgate simulate node`: one live HTTP node until SIGINT or SIGTERM.
    struct Node: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "node",
            abstract: "Run a simulated GPU node that answers as vLLM does.",
            discussion: """
                Serves /v1/chat/completions, /v1/completions, /v1/embeddings, /v1/models, /tokenize, /health and \
                /metrics. POST /fault sets a fault plan, an empty one lifts it.

                EXAMPLES
                  tollgate simulate node --port 8001 --model llama-3.1-8b
                  tollgate simulate node --port 8002 --model llama-3.1-8b --profile l40-8b --speed 10
                  tollgate simulate node --port 8003 --model m --speed inf --fault 'die:20@every 5,first_token:3s@p 0.1'
                  curl -d 'status:500@after 10' http://127.0.0.1:8003/fault
                  TOLLGATE_JOIN_TOKEN=... tollgate simulate node --port 8004 --model llama-3.1-8b \
                --join http://127.0.0.1:8081 --join-site austin

                FAULTS (comma-separated, each with an optional @every N, @after N or @p X)
                  refuse, status:500, loading:5s, first_token:3s, die:20, stall:20, bad_json, close, usage:+50%, \
                no_usage, no_done, overrun:10
                """)

        @Option(help: "The port to listen on; 0 takes a free one.")
        var port: Int

        @Option(help: "The model that it serves.")
        var model: String

        @Option(help: "The address to listen on.")
        var host = SimulatedNode.Configuration.hostDefault

        @Option(help: "The GPU: \(NodeProfile.all.map(\.name).joined(separator: ", ")).", transform: Self.profile)
        var profile = NodeProfile.h100

        @Option(help: "Divides all times; 0 or inf answers without any delay.", transform: Self.speed)
        var speed = NodeSpeed.times(1)

        @Option(help: "A fault plan.", transform: Self.fault)
        var fault = FaultPlan.none

        @Option(help: "Of lengths, texts and random faults: equal seeds give equal answers.")
        var seed: UInt64 = 1

        @Option(help: "The engine label of its metrics.")
        var engineName = "0"

        @Option(help: "Ask for this bearer token on everything under /v1.")
        var apiKey: String?

        @Option(help: "Tokens of context, prompt and completion together.")
        var contextTokens = 131_072

        @OptionGroup var membership: JoinOptions

        @Flag(help: "Print one JSON document once it listens.")
        var json = false

        func validate() throws {
            guard (0...65_535).contains(port) else { throw ValidationError("--port must be 0 to 65535.") }
            guard !model.isEmpty, model.utf8.count <= 256 else {
                throw ValidationError("--model must have 1 to 256 bytes.")
            }
            guard (16...100_000_000).contains(contextTokens) else {
                throw ValidationError("--context-tokens must be 16 to 100000000.")
            }
        }

        func run() async throws {
            var configuration = SimulatedNode.Configuration(model: model)
            configuration.host = host
            configuration.port = port
            configuration.profile = profile
            configuration.speed = speed
            configuration.fault = fault
            configuration.seed = seed
            configuration.engineName = engineName
            configuration.apiKey = apiKey
            configuration.contextTokensMax = contextTokens
            let node: SimulatedNode
            do {
                node = try await SimulatedNode.start(configuration: configuration)
            } catch {
                throw CannotListen(
                    description: "cannot listen on \(host):\(port) (\(error)); choose another --port or --host")
            }
            print(json ? node.summary : "\(model) on \(profile.name) at \(node.baseURL)/v1")
            // Into a pipe, whose reader waits for this line, standard output would hold it back.
            fflush(nil)
            let services: [any Service] =
                [
                    try membership.membership(
                        model: model, baseURL: node.baseURL, port: node.port, profile: profile.name)
                ].compactMap(\.self) + [NodeService(node: node)]
            let group = ServiceGroup(
                configuration: ServiceGroupConfiguration(
                    services: services.map {
                        .init(service: $0, successTerminationBehavior: .gracefullyShutdownGroup)
                    },
                    gracefulShutdownSignals: [.sigterm, .sigint], logger: .init(label: "simulate")))
            try await group.run()
        }

        private static func profile(_ text: String) throws -> NodeProfile {
            guard let profile = NodeProfile.named(text) else {
                throw ValidationError(
                    "'\(text)' is no profile; use one of \(NodeProfile.all.map(\.name).joined(separator: ", ")).")
            }
            return profile
        }

        private static func speed(_ text: String) throws -> NodeSpeed {
            guard let speed = NodeSpeed(text) else {
                throw ValidationError("'\(text)' is no speed; use a number such as 1 or 10, or 'inf' for no delays.")
            }
            return speed
        }

        private static func fault(_ text: String) throws -> FaultPlan {
            do {
                return try FaultPlan(parsing: text)
            } catch {
                throw ValidationError(error.message)
            }
        }
    }
}

private struct CannotListen: Error, CustomStringConvertible {
    let description: String
}

/// Keeps the process until a signal, then stops the node.
private struct NodeService: Service {
    let node: SimulatedNode

    func run() async throws {
        try? await gracefulShutdown()
        try await node.stop()
    }
}
