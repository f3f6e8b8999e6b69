import Domain
import JSON
import Simulator
import Testing

@Suite struct SimulatedNodeFaultTests {
    private static let path = "/v1/chat/completions"

    @Test func refuseResetsWithoutAByteAndCanBeLifted() async throws {
        try await withNode(fault: "refuse") { node in
            let port = node.port
            for path in [Self.path, "/health"] {
                await #expect(throws: RawClient.Failure.reset("")) {
                    try await live { _ = try RawClient(port: port).ask("POST", path, chat(1)) }
                }
            }
            let (set, answer) = try await live {
                let client = try RawClient(port: port)
                return (try client.ask("POST", "/fault", ""), try client.ask("POST", Self.path, chat(1)))
            }
            #expect(try set.json()["fault"] == "")
            #expect(answer.status == 200)
        }
    }

    @Test func statusHitsTheRequestsOfItsTriggerOnly() async throws {
        try await withNode(fault: "status:502@every 2") { node in
            let port = node.port
            let statuses = try await live {
                let client = try RawClient(port: port)
                return try (0..<4).map { _ in
                    _ = try client.ask("GET", "/health")
                    return try client.ask("POST", Self.path, chat(1)).status
                }
            }
            #expect(statuses == [200, 502, 200, 502])
        }
    }

    @Test func planIsSetOverHTTPAndABadOneChangesNothing() async throws {
        try await withNode { node in
            let port = node.port
            let (set, bad, told, answer) = try await live {
                let client = try RawClient(port: port)
                return (
                    try client.ask("POST", "/fault", " status:500 "), try client.ask("POST", "/fault", "status:1"),
                    try client.ask("GET", "/fault"), try client.ask("POST", Self.path, chat(1))
                )
            }
            #expect(set.status == 200)
            #expect(try bad.json()["error"]?["message"]?.string?.contains("400 to 599") == true)
            #expect(try told.json() == ["fault": "status:500"])
            #expect(answer.status == 500)
            #expect(try answer.json()["error"]?["code"] == 500)
            await #expect(throws: FaultPlanError.self) { try await node.setFault("nonsense") }
        }
    }

    @Test func loadingAnswers503ToProbesToo() async throws {
        try await withNode(fault: "loading:1440m") { node in
            let port = node.port
            let (answer, health) = try await live {
                let client = try RawClient(port: port)
                return (try client.ask("POST", Self.path, chat(1)), try client.ask("GET", "/health"))
            }
            #expect(answer.status == 503)
            #expect(try answer.json()["error"]?["message"] == "Loading model")
            #expect(health.status == 503)
        }
    }

    @Test func loadingEndsByItself() async throws {
        try await withNode(fault: "loading:50ms") { node in
            let port = node.port
            let answer = try await live {
                let client = try RawClient(port: port)
                let start = MonotonicTime.now()
                while try client.ask("GET", "/health").status == 503, MonotonicTime.now().seconds(since: start) < 10 {}
                return try client.ask("POST", Self.path, chat(1))
            }
            #expect(answer.status == 200)
        }
    }

    @Test func firstTokenComesLate() async throws {
        try await withNode(fault: "first_token:250ms") { node in
            let port = node.port
            let (waited, events) = try await live {
                let client = try RawClient(port: port)
                let start = MonotonicTime.now()
                let events = try client.ask("POST", Self.path, chat(3, streaming)).events
                return (MonotonicTime.now().seconds(since: start), events)
            }
            #expect(waited >= 0.25)
            #expect(events.count == 7)
        }
    }

    @Test func disconnectDuringTheDelayIsCounted() async throws {
        try await withNode(fault: "first_token:600s") { node in
            let port = node.port
            let client = Mutexed(try RawClient(port: port))
            client.value.send("POST", Self.path, chat(3))
            _ = try await node.stats { $0.waiting == 1 }
            client.value.close()
            #expect(try await node.stats { $0.aborted == 1 }.waiting == 0)
        }
    }

    @Test(arguments: SimulatedNodeTests.speeds)
    func dieResetsAfterItsTokens(speed: NodeSpeed) async throws {
        try await withNode(speed: speed, fault: "die:20") { node in
            let port = node.port
            let client = Mutexed(try RawClient(port: port))
            client.value.send("POST", Self.path, chat(50, streaming))
            let text = try await live {
                do {
                    return try client.value.rest()
                } catch RawClient.Failure.reset(let text) {
                    return text
                }
            }
            #expect(!client.value.isAtEnd)
            #expect(text.components(separatedBy: #""delta":{"content":"#).count - 1 <= 20)
            #expect(!text.contains("[DONE]"))
            await #expect(throws: RawClient.Failure.reset("")) {
                try await live { _ = try RawClient(port: port).ask("POST", Self.path, chat(50)) }
            }
            let short = try await live { try RawClient(port: port).ask("POST", Self.path, chat(19, streaming)) }
            #expect(short.events.last == "[DONE]")
            #expect(try await node.stats { $0.running == 0 && $0.connections == 0 }.aborted == 0)
        }
    }

    @Test func stallFallsSilentAndHoldsItsPlaceUntilTheClientLeaves() async throws {
        try await withNode(fault: "stall:20") { node in
            let port = node.port
            let client = Mutexed(try RawClient(port: port))
            client.value.send("POST", Self.path, chat(50, streaming))
            let silent = try await live {
                for _ in 0..<20 { _ = try client.value.take(through: #""delta":{"content":" "#) }
                _ = try client.value.take(through: "\n\n\r\n")
                return client.value.isSilent(milliseconds: 100)
            }
            #expect(silent)
            #expect(try await node.stats { $0.running == 1 }.running == 1)
            client.value.close()
            #expect(try await node.stats { $0.aborted == 1 }.running == 0)
        }
    }

    @Test func badJSONCannotBeRead() async throws {
        try await withNode(fault: "bad_json") { node in
            let port = node.port
            let (plain, stream) = try await live {
                let client = try RawClient(port: port)
                return (
                    try client.ask("POST", Self.path, chat(5)), try client.ask("POST", Self.path, chat(5, streaming))
                )
            }
            #expect(plain.status == 200)
            #expect(throws: JSONError.self) { try plain.json() }
            let broken = stream.events.dropLast().filter { (try? JSONValue(parsing: $0)) == nil }
            #expect(broken.count == 1)
        }
    }

    @Test func closeEndsTheConnectionWithoutSayingSo() async throws {
        try await withNode(fault: "close") { node in
            let port = node.port
            let text = try await live {
                let client = try RawClient(port: port)
                client.send("POST", Self.path, chat(2, streaming))
                return try client.rest()
            }
            #expect(text.hasSuffix("\r\n0\r\n\r\n"))
            #expect(!text.lowercased().contains("connection: close"))
        }
    }

    @Test func usageIsOffByThePercentage() async throws {
        try await withNode(fault: "usage:+50%") { node in
            let port = node.port
            let usage = try await live {
                try RawClient(port: port).ask("POST", Self.path, chat(10)).json()["usage"]
            }
            #expect(usage?["prompt_tokens"] == 14)
            #expect(usage?["completion_tokens"] == 15)
            #expect(usage?["total_tokens"] == 29)
            #expect(try await node.stats { $0.generatedTokens == 10 }.generatedTokens == 10)
        }
    }

    @Test func missingUsageAndMissingDoneAreMissing() async throws {
        try await withNode(fault: "no_usage,no_done") { node in
            let port = node.port
            let (plain, stream) = try await live {
                let client = try RawClient(port: port)
                return (
                    try client.ask("POST", Self.path, chat(5)), try client.ask("POST", Self.path, chat(5, streaming))
                )
            }
            #expect(try plain.json()["usage"] == nil)
            #expect(!stream.body.contains("usage") && !stream.body.contains("[DONE]"))
            #expect(stream.events.count == 7)
        }
    }

    @Test func overrunGeneratesPastTheLimit() async throws {
        try await withNode(fault: "overrun:10") { node in
            let port = node.port
            let json = try await live { try RawClient(port: port).ask("POST", Self.path, chat(5)).json() }
            #expect(json["usage"]?["completion_tokens"] == 15)
            #expect(json["choices"]?[0]?["message"]?["content"]?.string?.split(separator: " ").count == 15)
        }
    }
}
