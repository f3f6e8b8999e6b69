import Billing
import Domain
import NIOCore
import NIOPosix
import Redis
import Routing
import Support
import Testing

@testable import Gateway

private let llama = ModelID(unchecked: "llama")

private func configuration(join: [String] = []) -> GatewayConfiguration {
    var configuration = fleetConfiguration([fleetNode("fixed", host: "10.0.0.1", port: 80)])
    configuration.models[0].aliases = [ModelID(unchecked: "gpt-4o-mini")]
    configuration.listen = ListenAddress(host: "0.0.0.0", port: 8080)
    configuration.joinNetworks = join.compactMap { IPNetwork($0) }
    return configuration
}

private func proposal(_ id: String = "new", url: String = "http://10.0.0.9:8000") -> NodeProposal {
    NodeProposal(
        id: NodeID(unchecked: id), site: SiteID(unchecked: "austin"), url: url, engine: "vllm",
        models: ["llama": "meta/Llama"])
}

private func stored(
    _ proposal: NodeProposal, _ origin: NodeOrigin = .added, in configuration: GatewayConfiguration = configuration()
) throws(OperatorFailure) -> StoredNode {
    try StoredNode(proposal, origin: origin, in: configuration, taken: Set(configuration.nodes.map(\.id)))
}

struct StoredNodeTests {
    @Test func whatIsProposedIsCheckedAgainstTheConfiguration() throws {
        var good = proposal()
        good.models = ["gpt-4o-mini": "meta/Llama"]
        good.apiKey = "secret"
        let node = try stored(good)
        // An alias stands for its model, once.
        #expect(node.models == [ServedModel(model: llama, upstreamName: "meta/Llama")])
        #expect(StoredNode(id: node.id, encoded: node.encoded) == node)
        #expect(!"\(node)".contains("secret"))

        var bad: [(NodeProposal, OperatorFailure.Code, String)] = [(proposal("fixed"), .alreadyExists, "fixed")]
        func add(_ words: String, _ change: (inout NodeProposal) -> Void) {
            var proposal = proposal()
            change(&proposal)
            bad.append((proposal, .invalid, words))
        }
        add("'site'") { $0.site = SiteID(unchecked: "nowhere") }
        add("'url'") { $0.url = "ftp://10.0.0.9" }
        add("'url'") { $0.url = "http://user:word@10.0.0.9" }
        add("/v1") { $0.url = "http://10.0.0.9/v1" }
        add("'engine'") { $0.engine = "abacus" }
        add("'models'") { $0.models = [:] }
        add("'models'") { $0.models = ["other": "x"] }
        add("'models'") { $0.models = ["llama": "a\u{0}b"] }
        add("'max_concurrency'") { $0.maxConcurrency = 0 }
        add("'api_key'") { $0.apiKey = "two words" }
        for (proposal, code, words) in bad {
            let failure = #expect(throws: OperatorFailure.self) { try stored(proposal) }
            #expect(failure?.code == code && failure?.message.contains(words) == true, "\(String(describing: failure))")
        }
    }

    @Test(arguments: [
        "http://169.254.169.254:80", "http://[fe80::1]:80", "http://0.0.0.0:80", "http://224.0.0.1:80",
        "http://255.255.255.255:80", "http://[::ffff:169.254.169.254]:80", "http://[::]:80",
        "http://[fd00:ec2::254]:80",
        "http://metadata.internal:80", "http://2130706433:80", "http://0x7f.1:80", "http://10.0.0.9:8000/admin",
        "http://127.0.0.1:8080", "http://127.0.0.1:8081", "http://127.0.0.1:6379", "http://[::1]:8081",
    ])
    func aNodeMayNotRegisterWhatIsNoNodesAddress(url: String) throws {
        let failure = #expect(throws: OperatorFailure.self) { try stored(proposal(url: url), .registered) }
        #expect(failure?.code == .invalid && failure?.message.contains("'url'") == true)
    }

