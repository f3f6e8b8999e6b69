import Domain
import Foundation
import OpenAIProtocol
import Support
import Testing

@testable import Gateway

private let head = "admin: { token: 0123456789abcdef0123456789abcdef }\nmodels:\n"

private func parse(_ yaml: String) throws(ConfigurationFailure) -> GatewayConfiguration {
    try ConfigurationLoader.parse(yaml: yaml, fileName: "gate.yaml", environment: ["NAME": "from \"outside\""])
}

private func problems(_ yaml: String) -> [String] {
    do throws(ConfigurationFailure) {
        _ = try parse(yaml)
        return []
    } catch {
        return error.problems.map(\.description)
    }
}

/// What a model's section says of names, fields and bounds; and certificates of nodes.
struct ConfigurationModelTests {
    @Test func everythingThatAModelSaysIsRead() throws {
        let read = try parse(
            head + """
                  - id: big
                    aliases: [gpt-4o-mini, gpt-4o]
                    fallbacks: [small, tiny]
                    clamps: { max_tokens: 4096, n: 4 }
                    timeouts: { connect: 250ms, first_byte: 2s, stream_idle: 3s }
                    defaults:
                      temperature: 0.70
                      stop: ["a", 'b', c]
                      logit_bias: { "50256": -100 }
                      seed: -1e3
                      user: ${NAME}
                      echo_back: "0.7"
                      flag: true
                      nothing: null
                  - { id: small, aliases: [] }
                  - { id: tiny }
                """)
        let big = read.models[0]
        #expect(big.aliases.map(\.rawValue) == ["gpt-4o-mini", "gpt-4o"])
        #expect(big.fallbacks.map(\.rawValue) == ["small", "tiny"])
        #expect(big.clamps == RequestClamps(maxTokens: 4_096, n: 4))
        #expect(big.maxOutputTokens == 4_096, "the default is within the clamp")
        #expect([big.connect, big.firstByte, big.streamIdle] == [.milliseconds(250), .seconds(2), .seconds(3)])
        let defaults = big.defaults.map { "\($0.key)=\(String(decoding: $0.json, as: UTF8.self))" }
        #expect(
            defaults == [
                "temperature=0.70", #"stop=["a","b","c"]"#, #"logit_bias={"50256":-100}"#, "seed=-1e3",
                #"user="from \"outside\"""#, #"echo_back="0.7""#, "flag=true", "nothing=null",
            ])
        #expect(read.models[1] == ModelConfiguration(id: ModelID(unchecked: "small")))
    }

    private static let faults: [(String, String)] = [
        ("  - id: a\n    aliases: b\n", "gate.yaml:4: models[0].aliases: must be a list: write [a, b]"),
        ("  - id: a\n    aliases: [b, b]\n", "gate.yaml:4: models[0].aliases[1]: \"b\" is listed twice"),
        ("  - id: a\n    aliases: [\"b c\"]\n", "gate.yaml:4: models[0].aliases[0]: \"b c\" is not a name"),
        ("  - id: a\n    aliases: [a]\n", "gate.yaml:4: models[0].aliases: \"a\" is a model's id: choose another"),
        (
            "  - id: a\n    aliases: [x]\n  - id: b\n    aliases: [x]\n",
            "gate.yaml:6: models[1].aliases: \"x\" is an alias of a already: choose another"
        ),
        ("  - id: a\n    aliases: [b]\n  - id: b\n", "gate.yaml:4: models[0].aliases: \"b\" is a model's id"),
        ("  - id: a\n    fallbacks: [b]\n", "gate.yaml:4: models[0].fallbacks: \"b\" is not in models: add it there"),
        (
            "  - id: a\n    fallbacks: [x]\n  - { id: b, aliases: [x] }\n",
            "gate.yaml:4: models[0].fallbacks: \"x\" is an alias: write b"
        ),
        (
            "  - id: a\n    fallbacks: [a]\n",
            "gate.yaml:4: models[0].fallbacks: lead back to the model itself (a -> a): remove one of them"
        ),
        (
            "  - { id: a, fallbacks: [b] }\n  - { id: b, fallbacks: [c] }\n  - { id: c, fallbacks: [a] }\n",
            "gate.yaml:3: models[0].fallbacks: lead back to the model itself (a -> b -> c -> a): remove one"
        ),
        (
            "  - id: a\n    clamps: { top_k: 3 }\n",
            "gate.yaml:4: models[0].clamps.top_k: cannot be clamped: max_tokens and n can"
        ),
        ("  - id: a\n    clamps: { n: 0 }\n", "gate.yaml:4: models[0].clamps.n: \"0\" is out of bounds: 1 to 128"),
        (
            "  - id: a\n    max_output_tokens: 11\n    clamps: { max_tokens: 10 }\n",
            "gate.yaml:4: models[0].max_output_tokens: is more than clamps.max_tokens, 10: lower it"
        ),
        (
            "  - id: a\n    defaults: { max_tokens: 5 }\n",
            "gate.yaml:4: models[0].defaults.max_tokens: is no default: the gateway writes the token limit itself; "
                + "set max_output_tokens"
        ),
        ("  - id: a\n    defaults: { stream: true }\n", "gate.yaml:4: models[0].defaults.stream: is no default: it is"),
        ("  - id: a\n    defaults: { n: 2 }\n", "gate.yaml:4: models[0].defaults.n: is no default: the field steers"),
        (
            "  - id: a\n    defaults: { top_p: .5 }\n",
            "gate.yaml:4: models[0].defaults.top_p: \".5\" is read differently by different readers"
        ),
        ("  - id: a\n    defaults: { x: yes }\n", "gate.yaml:4: models[0].defaults.x: \"yes\" is read differently"),
        (
            "  - id: a\n    defaults: { x: \"" + String(repeating: "y", count: 17_000) + "\" }\n",
            "gate.yaml:4: models[0].defaults.x: is longer than 16384 bytes as JSON"
        ),
        (
            "  - id: a\n    defaults: { x: " + String(repeating: "[", count: 20) + String(repeating: "]", count: 20)
                + " }\n",
            "gate.yaml:4: models[0].defaults.x: is nested deeper than 16 levels"
        ),
        (
            "  - id: a\n    defaults: { x: \"${NOPE}\" }\n",
            "gate.yaml:4: models[0].defaults.x: the environment variable"
        ),
        ("  - id: a\n    timeouts: { connect: 1 }\n", "gate.yaml:4: models[0].timeouts.connect: \"1\" has no unit"),
    ]

    @Test(arguments: Self.faults)
    func eachFaultNamesFileLineKeyAndRemedy(models: String, expected: String) {
        let found = problems(head + models)
        #expect(found.contains { $0.hasPrefix(expected) }, "\(found)")
    }

    @Test func aChainOfFallbacksThatEndsIsNoCircle() throws {
        let read = try parse(head + "  - { id: a, fallbacks: [b, c] }\n  - { id: b, fallbacks: [c] }\n  - { id: c }\n")
        #expect(read.models.map(\.fallbacks.count) == [2, 1, 0])
    }

    // MARK: HTTPS to nodes

    private struct Folder: ~Copyable {
        let path: String

        init() throws {
            path = NSTemporaryDirectory() + "tollgate-ca-\(UInt64.random(in: 0 ... .max))"
            try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        }

        deinit { try? FileManager.default.removeItem(atPath: path) }

        func write(_ name: String, _ text: String) throws {
            try text.write(toFile: "\(path)/\(name)", atomically: true, encoding: .utf8)
        }

        func load(node: String) -> Result<GatewayConfiguration, ConfigurationFailure> {
            let yaml = """
                \(head)  - id: a
                sites: [ { id: s } ]
                nodes:
                  - { id: n, site: s, engine: vllm, models: { a: x }, \(node) }
                """
            try? write("gate.yaml", yaml)
            return Result { () throws(ConfigurationFailure) in
                try ConfigurationLoader.load(file: "\(path)/gate.yaml", environment: [:])
            }
        }

        func problem(node: String) -> String {
            switch load(node: node) {
            case .success: "none"
            case .failure(let failure): failure.description.replacingOccurrences(of: path + "/", with: "")
            }
        }
    }

    @Test func aBundleIsReadBesideTheConfigurationAndAnUnchangedOneIsTheSame() throws {
        let folder = try Folder()
        try folder.write("ca.pem", TestCertificates.authority)
        let node = "url: \"https://gpu.example/base\", ca: ca.pem"
        let first = try #require(try folder.load(node: node).get().nodes.first)
        #expect(first.url == NodeURL(host: "gpu.example", port: 443, basePath: "/base", isSecure: true))
        #expect(first.url.description == "https://gpu.example:443/base")
        #expect(first.tls?.serverName == "gpu.example")
        let again = try #require(try folder.load(node: node).get().nodes.first)
        #expect(again.tls == first.tls)
        try folder.write("ca.pem", TestCertificates.otherAuthority)
        let changed = try #require(try folder.load(node: node).get().nodes.first)
        #expect(changed.tls != first.tls)
        let literal = try #require(try folder.load(node: "url: \"https://10.0.0.5:8443\"").get().nodes.first)
        #expect(literal.tls != nil)
        #expect(literal.tls?.serverName == nil)
        #expect(literal.tls?.trust != first.tls?.trust, "the system's authorities")
    }

    @Test func bundlesThatAreNoneAreNamed() throws {
        let folder = try Folder()
        try folder.write("empty.pem", "")
        try folder.write("key.pem", TestCertificates.good.key)
        let place = "gate.yaml:6: nodes[0].ca: "
        func problem(_ ca: String, _ url: String = "https://h") -> String {
            folder.problem(node: "url: \"\(url)\", ca: \(ca)")
        }
        #expect(problem("none.pem") == place + "\"none.pem\" cannot be read: No such file or directory")
        #expect(problem("empty.pem") == place + "\"empty.pem\" holds no certificate in PEM format")
        #expect(problem("key.pem") == place + "\"key.pem\" holds no certificate in PEM format")
        #expect(problem("x", "http://h") == place + "is for nodes at https://: remove it, or change the url")
    }
}
