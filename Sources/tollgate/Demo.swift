import ArgumentParser
import ControlPlane
import Domain
import Gateway
import Logging
import NIOPosix
import ServiceLifecycle
import Simulator

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif
#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// `tollgate demo`: everything on one machine, ready for the first request.
struct Demo: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "demo",
        abstract: "Run a gateway with its own Redis and simulated GPU nodes, and print how to call it.",
        discussion: """
            The private Redis keeps its data under --data, so orgs, keys and balances outlive a restart; the demo's \
            own key is made anew at each start and the last one revoked. SIGINT or SIGTERM stops everything.

            EXAMPLES
              tollgate demo
              tollgate demo --port 9000 --nodes 8 --json
              tollgate demo --backend http://127.0.0.1:8000 --backend-model qwen --backend-engine vllm
            """)

    static let nodesMax = 64

    @Option(help: "The data plane's port; 0 takes a free one.")
    var port = 8080

    @Option(help: "The control plane's port; 0 takes a free one.")
    var adminPort = 8081

    @Option(help: "Where Redis and the journal keep their files. (default: ~/.local/state/tollgate/demo)")
    var data: String?

    @Option(help: "How many simulated nodes.")
    var nodes = 3

    @Option(help: "A real model server instead of simulated nodes; may be repeated, each with its --backend-model.")
    var backend: [String] = []

    @Option(help: "The model that the real server knows; its name here too.")
    var backendModel: [String] = []

    @Option(help: "What the real servers run: vllm, sglang, llamacpp or openai.")
    var backendEngine = "openai"

    @Flag(help: "Print one JSON document instead of text.")
    var json = false

    func validate() throws {
        guard (1...Self.nodesMax).contains(nodes) else {
            throw ValidationError("--nodes takes a number from 1 to \(Self.nodesMax)")
        }
        guard backend.count == backendModel.count else {
            throw ValidationError("each --backend needs a --backend-model")
        }
        guard Engine(rawValue: backendEngine) != nil else {
            throw ValidationError("--backend-engine takes vllm, sglang, llamacpp or openai")
        }
    }

    mutating func run() async throws {
        let directory = try DemoDirectory(path: data)
        let redis = try await DemoRedis.start(directory: directory)
        do {
            try await run(directory, redis)
        } catch {
            redis.stop()
            throw error
        }
        redis.stop()
    }

    private func run(_ directory: DemoDirectory, _ redis: DemoRedis) async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        var simulated: [SimulatedNode] = []
        if backend.isEmpty { simulated = try await DemoFleet.simulate(nodes, on: group) }
        let token = DemoSecret.random()
        let configuration = try gatewayConfiguration(directory, redis, token: token, simulated: simulated)
        let logger = GatewayLog.logger(.notice)
        let server = try await Serve.start(configuration, try Peppers(directory.pepper()), logger)
        let secret = try await DemoAccount(store: server.operators).freshKey()
        await ready(server)
        let greeting = DemoGreeting(
            port: server.port, token: token, key: secret, model: configuration.models[0].id.rawValue,
            org: DemoAccount.org)
        let isJSON = json
        try await GatewayProcess(
            server: server, configuration: configuration, logger: logger,
            onListening: { port in greeting.print(adminPort: port, asJSON: isJSON) }
        ).run()
        for node in simulated { try? await node.stop() }
        try? await group.shutdownGracefully()
    }

    // MARK: Configuration

    private func gatewayConfiguration(
        _ directory: DemoDirectory, _ redis: DemoRedis, token: String, simulated: [SimulatedNode]
    ) throws -> GatewayConfiguration {
        var configuration = GatewayConfiguration(
            listen: ListenAddress(host: "127.0.0.1", port: port),
            admin: AdminConfiguration(listen: ListenAddress(host: "127.0.0.1", port: adminPort), token: Secret(token)),
            redisURL: Secret(redis.url), eventLoops: max(1, ProcessInfo.processInfo.activeProcessorCount))
        configuration.journal.directory = directory.journal
        // Whoever tries this out is everybody's neighbour: one address, and keys typed by hand.
        configuration.listener.failedKeys = nil
        configuration.accessLog = .file(path: directory.accessLog)
        let fleet = backend.isEmpty ? DemoFleet(simulated: simulated) : try DemoFleet(servers: realServers())
        configuration.models = fleet.models
        configuration.sites = fleet.sites
        configuration.nodes = fleet.nodes
        return configuration
    }

    private func realServers() throws -> [DemoFleet.Server] {
        try zip(backend, backendModel).map { url, model in
            let parsed: NodeURL
            do throws(UnitFailure) {
                parsed = try ConfigurationUnits.nodeURL(url)
            } catch {
                throw CommandFailure("--backend \(url): \(error)")
            }
            guard let id = ModelID(model) else {
                throw CommandFailure("--backend-model \(model): use letters, digits and . _ - / : only, 64 at most")
            }
            return DemoFleet.Server(url: parsed, model: id, engine: Engine(rawValue: backendEngine) ?? .openai)
        }
    }

    /// The lines that are printed must work when pasted at once: wait for the first node to answer its probe.
    private func ready(_ server: GatewayServer) async {
        let deadline = MonotonicTime.now().advanced(by: .seconds(5))
        while MonotonicTime.now() < deadline {
            if await server.nodes().contains(where: { $0.state == .ready }) { return }
            try? await Task.sleep(for: .milliseconds(20))
        }
        Output.note("no node is ready yet: requests get 503 until one answers")
    }
}

/// What the demo prints once everything listens.
private struct DemoGreeting: Sendable {
    let port: Int
    let token: String
    let key: String
    let model: String
    let org: OrgID

    private struct Document: Encodable {
        let baseURL, apiKey, model, org, adminURL, adminToken, curl, python: String

        enum CodingKeys: String, CodingKey {
            case baseURL = "base_url"
            case apiKey = "api_key"
            case model, org
            case adminURL = "admin_url"
            case adminToken = "admin_token"
            case curl, python
        }
    }

    private var baseURL: String { "http://127.0.0.1:\(port)/v1" }

    private var curl: String {
        """
        curl \(baseURL)/chat/completions -H 'Authorization: Bearer \(key)' \
        -H 'Content-Type: application/json' \
        -d '{"model":"\(model)","messages":[{"role":"user","content":"Hello"}],"max_tokens":64}'
        """
    }

    private var python: String {
        """
        from openai import OpenAI
        client = OpenAI(base_url="\(baseURL)", api_key="\(key)")
        print(client.chat.completions.create(model="\(model)", max_tokens=64, messages=[{"role": "user", "content": "Hello"}]).choices[0].message.content)
        """
    }

    func print(adminPort: Int, asJSON: Bool) {
        let adminURL = "http://127.0.0.1:\(adminPort)"
        if asJSON {
            try? Output.json(
                Document(
                    baseURL: baseURL, apiKey: key, model: model, org: org.rawValue, adminURL: adminURL,
                    adminToken: token, curl: curl, python: python))
            return
        }
        Output.line(
            """
            Tollgate is serving.

              base URL     \(baseURL)
              API key      \(key)
              model        \(model)
              admin URL    \(adminURL)
              admin token  \(token)

            Ask it something:

            \(curl)

            Or with the OpenAI client (pip install openai):

            \(python)

            Look after it, in another terminal:

            export TOLLGATE_ADMIN_URL=\(adminURL) TOLLGATE_ADMIN_TOKEN=\(token)
            tollgate org show \(org)
            tollgate ledger list --org \(org)
            tollgate node list

            Ctrl-C stops everything.
            """)
    }
}