    @Test func aNodeMayNotRegisterTheGatewayAtAnyOfItsMachinesAddressesNorARedisOfAnyName() throws {
        for device in try System.enumerateDevices() {
            guard let address = device.address?.ipAddress, !address.hasPrefix("fe80") else { continue }
            let host = address.contains(":") ? "[\(address)]" : address
            #expect(throws: OperatorFailure.self) {
                try stored(proposal(url: "http://\(host):8080"), .registered)
            }
            #expect(throws: Never.self) { try stored(proposal(url: "http://\(host):8000"), .registered) }
        }
        var named = configuration()
        named.redisURL = Secret("redis://cache.internal:7000")
        #expect(throws: OperatorFailure.self) {
            try stored(proposal(url: "http://10.0.0.9:7000"), .registered, in: named)
        }
        #expect(throws: Never.self) { try stored(proposal(url: "http://10.0.0.9:6379"), .registered, in: named) }
    }

    @Test func aNodeMayRegisterAnAddressOfItsNetworksOrANameBehindTLS() throws {
        for url in ["http://10.0.0.9:8000", "http://127.0.0.1:9000", "http://[2001:db8::1]:80", "https://node.example"]
        {
            #expect(try stored(proposal(url: url), .registered).origin == .registered)
        }
        let narrow = configuration(join: ["10.0.0.0/8"])
        #expect(try stored(proposal(), .registered, in: narrow).url.host == "10.0.0.9")
        for url in ["http://192.168.0.1:80", "https://node.example", "http://127.0.0.1:9000"] {
            #expect(throws: OperatorFailure.self) { try stored(proposal(url: url), .registered, in: narrow) }
        }
        // Operators are trusted.
        #expect(try stored(proposal(url: "http://gpu.internal:80/base"), .added, in: narrow).url.basePath == "/base")
    }

    @Test func theFileCountsBeforeTheStoreAndTheStoreBeforeDNS() throws {
        var members = FleetMembers()
        var fixed = try stored(proposal("a"))
        fixed.id = NodeID(unchecked: "fixed")
        var homeless = try stored(proposal("homeless"))
        homeless.site = SiteID(unchecked: "gone")
        var idle = try stored(proposal("idle"))
        idle.models = [ServedModel(model: ModelID(unchecked: "gone"), upstreamName: "x")]
        members.stored = [
            fixed, homeless, idle, try stored(proposal("10.0.0.9:80")), try stored(proposal("b"), .registered),
        ]
        let entry = DNSDiscovery(
            name: "gpu.internal", port: 80, site: SiteID(unchecked: "austin"), engine: .vllm)
        members.discovered = ["10.0.0.9", "10.0.0.8"].compactMap { entry.node(at: $0, serving: idle.models) }
        let merged = members.merged(into: configuration())
        #expect(merged.nodes.map(\.id.rawValue) == ["fixed", "10.0.0.9:80", "b", "10.0.0.8:80"])
        #expect(merged.nodes.map(\.origin) == [.file, .added, .registered, .dns])
        #expect(merged.nodes[0].url.host == "10.0.0.1")
    }
}

struct RedisNodeStoreTests {
    @Test func nodesAreKeptInRedisAndLeaveWithoutTheirHeartbeat() async throws {
        let redis = try RedisServerProcess.start()
        let session = try await RedisSession.connect(
            RedisConfiguration(url: try RedisURL(redis.url)), on: NIOSingletons.posixEventLoopGroup.any())
        let store = RedisNodeStore(session: session)
        let empty = try #require(try await store.nodes(since: nil))
        #expect(empty.nodes.isEmpty)
        #expect(try await store.nodes(since: empty.version) == nil)

        let added = try stored(proposal("added"))
        let registered = try stored(proposal("registered"), .registered)
        #expect(try await store.put(added, lifetime: nil) == .created)
        #expect(try await store.put(added, lifetime: nil) == .renewed)
        #expect(try await store.put(registered, lifetime: .seconds(60)) == .created)
        let both = try #require(try await store.nodes(since: empty.version))
        #expect(both.nodes == [added, registered])

        // Neither takes the other's name.
        #expect(try await store.put(try stored(proposal("added"), .registered), lifetime: .seconds(60)) == .taken)
        #expect(try await store.put(try stored(proposal("registered")), lifetime: nil) == .taken)
        #expect(try await store.nodes(since: both.version) == nil)

        let moved = try stored(proposal("registered", url: "http://10.0.0.10:8000"), .registered)
        #expect(try await store.put(moved, lifetime: .milliseconds(1)) == .changed)
        while try await store.nodes(since: nil)?.nodes != [added] {
            try await Task.sleep(for: .milliseconds(2))
        }
        #expect(try await session.command("ZCARD", "tg:{fleet}:heartbeats").int64 == 0)

        _ = try await session.command("HSET", "tg:{fleet}", "cordon:added", "1")
        #expect(try await store.remove(added.id))
        #expect(try await store.remove(added.id) == false)
        #expect(try await session.command("EXISTS", "tg:{fleet}").int64 == 0)
        #expect(try await store.nodes(since: nil)?.nodes == [])
        await session.close()
        redis.stop()
    }

