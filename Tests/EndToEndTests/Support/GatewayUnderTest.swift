import Domain
import Foundation
import JSON
import Simulator
import Support

/// A `tollgate serve` process with its own Redis and the nodes that a test gives it, all on free loopback ports.
///
/// Prices: ``inputPrice``, ``cachedPrice`` and ``outputPrice`` nano-dollars a token for every model, so that amounts are
/// checked to the nano-dollar.
final class GatewayUnderTest: @unchecked Sendable {
    // SAFETY: what changes (process and ports) is changed by start, kill and restart only, which no test calls beside
    // its other use of the gateway.

    static let inputPrice = 1_000
    static let cachedPrice = 500
    static let outputPrice = 2_000
    static let pepper = "canary-pepper-7f3a9c51d2e84b60a1c9e8d7f6b5a493"
    static let adminToken = "canary-admin-token-1b2c3d4e5f60718293a4b5c6d7e8f901"
    static let startTimeout = Duration.seconds(30)

    let plan: GatewayPlan
    let directory: String
    let redis: RedisServerProcess
    private(set) var process: TollgateProcess
    private(set) var port = 0
    private(set) var adminPort = 0
    private var starts = 0

    var configurationFile: String { "\(directory)/tollgate.yaml" }
    var journalDirectory: String { "\(directory)/journal" }

    /// Starts everything; returns when the gateway is ready and every node of the plan too.
    static func start(_ plan: GatewayPlan, redis: RedisServerProcess? = nil) async throws -> GatewayUnderTest {
        let gateway = try GatewayUnderTest(plan, redis: redis)
        try await gateway.waitUntilReady()
        return gateway
    }

