import Billing
import Domain
import Routing
import Testing

@testable import Gateway

private let environment = ["TOLLGATE_ADMIN_TOKEN": "0123456789abcdef0123456789abcdef", "NODE_KEY": "sk-node"]

/// The example of the interface, less what is not built yet.
private let example = """
    listen: 0.0.0.0:8080
    admin: { listen: 127.0.0.1:8081, token: "${TOLLGATE_ADMIN_TOKEN}" }
    redis: { url: redis://127.0.0.1:6379/0 }
    journal: { directory: /var/lib/tollgate/journal, sync: fsync }
    limits: { body_bytes: 8MiB, header_bytes: 32KiB, buffered_bytes: 256MiB, connections: 20000 }
    timeouts: { header: 10s, body: 60s, idle: 75s, connect: 250ms, first_byte: 120s, stream_idle: 60s, request: 10m, drain: 0s }
    retry: { attempts: 3, budget: 2.5% }    # attempts in all
    leases: { enabled: false }
    event_loops: 3
    access_log: off
    models:
      - id: llama-3.1-8b
        context_tokens: 131072
        max_output_tokens: 4096
        image_tokens_max: 1000
        template_tokens_max: 32
        attention_tokens: 48000
        timeouts: { first_byte: 2m, stream_idle: 5s }
        price: { input: 0.05, cached_input: 0.010000001, output: 123 }
      - id: embed
        price: { input: 0.1, output: 0 }
    sites:
      - { id: austin, region: us-tx, rtt: 12ms }
      - id: home
    nodes:
      - id: austin-01
        site: austin
        url: http://10.0.0.5:8000/base/
        engine: vllm
        class: h100
        models: { llama-3.1-8b: meta-llama/Llama-3.1-8B-Instruct, embed: bge }
        max_concurrency: 16
        api_key: ${NODE_KEY}
      - { id: home-01, site: home, url: "http://[::1]", engine: llamacpp, models: { embed: e } }
    queue: { requests: 50, deadline: 1500ms, priority_orgs: [acme] }
    routing: { policy: least_requests, objective: { ttft: 500ms, tpot: 20ms }, explain_header: true }
    org_defaults: { rpm: 60, tpm: unlimited, concurrency: 4, keys: 10 }
    """

private let minimal = "admin: { token: \"${TOLLGATE_ADMIN_TOKEN}\" }\n"

private func parse(
    _ yaml: String, environment: [String: String] = environment
) throws(ConfigurationFailure) -> GatewayConfiguration {
    try ConfigurationLoader.parse(yaml: yaml, fileName: "gate.yaml", environment: environment)
}

/// What parsing says is wrong, a line each; empty where nothing is.
private func problems(_ yaml: String, environment: [String: String] = environment) -> [String] {
    do throws(ConfigurationFailure) {
        _ = try parse(yaml, environment: environment)
        return []
    } catch {
        return error.problems.map(\.description)
    }
}

struct ConfigurationTests {
    // MARK: What is read

