import Domain
import Testing

@testable import Routing

struct RegionRoutingTests {
    private func placed(_ number: Int, _ region: String?, models: [ModelID] = [llama]) -> NodeSpec {
        NodeSpec(
            id: NodeID(unchecked: "n\(number)"), site: SiteID(unchecked: "s"), engine: .vllm, speedClass: "h100",
            models: models.map { ServedModel(model: $0, upstreamName: "up") }, maxConcurrency: 4, rttNanoseconds: 0,
            region: region)
    }

    private func pinned(_ region: String?, model: ModelID = llama, session: UInt64 = 0) -> RoutingRequest {
        var request = request(model)
        request.region = region
        request.session = session
        return request
    }

    @Test(arguments: RoutingPolicy.allCases)
    func noPolicyLeavesTheRegion(policy: RoutingPolicy) throws {
        let router = RouterUnderTest.ready(
            (0..<9).map { placed($0, ["eu", "us", nil][$0 % 3]) }, policy: policy)
        for number in 0..<12 {
            let assignment = try #require(
                router.assign(pinned("eu", session: UInt64(number % 3 + 1)), blocks: [1, 2, 3]))
            #expect(assignment.nodeIndex % 3 == 0)
            router.firstToken(assignment, now: 2)
        }
        #expect(router.decide(pinned("eu")) == .refuse(.allAtConcurrency))
        #expect(router.leastWait(pinned("eu"), now: 2) == .infinity)
        #expect(router.leastWait(pinned("us"), now: 2) == 0)
    }

    /// Beyond a full scan, holders of the prompt and the session's winners are looked at beside a sample.
    @Test func noLargeFleetLeavesTheRegionOrTheModel() throws {
        let nodes = (0..<3_000).map { placed($0, $0 % 2 == 0 ? "eu" : "us", models: $0 % 50 == 0 ? [qwen] : [llama]) }
        let router = RouterUnderTest.ready(nodes, policy: .predictedCost)
        for number in 0..<400 {
            let region = number % 2 == 0 ? "eu" : "us"
            let session = UInt64(number / 4 + 1) &* 0x9E37_79B9_7F4A_7C15
            let assignment = try #require(
                router.assign(pinned(region, session: session), blocks: [session, session &+ 1, session &+ 2]))
            let node = try #require(router.fleet.slots[assignment.nodeIndex])
            #expect(node.region == region)
            #expect(node.models.contains { $0.model == llama })
        }
    }

    @Test func aRegionThatDoesNotServeTheModelIsNotAMatterOfTime() {
        let router = RouterUnderTest.ready([placed(0, "eu"), placed(1, "us", models: [llama, qwen])])
        #expect(router.decide(pinned("eu", model: qwen)) == .refuse(.regionNotServed))
        #expect(router.decide(pinned("mars")) == .refuse(.regionNotServed))
        #expect(!router.router.takesRequests(qwen, in: "eu"))
        #expect(router.router.servableModels(in: "eu") == [llama])
        #expect(router.router.servableModels() == [llama, qwen])
        router.cordon(true, "n0")
        #expect(router.decide(pinned("eu")) == .refuse(.allCordoned))
    }
}