    /// Starts it without waiting.
    init(_ plan: GatewayPlan, redis: RedisServerProcess? = nil, journal: String? = nil) throws {
        self.plan = plan
        var template = Array("/tmp/tollgate-e2e-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw Wire.Failure.system(call: "mkdtemp", errno: errno) }
        directory = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        self.redis = try redis ?? RedisServerProcess.start()
        let text = plan.yaml(redisURL: self.redis.url, journal: journal ?? "\(directory)/journal")
        try text.write(toFile: "\(directory)/tollgate.yaml", atomically: true, encoding: .utf8)
        process = try Self.launch(directory, number: 1, plan)
        starts = 1
    }

    deinit {
        process.end(SIGKILL)
        try? FileManager.default.removeItem(atPath: directory)
    }

    private static func launch(_ directory: String, number: Int, _ plan: GatewayPlan) throws -> TollgateProcess {
        try TollgateProcess(
            arguments: ["serve", "--config", "\(directory)/tollgate.yaml"],
            environment: ["TOLLGATE_PEPPER": "p1:\(pepper)", "E2E_ADMIN_TOKEN": adminToken]
                .merging(plan.environment) { $1 },
            directory: directory, name: "gateway-\(number)")
    }

    /// Starts the gateway again on the same files, after ``kill()`` or a stop.
    func restart() async throws {
        try relaunch()
        try await waitUntilReady()
    }

    /// The same without waiting.
    func relaunch() throws {
        process.end(SIGKILL)
        starts += 1
        process = try Self.launch(directory, number: starts, plan)
    }

    /// `kill -9`, and the end of the process.
    func kill() { process.end(SIGKILL) }

    /// SIGTERM, and how the process ended.
    @discardableResult
    func stop(within limit: Duration = .seconds(20)) async throws -> TollgateProcess.Exit {
        process.signal(SIGTERM)
        return try await process.wait(within: limit)
    }

    func waitUntilReady() async throws {
        try await waitUntilListening()
        try await until("the gateway's and its nodes' readiness", within: Self.startTimeout) {
            guard try await self.isReady() else { return false }
            return try await self.nodeStates().allSatisfy { $0.value == "ready" || $0.value == "cordoned" }
        }
    }

    func waitUntilListening() async throws {
        (port, adminPort) = try await eventually("the gateway's listeners", within: Self.startTimeout) {
            guard self.process.isRunning else { throw NotInTime("the gateway ended: \(self.process.errors)") }
            return Self.ports(in: self.process.errors)
        }
    }

    private static func ports(in log: String) -> (Int, Int)? {
        var data: Int?
        var admin: Int?
        for line in log.split(separator: "\n") {
            if line.contains("control plane listening") {
                admin = line.firstRange(of: "port=").flatMap { number(in: line[$0.upperBound...]) }
            } else if line.contains("listening"), let found = line.firstRange(of: "address=127.0.0.1:") {
                data = number(in: line[found.upperBound...])
            }
        }
        guard let data, let admin else { return nil }
        return (data, admin)
    }

    private static func number(in text: Substring) -> Int? { Int(text.prefix { $0.isNumber }) }

    // MARK: Talking to it

    func connect(receiveBufferBytes: Int32? = nil) throws -> Wire {
        try Wire(port: port, receiveBufferBytes: receiveBufferBytes)
    }

    /// One request on a connection of its own.
    func ask(_ ask: Ask) async throws -> Answer {
        let port = port
        return try await blocking {
            let wire = try Wire(port: port)
            try wire.send(ask)
            return try wire.response()
        }
    }

    /// Blocking work with a connection.
    func wire<Value: Sendable>(_ work: @escaping @Sendable (Wire) throws -> Value) async throws -> Value {
        let port = port
        return try await blocking { try work(Wire(port: port)) }
    }

    func isReady() async throws -> Bool { try await adminAnswer("GET", "/readyz").status == 200 }

    func metrics() async throws -> String { try await adminAnswer("GET", "/metrics").text }

    /// The value of a metric without labels, found without reading all the others.
    func gauge(_ name: String) async throws -> Int {
        let text = try await metrics()
        guard let found = text.firstRange(of: "\n\(name) ") else { throw NotInTime("no metric \(name)") }
        return Int(text[found.upperBound...].prefix { $0 != "\n" }) ?? -1
    }

    func adminAnswer(_ method: String, _ path: String, _ body: String? = nil) async throws -> Answer {
        let port = adminPort
        return try await blocking {
            let wire = try Wire(port: port)
            var ask = Ask(method: method, path: path, key: Self.adminToken, body: body.map { Array($0.utf8) })
            ask.headers.append(("Connection", "close"))
            try wire.send(ask)
            return try wire.response()
        }
    }

    @discardableResult
    func admin(_ method: String, _ path: String, _ body: String? = nil) async throws -> JSONValue {
        let answer = try await adminAnswer(method, path, body)
        guard (200..<300).contains(answer.status) else {
            throw NotInTime("\(method) \(path) said \(answer.status): \(answer.text)")
        }
        return try answer.json()
    }

    func nodeStates() async throws -> [String: String] {
        let nodes = try await admin("GET", "/admin/v1/nodes").array ?? []
        return Dictionary(uniqueKeysWithValues: nodes.map { ($0["id"]?.string ?? "", $0["state"]?.string ?? "") })
    }

    // MARK: Logs

    var log: String {
        (1...starts).map { TollgateProcess.text(of: "\(directory)/gateway-\($0).err") }.joined()
    }

    /// Lines of the access log so far.
    var accessLines: [JSONValue] {
        (1...starts).flatMap { number in
            TollgateProcess.text(of: "\(directory)/gateway-\(number).out").split(separator: "\n")
                .compactMap { try? JSONValue(parsing: String($0)) }
        }
    }

    /// The line of one request, waited for: the log is written behind the answers.
    func accessLine(of requestID: String) async throws -> JSONValue {
        try await eventually("an access-log line of \(requestID)") { () -> JSONValue? in
            self.accessLines.first { $0["request_id"]?.string == requestID }
        }
    }
}

/// What a gateway under test is configured with.
struct GatewayPlan {
    struct Node {
        var id: String
        var port: Int
        /// Public id to the node's name.
        var models: [String: String]
        var engine = "vllm"
        var site = "here"
        var concurrency = 256
        var apiKey: String?
        /// `https://localhost` for a node behind TLS.
        var base = "http://127.0.0.1"
        /// A file, relative to the configuration.
        var ca: String?
    }