    @Test func everyBuiltKeyIsRead() throws {
        let read = try parse(example)
        #expect(read.listen == ListenAddress(host: "0.0.0.0", port: 8080))
        #expect(read.admin.listen == ListenAddress(host: "127.0.0.1", port: 8081))
        #expect(read.admin.token.reveal() == "0123456789abcdef0123456789abcdef")
        #expect(read.redisURL.reveal() == "redis://127.0.0.1:6379/0")
        #expect(read.journal == JournalSettings(directory: "/var/lib/tollgate/journal", sync: .fsync))
        #expect(
            read.limits
                == LimitsConfiguration(
                    bodyBytes: 8_388_608, headerBytes: 32_768, bufferedBytes: 268_435_456, connections: 20_000))
        #expect(
            read.timeouts
                == TimeoutsConfiguration(
                    header: .seconds(10), body: .seconds(60), idle: .seconds(75), connect: .milliseconds(250),
                    firstByte: .seconds(120), streamIdle: .seconds(60), request: .seconds(600), drain: .zero))
        #expect(read.retry == RetryConfiguration(attempts: 3, budgetPermille: 25))
        var llama = ModelConfiguration(
            id: ModelID(unchecked: "llama-3.1-8b"), contextTokens: 131_072, maxOutputTokens: 4_096,
            imageTokensMax: 1_000, templateTokensMax: 32, firstByte: .seconds(120), streamIdle: .seconds(5),
            price: ConfiguredPrice(input: 50_000_000, cachedInput: 10_000_001, output: 123_000_000_000))
        llama.attentionTokens = 48_000
        #expect(
            read.models == [
                llama,
                ModelConfiguration(
                    id: ModelID(unchecked: "embed"),
                    price: ConfiguredPrice(input: 100_000_000, cachedInput: 100_000_000, output: 0)),
            ])
        #expect(
            read.sites == [
                SiteConfiguration(id: SiteID(unchecked: "austin"), region: "us-tx", rtt: .milliseconds(12)),
                SiteConfiguration(id: SiteID(unchecked: "home")),
            ])
        #expect(
            read.nodes == [
                NodeConfiguration(
                    id: NodeID(unchecked: "austin-01"), site: SiteID(unchecked: "austin"),
                    url: NodeURL(host: "10.0.0.5", port: 8_000, basePath: "/base"), engine: .vllm, speedClass: "h100",
                    models: [
                        ServedModel(
                            model: ModelID(unchecked: "llama-3.1-8b"), upstreamName: "meta-llama/Llama-3.1-8B-Instruct"),
                        ServedModel(model: ModelID(unchecked: "embed"), upstreamName: "bge"),
                    ], maxConcurrency: 16, apiKey: Secret("sk-node")),
                NodeConfiguration(
                    id: NodeID(unchecked: "home-01"), site: SiteID(unchecked: "home"),
                    url: NodeURL(host: "::1", port: 80), engine: .llamacpp,
                    models: [ServedModel(model: ModelID(unchecked: "embed"), upstreamName: "e")]),
            ])
        #expect(read.routing.policy == .leastRequests)
        #expect(
            read.routing.objective
                == RoutingObjective(firstToken: .milliseconds(500), perOutputToken: .milliseconds(20)))
        #expect(read.routing.explainsInHeader)
        #expect(
            read.queue
                == QueueConfiguration(
                    requests: 50, deadline: .milliseconds(1_500), priorityOrgs: [OrgID(unchecked: "acme")]))
        #expect(read.admissionLimits.requestsMax == 50)
        #expect(read.admissionLimits.waitSecondsMax == 0.75)
        #expect(read.admissionLimits.bytesMax == read.limits.bufferedBytes / 2)
        #expect(read.nodeSpecs.map(\.region) == ["us-tx", nil])
        #expect(
            read.orgDefaults
                == OrgDefaults(
                    limits: Limits(requestsPerMinute: 60, tokensPerMinute: nil, concurrency: 4), keysMax: 10))
        #expect(read.eventLoops == 3)
        #expect(read.accessLog == .off)
        #expect(read.warnings == [])
        #expect(read.nodeSpecs.map(\.rttNanoseconds) == [12_000_000, 0])
    }

    @Test func silenceMeansTheDocumentedDefaults() throws {
        let read = try parse(minimal)
        let defaults = GatewayConfiguration(admin: read.admin, eventLoops: read.eventLoops)
        #expect(read.listen == ListenAddress(host: "0.0.0.0", port: 8_080))
        #expect(read.admin.listen == ListenAddress(host: "127.0.0.1", port: 8_081))
        #expect(read.limits == defaults.limits)
        #expect(read.timeouts == defaults.timeouts)
        #expect(read.timeouts.request == .seconds(600))
        #expect(read.retry == RetryConfiguration(attempts: 2, budgetPermille: 100))
        #expect(read.redisURL.reveal() == "redis://127.0.0.1:6379/0")
        #expect(read.journal.sync == .interval)
        #expect(read.routing == RoutingConfiguration())
        #expect(read.routing.policy == RoutingConfiguration.policyDefault)
        #expect(read.queue == QueueConfiguration(requests: 1_000, deadline: .seconds(30), priorityOrgs: nil))
        #expect(read.orgDefaults.limits.requestsPerMinute == 600)
        #expect(read.orgDefaults.keysMax == 100)
        #expect(read.accessLog == .standardOutput)
        #expect(1...GatewayConfiguration.eventLoopsMax ~= read.eventLoops)
        #expect(read.warnings == ["gate.yaml:1: models: no model is configured: nothing can be asked for"])
    }

    @Test func environmentOverridesTheRedisURL() throws {
        var overridden = environment
        overridden["TOLLGATE_REDIS_URL"] = "unix:///run/redis.sock"
        #expect(try parse(example, environment: overridden).redisURL.reveal() == "unix:///run/redis.sock")
        overridden["TOLLGATE_REDIS_URL"] = "http://:hunter2@redis"
        let found = problems(example, environment: overridden)
        #expect(found.count == 1)
        #expect(found.first?.hasPrefix("environment: TOLLGATE_REDIS_URL: ") == true)
        #expect(found.first?.contains("hunter2") == false)
    }

    @Test func variablesAreReplacedInsideScalarsAndNotReadAgain() throws {
        let text = minimal + "access_log: /var/log/${A}-${B}.log\n"
        var variables = environment
        variables["A"] = "${B}"
        variables["B"] = "x"
        #expect(try parse(text, environment: variables).accessLog == .file(path: "/var/log/${B}-x.log"))
    }

    // MARK: What is wrong: file, line, key, and what to do

    private static let faults: [(String, String)] = [
        ("listn: 1\n", "gate.yaml:2: listn: unknown key: known here are listen, admin, redis, journal, limits, "),
        ("limits: { body_byte: 1 }\n", "gate.yaml:2: limits.body_byte: unknown key: known here are body_bytes, "),
        ("limits:\n  connections: 10\n  x: 1\n", "gate.yaml:4: limits.x: unknown key"),
        ("limits: { body_bytes: 8MB }\n", "gate.yaml:2: limits.body_bytes: \"8MB\" has an unknown unit: write KiB"),
        ("limits: { body_bytes: lots }\n", "gate.yaml:2: limits.body_bytes: \"lots\" is not a size"),
        ("limits: { body_bytes: 1 }\n", "gate.yaml:2: limits.body_bytes: \"1\" is out of bounds: 1024 bytes to"),
        ("limits: { body_bytes: 99999999999GiB }\n", "gate.yaml:2: limits.body_bytes: \"99999999999GiB\" is too large"),
        ("limits: { connections: 1e3 }\n", "gate.yaml:2: limits.connections: \"1e3\" is not a whole number"),
        ("limits: { connections: -1 }\n", "gate.yaml:2: limits.connections: \"-1\" is not a whole number"),
        ("limits: { buffered_bytes: 1MiB }\n", "gate.yaml:2: limits.buffered_bytes: a body of body_bytes would never"),
        ("limits: [1]\n", "gate.yaml:2: limits: must be a mapping of keys to values"),
        ("timeouts: { idle: 10 }\n", "gate.yaml:2: timeouts.idle: \"10\" has no unit: write 250ms, 10s, 5m or 2h"),
        ("timeouts: { idle: 10min }\n", "gate.yaml:2: timeouts.idle: \"10min\" has an unknown unit"),
        ("timeouts: { idle: 1.5s }\n", "gate.yaml:2: timeouts.idle: \"1.5s\" has an unknown unit"),
        ("timeouts: { idle: 0s }\n", "gate.yaml:2: timeouts.idle: \"0s\" is out of bounds: 10ms to 86400000ms"),
        ("timeouts: { idle: }\n", "gate.yaml:2: timeouts.idle: has no value: write one or remove the key"),
        ("timeouts: { idle: [1s] }\n", "gate.yaml:2: timeouts.idle: must be a single value"),
        ("retry: { budget: 0.1 }\n", "gate.yaml:2: retry.budget: \"0.1\" is not a share: write 10% or 2.5%"),
        ("retry: { budget: 101% }\n", "gate.yaml:2: retry.budget: \"101%\" is out of bounds: 0% to 100%"),
        ("retry: { attempts: 9 }\n", "gate.yaml:2: retry.attempts: \"9\" is out of bounds: 1 to 8"),
        ("event_loops: 0\n", "gate.yaml:2: event_loops: \"0\" is out of bounds: 1 to 256"),
        (
            "journal: { sync: always }\n",
            "gate.yaml:2: journal.sync: \"always\" is unknown: write one of interval, fsync"
        ),
        ("leases: { enabled: yes }\n", "gate.yaml:2: leases.enabled: \"yes\" is neither true nor false"),
        ("listen: 8080\n", "gate.yaml:2: listen: \"8080\" is not an address: write host:port"),
        ("listen: \"::1:8080\"\n", "gate.yaml:2: listen: \"::1:8080\" is not an address"),
        ("listen: 0.0.0.0:65536\n", "gate.yaml:2: listen: \"0.0.0.0:65536\" is not an address"),
        ("listen: ${NOT_SET}:80\n", "gate.yaml:2: listen: the environment variable NOT_SET is not set"),
        ("listen: ${NODE_KEY\n", "gate.yaml:2: listen: a ${ is not closed: write ${NAME}"),
        ("listen: ${1X}\n", "gate.yaml:2: listen: \"${1X}\" does not name a variable"),
        ("access_log: \"\"\n", "gate.yaml:2: access_log: \"\" is empty: write stdout, off, or a file's path"),
        (
            "routing: { policy: fastest }\n",
            "gate.yaml:2: routing.policy: \"fastest\" is unknown: write one of predicted_cost, least_tokens"
        ),
        ("redis: { url: tcp://x }\n", "gate.yaml:2: redis.url: the Redis URL's scheme is unknown"),
        ("org_defaults: { rpm: 0 }\n", "gate.yaml:2: org_defaults.rpm: \"0\" is out of bounds"),
        ("models: { a: b }\n", "gate.yaml:2: models: must be a list: begin each of its entries with a dash"),
        ("models:\n  - context_tokens: 5\n", "gate.yaml:3: models[0].id: is missing"),
        ("models:\n  - id: a b\n", "gate.yaml:3: models[0].id: \"a b\" is not a name"),
        ("models:\n  - id: a\n  - id: a\n", "gate.yaml:4: models[1].id: \"a\" is taken by an earlier entry"),
        (
            "models:\n  - id: a\n    context_tokens: 10\n    max_output_tokens: 11\n",
            "gate.yaml:5: models[0].max_output_tokens: is more than context_tokens, 10"
        ),
        (
            "models:\n  - id: a\n    price: { input: 0.0000000001, output: 1 }\n",
            "gate.yaml:4: models[0].price.input: \"0.0000000001\" is not a price"
        ),
        ("models:\n  - id: a\n    price: { input: 1e-3, output: 1 }\n", "gate.yaml:4: models[0].price.input: \"1e-3\""),
        (
            "models:\n  - id: a\n    price: { input: -1, output: 1 }\n",
            "gate.yaml:4: models[0].price.input: \"-1\" is out"
        ),
        ("models:\n  - id: a\n    price: { input: 1 }\n", "gate.yaml:4: models[0].price.output: is missing"),
        ("sites:\n  - { id: s, rtt: 11s }\n", "gate.yaml:3: sites[0].rtt: \"11s\" is out of bounds: 0ms to 10000ms"),
        ("sites:\n  -\n", "gate.yaml:3: sites[0]: is empty"),
    ]

    @Test(arguments: Self.faults)
    func eachFaultNamesFileLineKeyAndRemedy(yaml: String, expected: String) {
        let found = problems(minimal + yaml)
        #expect(found.contains { $0.hasPrefix(expected) }, "\(found)")
    }

    private static let nodeFaults: [(String, String)] = [
        ("site: nowhere", "gate.yaml:4: nodes[0].site: \"nowhere\" is not in sites: add it there"),
        ("url: https://u:p@x", "gate.yaml:4: nodes[0].url: must not carry a user or password: use api_key"),
        ("url: x:80", "gate.yaml:4: nodes[0].url: \"x:80\" must begin with http:// or https://"),
        ("url: http://", "gate.yaml:4: nodes[0].url: \"http://\" has no usable host and port"),
        ("url: http://h:0", "gate.yaml:4: nodes[0].url: \"http://h:0\" has no usable host and port"),
        ("url: http://h/v1", "gate.yaml:4: nodes[0].url: \"http://h/v1\" ends in /v1"),
        ("url: \"http://h/?a\"", "gate.yaml:4: nodes[0].url: \"http://h/?a\" must be host, port and path only"),
        (
            "engine: tgi",
            "gate.yaml:4: nodes[0].engine: \"tgi\" is unknown: write one of vllm, sglang, llamacpp, openai"
        ),
        ("models: { b: x }", "gate.yaml:4: nodes[0].models.b: is not in models: add it there"),
        ("models: {}", "gate.yaml:4: nodes[0].models: is empty"),
        ("models: { a: \"\" }", "gate.yaml:4: nodes[0].models.a: \"\" is not 1 to 256 bytes"),
        ("max_concurrency: 0", "gate.yaml:4: nodes[0].max_concurrency: \"0\" is out of bounds"),
        ("ca: node-ca.pem", "gate.yaml:4: nodes[0].ca: is for nodes at https://: remove it, or change the url"),
    ]

    @Test(arguments: Self.nodeFaults)
    func eachFaultOfANodeIsNamed(field: String, expected: String) {
        let key = field.prefix { $0 != ":" }
        let fields = [
            "id: n", "site: s", "url: http://h:1", "engine: vllm", "models: { a: x }",
        ].filter { !$0.hasPrefix("\(key):") }
        let yaml = """
            \(minimal)models: [ { id: a } ]
            sites: [ { id: s } ]
            nodes: [ { \((fields + [field]).joined(separator: ", ")) } ]
            """
        #expect(problems(yaml.replacing(field, with: fields[0])).isEmpty == false)
        let found = problems(yaml)
        #expect(found.count == 1, "\(found)")
        #expect(found.first?.hasPrefix(expected) == true, "\(found)")
    }

    @Test(arguments: [
        ("queue: { requests: -1 }", "gate.yaml:2: queue.requests: \"-1\" "),
        ("queue: { deadline: 30 }", "gate.yaml:2: queue.deadline: \"30\" has no unit"),
        ("queue: { priority_orgs: acme }", "gate.yaml:2: queue.priority_orgs: must be a list"),
        ("queue: { length: 3 }", "gate.yaml:2: queue.length: unknown key: known here are requests, deadline"),
        ("routing: { objective: 2s }", "gate.yaml:2: routing.objective: must be a mapping"),
        ("routing: { objective: { ttft: 0s } }", "gate.yaml:2: routing.objective.ttft: \"0s\" "),
        ("routing: { objective: { tpot: fast } }", "gate.yaml:2: routing.objective.tpot: \"fast\" is not a duration"),
        ("routing: { explain_header: maybe }", "gate.yaml:2: routing.explain_header: \"maybe\" "),
    ])
    func aFaultOfWaitingAndRoutingIsNamed(yaml: String, expected: String) {
        let found = problems(minimal + yaml + "\n")
        #expect(found.count == 1, "\(found)")
        #expect(found.first?.hasPrefix(expected) == true, "\(found)")
    }

    @Test func aPatienceThatNoRequestCanHaveIsAWarning() throws {
        let read = try parse(minimal + "timeouts: { request: 10s }\nqueue: { deadline: 10s }\nmodels: [ { id: a } ]\n")
        #expect(read.warnings.contains { $0.hasPrefix("gate.yaml:3: queue.deadline: is not below timeouts.request") })
    }

    private static let notBuilt: [(String, String)] = [
        ("webhooks: []", "webhooks: sending webhooks is not built yet"),
        ("leases: { enabled: true }", "leases.enabled: leases are not built yet: write false"),
        ("redis: { url: rediss://x }", "redis.url: the Redis URL's scheme rediss:// is not built yet"),
    ]

    @Test(arguments: [
        ("tokenizer: none.json", "models[0].tokenizer: \"none.json\" cannot be read: No such file or directory"),
        ("tokenizer: { file: gate.txt }", "models[0].tokenizer: \"gate.txt\" cannot be read"),
        ("tokenizer: { file: x, pattern: gpt5 }", "models[0].tokenizer.pattern: \"gpt5\" "),
        ("tokenizer: { pattern: gpt2 }", "models[0].tokenizer.file: is missing"),
        ("tokenizer: /etc/passwd", "models[0].tokenizer: \"/etc/passwd\" neither a tokenizer.json"),
    ])
    func aTokenizerThatCannotBeLoadedIsNamedWithItsReason(option: String, expected: String) {
        let found = problems(minimal + "models: [ { id: a, \(option) } ]\n")
        #expect(found.count == 1, "\(found)")
        #expect(found.first?.hasPrefix("gate.yaml:2: " + expected) == true, "\(found)")
    }

    @Test(arguments: [
        ("join_token: x", "gate.yaml:2: join_token: is shorter than 32 bytes"),
        ("join_networks: [10.0.0.0/33]", "gate.yaml:2: join_networks[0]: \"10.0.0.0/33\" is no address or block"),
        (
            "discovery: { dns: [ { port: 1, site: s, engine: vllm } ] }",
            "gate.yaml:2: discovery.dns[0].name: is missing"
        ),
        (
            "discovery: { dns: [ { name: \"http://x\", port: 1, site: s, engine: vllm } ] }",
            "gate.yaml:2: discovery.dns[0].name: \"http://x\" is no host name"
        ),
        (
            "discovery: { dns: [ { name: gpu.internal, port: 1, site: mars, engine: vllm } ] }",
            "gate.yaml:2: discovery.dns[0].site: \"mars\" is not in sites"
        ),
        (
            "discovery: { dns: [ { name: a, port: 1, site: s, engine: vllm, models: { m: x } } ] }",
            "gate.yaml:2: discovery.dns[0].models.m: is not in models"
        ),
        (
            "discovery: { dns: [ { name: a, port: 1, site: s, engine: vllm, ttl: 5s } ] }",
            "gate.yaml:2: discovery.dns[0].ttl: unknown key"
        ),
    ])
    func eachFaultOfWhatBringsNodesIsNamed(yaml: String, expected: String) {
        let found = problems(minimal + yaml + "\nsites: [ { id: s } ]\n")
        #expect(found.count == 1, "\(found)")
        #expect(found.first?.hasPrefix(expected) == true, "\(found)")
    }

    @Test(arguments: Self.notBuilt)
    func keyWhoseFeatureIsNotBuiltSaysSo(yaml: String, expected: String) {
        let found = problems(minimal + yaml + "\n")
        #expect(found.count == 1, "\(found)")
        #expect(found.first?.hasPrefix("gate.yaml:2: " + expected) == true, "\(found)")
    }

    @Test func everyProblemIsFoundInOneReadingInTheOrderOfTheFile() {
        let found = problems(
            """
            listen: x
            admin: { listen: 0.0.0.0:8081, token: short, tls: {} }
            nodes:
              - id: n
                site: s
                engine: nope
                models: { m: x }
            """)
        #expect(
            found.map { $0.prefix { $0 != " " } } == [
                "gate.yaml:1:", "gate.yaml:2:", "gate.yaml:2:", "gate.yaml:2:", "gate.yaml:4:", "gate.yaml:5:",
                "gate.yaml:6:", "gate.yaml:7:",
            ], "\(found)")
    }

    @Test func adminListenerOffLoopbackIsRefused() {
        for host in ["0.0.0.0", "10.0.0.1", "127.evil.example", "[::]", "127.0.0.1.example"] {
            let found = problems("admin: { listen: \"\(host):8081\", token: \"${TOLLGATE_ADMIN_TOKEN}\" }\n")
            #expect(found.first?.hasPrefix("gate.yaml:1: admin.listen: off loopback") == true, "\(host): \(found)")
        }
        for host in ["127.0.0.1", "127.8.8.8", "[::1]", "localhost"] {
            #expect(problems("admin: { listen: \"\(host):8081\", token: \"${TOLLGATE_ADMIN_TOKEN}\" }\n") == [])
        }
    }

    @Test func missingAdminTokenIsAProblem() {
        #expect(problems("listen: 0.0.0.0:80\n") == ["gate.yaml:1: admin.token: is missing"])
        #expect(problems("") == ["gate.yaml:1: admin.token: is missing"])
    }

    @Test func yamlThatDoesNotParseNamesItsLine() {
        #expect(problems("a: 1\nb: [1\n").first?.hasPrefix("gate.yaml:3: is not YAML: ") == true)
        let twice = problems("listen: a:1\nlisten: b:2\n")
        #expect(twice == ["gate.yaml:1: the mapping that begins here has keys twice: listen"])
    }

    @Test func fileThatCannotBeReadSaysWhy() {
        #expect(throws: ConfigurationFailure.self) {
            try ConfigurationLoader.load(file: "/nonexistent/gate.yaml", environment: [:])
        }
        do throws(ConfigurationFailure) {
            _ = try ConfigurationLoader.load(file: "/nonexistent/gate.yaml", environment: [:])
        } catch {
            #expect(error.description == "/nonexistent/gate.yaml: cannot be read: No such file or directory")
        }
    }

    // MARK: Warnings

    @Test func modelWithoutNodesAndModelWithoutPriceAreWarnedOf() throws {
        let read = try parse(
            minimal + """
                models:
                  - id: a
                  - { id: b, price: { input: 1, output: 1 } }
                sites: [ { id: s } ]
                nodes: [ { id: n, site: s, url: "http://h", engine: vllm, models: { a: x } } ]
                """)
        #expect(
            read.warnings == [
                "gate.yaml:3: models[0].price: a has no price here: 'tollgate price set' must have given it one",
                "gate.yaml:2: models: b is served by no node: requests for it will be refused",
            ])
    }

    // MARK: Secrets

    @Test func secretsStayOutOfEveryDescription() throws {
        let read = try parse(example)
        var dumped = ""
        dump(read, to: &dumped)
        for text in ["\(read)", String(reflecting: read), dumped] {
            #expect(!text.contains("0123456789abcdef"))
            #expect(!text.contains("sk-node"))
            #expect(!text.contains("redis://"))
        }
        #expect(dumped.contains("<redacted>"))
    }

    @Test func problemsDoNotRepeatSecretsOrVariables() {
        var variables = environment
        variables["TOLLGATE_ADMIN_TOKEN"] = "hunter2"
        variables["NODE_KEY"] = "hunter2 with spaces"
        let yaml = """
            listen: ${NODE_KEY}
            admin: { token: "${TOLLGATE_ADMIN_TOKEN}" }
            redis: { url: "redis://:hunter2@" }
            models: [ { id: a } ]
            sites: [ { id: s } ]
            nodes:
              - { id: n, site: s, url: "http://u:hunter2@h", engine: vllm, models: { a: x }, api_key: "${NODE_KEY}" }
            """
        let found = problems(yaml, environment: variables)
        #expect(found.count == 5, "\(found)")
        #expect(!found.joined().contains("hunter2"), "\(found)")
        #expect(problems("admin: { token: hunter2hunter2").joined().contains("hunter2") == false)
    }

    // MARK: Reload

    @Test func onlyChangesThatAReloadCannotHonourNeedARestart() throws {
        let old = try parse(example)
        #expect(old.needsRestart(comparedTo: old) == [])
        var next = old
        next.timeouts.idle = .seconds(1)
        next.nodes = []
        next.limits.bodyBytes += 1
        #expect(next.needsRestart(comparedTo: old) == [])
        next.listen.port = 1
        next.admin.listen.port = 2
        next.redisURL = Secret("redis://other")
        next.journal.sync = .interval
        next.routing.policy = .roundRobin
        next.eventLoops = 9
        #expect(
            next.needsRestart(comparedTo: old) == [
                "listen", "admin.listen", "redis.url", "journal", "routing.policy", "event_loops",
            ])
    }
}
