import Domain
import NIOCore
import NIOPosix
import Routing
import Testing

@testable import Gateway

struct FleetProbeTests {
    private let group = NIOSingletons.posixEventLoopGroup

    private func probe(
        _ node: FakeHealthNode, engine: Engine = .vllm, basePath: String = "", apiKey: String? = nil,
        timeout: Duration = .seconds(5)
    ) async throws -> ProbeFinding {
        let probe = HealthProbe(eventLoop: group.any(), timeout: timeout)
        let configuration = fleetNode("n", port: node.port, engine: engine, basePath: basePath, apiKey: apiKey)
        return await probe.run(configuration, at: try SocketAddress(ipAddress: "127.0.0.1", port: node.port))
    }

    private static let answers: [(FakeHealthNode.Answer, ProbeResult, String)] = [
        (.init(), .healthy, "status 200"),
        (.init(status: .noContent, body: ""), .healthy, "status 204"),
        (
            .init(status: .serviceUnavailable, body: #"{"error":{"code":503,"message":"Loading model"}}"#), .loading,
            "it is loading its model"
        ),
        (.init(status: .serviceUnavailable, body: "engine is dead"), .failed, "status 503"),
        (.init(status: .serviceUnavailable, body: ""), .failed, "status 503"),
        (
            .init(status: .serviceUnavailable, body: String(repeating: "x", count: 100_000) + "loading"), .failed,
            "status 503"
        ),
        (.init(status: .internalServerError, body: "loading"), .failed, "status 500"),
        (.init(status: .unauthorized), .failed, "status 401"),
        (.init(raw: "SSH-2.0-OpenSSH_9.9\r\n\r\n"), .failed, "its answer is not HTTP"),
        (.init(raw: ""), .failed, "it closed the connection unanswered"),
    ]

    @Test(arguments: Self.answers.indices)
    func answersMeanWhatTheTableSays(row: Int) async throws {
        let (answer, result, reason) = Self.answers[row]
        let node = try await FakeHealthNode.start(answer, group: group)
        let finding = try await probe(node)
        #expect(finding == ProbeFinding(result: result, reason: reason))
        await node.stop()
    }

    @Test func silentNodeFailsWithinTheTimeout() async throws {
        let node = try await FakeHealthNode.start(.init(isSilent: true), group: group)
        let finding = try await probe(node, timeout: .milliseconds(30))
        #expect(finding == ProbeFinding(result: .failed, reason: "no answer in time"))
        await node.stop()
    }

    @Test func closedPortFails() async throws {
        let port = try ClosedPort()
        let probe = HealthProbe(eventLoop: group.any(), timeout: .seconds(5))
        let address = try SocketAddress(ipAddress: "127.0.0.1", port: port.number)
        let finding = await probe.run(fleetNode("n", port: port.number), at: address)
        #expect(finding.result == .failed)
        #expect(finding.reason.contains("Connection refused"), "\(finding.reason)")
    }

    @Test(arguments: [
        (Engine.vllm, "", "/health"), (.sglang, "", "/health"), (.llamacpp, "/base", "/base/health"),
        (.openai, "", "/v1/models"), (.openai, "/base", "/base/v1/models"),
    ])
    func engineDecidesWhatIsAsked(engine: Engine, basePath: String, uri: String) async throws {
        let node = try await FakeHealthNode.start(group: group)
        _ = try await probe(node, engine: engine, basePath: basePath, apiKey: "sk-node")
        _ = try await probe(node, engine: engine, basePath: basePath)
        let host = "127.0.0.1:\(node.port)"
        #expect(
            node.seen == [
                FakeHealthNode.Seen(uri: uri, authorization: "Bearer sk-node", host: host),
                FakeHealthNode.Seen(uri: uri, authorization: nil, host: host),
            ])
        await node.stop()
    }

    // MARK: Schedule

    @Test func nodeIsProbedOnlyOnceItsAddressAndWordWereAskedFor() {
        let ids = ["a", "b"].map { NodeID(unchecked: $0) }
        var schedule = ProbeSchedule()
        func at(_ milliseconds: Int64) -> MonotonicTime { MonotonicTime(nanoseconds: milliseconds * 1_000_000) }
        schedule.nodesReplaced(ids, needsAddress: [ids[1]], now: at(0))
        #expect(schedule.take(now: at(0)) == [])
        #expect(schedule.nextDue == nil)
        schedule.wordsAsked(ids)
        #expect(schedule.take(now: at(1)) == [ids[0]])
        schedule.addressesAsked([ids[1]])
        #expect(schedule.take(now: at(2)) == [ids[1]])
        #expect(schedule.take(now: at(1_000)) == [])

        schedule.probeEnded(ids[0], interval: .seconds(2), jitter: 0.5, now: at(1_000))
        #expect(schedule.take(now: at(2_999)) == [])
        #expect(schedule.nextDue == at(3_000))
        #expect(schedule.take(now: at(3_000)) == [ids[0]])
    }

    @Test func jitterStretchesTheIntervalByAtMostAFifth() {
        let id = NodeID(unchecked: "a")
        for (jitter, expected) in [(0.0, 1_600), (0.5, 2_000), (1.0, 2_400)] {
            var schedule = ProbeSchedule()
            schedule.nodesReplaced([id], needsAddress: [], now: MonotonicTime(nanoseconds: 0))
            schedule.wordsAsked([id])
            schedule.probeEnded(id, interval: .seconds(2), jitter: jitter, now: MonotonicTime(nanoseconds: 0))
            #expect(schedule.nextDue == MonotonicTime(nanoseconds: Int64(expected) * 1_000_000))
        }
    }

    // MARK: Names

    @Test func literalsNeedNoResolver() {
        #expect(HostResolver.literal("10.1.2.3")?.ipAddress == "10.1.2.3")
        #expect(HostResolver.literal("::1")?.ipAddress == "::1")
        #expect(HostResolver.literal("localhost") == nil)
    }

    @Test func localhostResolvesToLoopbackAndNonsenseToAReason() async throws {
        let resolver = HostResolver(threads: .singleton)
        let addresses = try await resolver.resolve("localhost")
        #expect(!addresses.isEmpty)
        #expect(addresses.allSatisfy { ["127.0.0.1", "::1"].contains($0.ipAddress) }, "\(addresses)")
        await #expect(throws: HostResolutionFailure.self) { try await resolver.resolve("no such host") }
    }

    @Test func cancelledResolutionGivesUpAtOnce() async {
        let task = Task { () -> Bool in
            while !Task.isCancelled { await Task.yield() }
            do throws(HostResolutionFailure) {
                _ = try await HostResolver(threads: .singleton).resolve("localhost")
                return false
            } catch {
                return error == .givenUp("localhost")
            }
        }
        task.cancel()
        #expect(await task.value)
    }
}