    struct Model {
        var id: String
        /// Further members, as YAML: `timeouts: { first_byte: 1s }`.
        var options: [String] = []
        /// USD per million tokens: input, cached input, output.
        var price = ("1.0", "0.5", "2.0")
    }

    var nodes: [Node] = []
    var models: [Model] = []
    /// Whole sections, as YAML lines.
    var sections: [String] = []
    var loops = 2
    /// Of the gateway, besides what every one is given.
    var environment: [String: String] = [:]
    var sites: [(id: String, region: String)] = [("here", "test"), ("there", "test")]

    /// Adds a node that serves one model of its own, under the same id and another name upstream.
    mutating func serve(_ model: String, port: Int, engine: String = "vllm", options: [String] = []) {
        models.append(Model(id: model, options: options))
        nodes.append(Node(id: "node-\(model)", port: port, models: [model: Self.upstreamName(model)], engine: engine))
    }

    static func upstreamName(_ model: String) -> String { "upstream/\(model)" }

    func yaml(redisURL: String, journal: String) -> String {
        var lines = [
            "listen: 127.0.0.1:0", "admin: { listen: 127.0.0.1:0, token: \"${E2E_ADMIN_TOKEN}\" }",
            "redis: { url: \(redisURL) }", "journal: { directory: \(journal) }", "event_loops: \(loops)",
            "sites: [ " + sites.map { "{ id: \($0.id), region: \($0.region) }" }.joined(separator: ", ") + " ]",
        ]
        if !sections.contains(where: { $0.hasPrefix("org_defaults:") }) {
            lines.append("org_defaults: { rpm: unlimited, tpm: unlimited, concurrency: unlimited }")
        }
        // All tests come from one address, and many of them with bad keys.
        if !sections.contains(where: { $0.hasPrefix("failed_keys:") }) {
            lines.append("failed_keys: { per_address: unlimited }")
        }
        lines += sections
        lines.append("models:")
        for model in models {
            lines.append("  - id: \(model.id)")
            lines.append("    template_tokens_max: 64")
            let price = model.price
            lines.append("    price: { input: \(price.0), cached_input: \(price.1), output: \(price.2) }")
            lines += model.options.map { "    \($0)" }
        }
        lines.append("nodes:")
        for node in nodes {
            let models = node.models.sorted { $0.key < $1.key }.map { "\($0.key): \($0.value)" }
            lines.append("  - id: \(node.id)")
            lines.append("    site: \(node.site)")
            lines.append("    url: \(node.base):\(node.port)")
            if let ca = node.ca { lines.append("    ca: \(ca)") }
            lines.append("    engine: \(node.engine)")
            lines.append("    max_concurrency: \(node.concurrency)")
            if let key = node.apiKey { lines.append("    api_key: \(key)") }
            lines.append("    models: { \(models.joined(separator: ", ")) }")
        }
        return lines.joined(separator: "\n") + "\n"
    }
}

extension SimulatedNode {
    /// The last request whose body has the mark in it. Waited for: what a node tells of itself comes behind its answers.
    func recorded(_ mark: String) async throws -> NodeStatistics.RecordedRequest {
        func find(_ stats: NodeStatistics) -> NodeStatistics.RecordedRequest? {
            stats.recorded.last { String(decoding: $0.body, as: UTF8.self).contains("\"\(mark)\"") }
        }
        return try await eventually("a request marked \(mark)") { find(self.stats) }
    }

    /// A node that serves `model` under its upstream name.
    static func serving(
        _ model: String, speed: NodeSpeed = .instant, fault: String = "", apiKey: String? = nil
    ) async throws -> SimulatedNode {
        var configuration = Configuration(model: GatewayPlan.upstreamName(model))
        configuration.speed = speed
        configuration.fault = try FaultPlan(parsing: fault)
        configuration.recordBodies = true
        configuration.apiKey = apiKey
        return try await start(configuration: configuration)
    }
}