    @Test func whileNoGatewayListenedNobodysHeartbeatIsMissed() async throws {
        let redis = try RedisServerProcess.start()
        let session = try await RedisSession.connect(
            RedisConfiguration(url: try RedisURL(redis.url)), on: NIOSingletons.posixEventLoopGroup.any())
        let store = RedisNodeStore(session: session)
        let node = try stored(proposal("registered"), .registered)
        _ = try await store.nodes(since: nil)
        #expect(try await store.put(node, lifetime: .seconds(30)) == .created)

        /// As if all that the store knows had happened so many milliseconds earlier.
        func age(by milliseconds: Int, read: Bool) async throws {
            _ = try await session.command("ZINCRBY", "tg:{fleet}:heartbeats", "-\(milliseconds)", "registered")
            if read { _ = try await session.command("HINCRBY", "tg:{fleet}:nodes", "#read", "-\(milliseconds)") }
        }
        func secondsLeft() async throws -> Double {
            let leaves = try #require(
                try await session.command("ZSCORE", "tg:{fleet}:heartbeats", "registered").string.flatMap(Double.init))
            let time = try #require(try await session.command("TIME").array)
            return leaves / 1_000 - Double(try #require(time[0].string.flatMap(Double.init)))
        }

        // A day without a gateway: it has as long as it had before.
        try await age(by: 86_400_000, read: true)
        #expect(try await store.nodes(since: nil)?.nodes == [node])
        #expect((25..<32).contains(try await secondsLeft()))
        // And only once.
        #expect(try await store.nodes(since: nil)?.nodes == [node])
        #expect((25..<32).contains(try await secondsLeft()))
        // Gateways that come back are told by the node before they look.
        try await age(by: 86_400_000, read: true)
        #expect(try await store.put(node, lifetime: .seconds(30)) == .renewed)
        #expect(try await store.nodes(since: nil)?.nodes == [node])
        #expect((25..<32).contains(try await secondsLeft()))
        // A restart that takes longer than the node's life.
        #expect(try await store.put(node, lifetime: .seconds(3)) == .renewed)
        try await age(by: 4_000, read: true)
        #expect(try await store.nodes(since: nil)?.nodes == [node])
        // Silent while a gateway listened.
        try await age(by: 40_000, read: false)
        #expect(try await store.nodes(since: nil)?.nodes == [])
        await session.close()
        redis.stop()
    }
}

struct DiscoveryTests {
    private let entry: DNSDiscovery = {
        var entry = DNSDiscovery(name: "gpu.internal", port: 8000, site: SiteID(unchecked: "austin"), engine: .vllm)
        entry.models = [ServedModel(model: llama, upstreamName: "up")]
        return entry
    }()

    private func at(_ seconds: Int64) -> MonotonicTime { MonotonicTime(nanoseconds: seconds * 1_000_000_000) }

    private func names(_ state: DiscoveryState) -> [String] { state.nodes.map(\.id.rawValue) }

    @Test func nodesAreNamedByTheirAddresses() {
        func name(_ address: String) -> String? { entry.node(at: address, serving: [])?.id.rawValue }
        #expect(name("10.0.0.5") == "10.0.0.5:8000")
        #expect(name("2001:db8::1") == "2001:db8::1/8000")
        #expect(name("::1") == "0::1/8000")
        #expect(name("fe80::1%eth0") == nil)
    }

    @Test func anAddressLeavesAfterThreeAnswersWithoutItAndNoneByAFailure() {
        var state = DiscoveryState()
        state.configured([entry], now: at(0))
        #expect(state.take(now: at(0)) == [entry])
        #expect(state.take(now: at(0)) == [])
        _ = state.resolved(entry, ["10.0.0.2", "10.0.0.1"], now: at(0))
        #expect(names(state) == ["10.0.0.1:8000", "10.0.0.2:8000"])
        #expect(state.take(now: at(9)) == [])
        #expect(state.take(now: at(10)) == [entry])
        let began = state.resolved(entry, nil, now: at(10))
        #expect(began && names(state).count == 2)
        #expect(state.take(now: at(15)) == [entry])
        let goesOn = state.resolved(entry, nil, now: at(15))
        #expect(!goesOn)
        var left: [Int] = []
        for round in 0..<3 {
            _ = state.resolved(entry, ["10.0.0.1"], now: at(20 + Int64(round)))
            left.append(names(state).count)
        }
        #expect(left == [2, 2, 1])
        // Seen in between, it stays.
        _ = state.resolved(entry, ["10.0.0.2"], now: at(30))
        _ = state.resolved(entry, ["10.0.0.2"], now: at(31))
        _ = state.resolved(entry, ["10.0.0.1"], now: at(32))
        _ = state.resolved(entry, ["10.0.0.2"], now: at(33))
        #expect(names(state) == ["10.0.0.1:8000", "10.0.0.2:8000"])
        state.configured([], now: at(40))
        #expect(names(state) == [])
    }

    @Test func namesAreResolvedAFewAtATimeThoseThatWaitedLongestFirst() {
        var state = DiscoveryState()
        let entries = (0..<5).map { number in
            DNSDiscovery(
                name: "name-\(number)", port: 1, site: SiteID(unchecked: "austin"), engine: .vllm)
        }
        state.configured(entries, now: at(0))
        #expect(state.take(now: at(0)) == [entries[0], entries[1]])
        #expect(state.take(now: at(1)) == [])
        _ = state.resolved(entries[0], [], now: at(1))
        // The one that was asked comes after those that were not.
        #expect(state.take(now: at(60)) == [entries[2]])
        _ = state.resolved(entries[1], nil, now: at(60))
        _ = state.resolved(entries[2], [], now: at(60))
        #expect(state.take(now: at(61)) == [entries[3], entries[4]])
    }

    @Test func aNodeThatNamesItsModelsItselfIsOneOnceItHas() {
        var state = DiscoveryState()
        var entry = entry
        entry.models = []
        state.configured([entry], now: at(0))
        _ = state.resolved(entry, ["10.0.0.1"], now: at(0))
        #expect(state.unlisted(entry, now: at(0)) == ["10.0.0.1"])
        #expect(names(state) == [])
        let silent = state.listed(entry, "10.0.0.1", nil, now: at(0))
        #expect(!silent && state.unlisted(entry, now: at(1)) == ["10.0.0.1"])
        let none = state.listed(entry, "10.0.0.1", [], now: at(1))
        #expect(none && names(state) == [])
        _ = state.listed(entry, "10.0.0.1", [ServedModel(model: llama, upstreamName: "up")], now: at(2))
        #expect(state.nodes.map(\.models) == [[ServedModel(model: llama, upstreamName: "up")]])
        #expect(state.unlisted(entry, now: at(61)) == [])
        // It does not answer any more: what it said stands.
        _ = state.listed(entry, "10.0.0.1", nil, now: at(62))
        #expect(names(state) == ["10.0.0.1:8000"])
    }

    @Test func modelsAreKnownByTheirIdsAliasesAndTheNamesThatTheFileUses() {
        let configuration = configuration()
        func served(_ listing: String...) -> [ServedModel] { DiscoveryState.served(listing, in: configuration) }
        #expect(served("llama") == [ServedModel(model: llama, upstreamName: "llama")])
        #expect(served("x", "gpt-4o-mini") == [ServedModel(model: llama, upstreamName: "gpt-4o-mini")])
        #expect(served("up") == [ServedModel(model: llama, upstreamName: "up")])
        #expect(served("LLAMA") == [])
        let body = #"{"object":"list","data":[{"id":"a","object":"model"},{"id":7},{"id":"b"}]}"#
        #expect(DiscoveryState.listing(Array(body.utf8)) == ["a", "b"])
        #expect(DiscoveryState.listing(Array("{}".utf8)) == nil)
        #expect(DiscoveryState.listing(Array("<html>".utf8)) == nil)
    }
}
