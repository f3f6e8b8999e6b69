import Domain
import Foundation
import JSON
import Simulator
import Testing

/// ledger.md's table "Who pays", and what holds promise.
@Suite(.serialized) struct MoneyTests {
    private func shared() async throws -> (GatewayUnderTest, SharedGateway, Customer) {
        let shared = try await SharedGateway.get()
        return (shared.gateway, shared, try await Customer.create(on: shared.gateway))
    }

    /// The gateway's own count of a prompt: ceil(body bytes / 4).
    // MARK: The client leaves

    @Test func aClientThatLeavesBeforeDispatchPaysNothing() async throws {
        let (gateway, shared, customer) = try await shared()
        let before = shared.node("unreached").stats.requests
        let bytes = Ask.chat("unreached", key: customer.key).bytes
        for cut in [bytes.count - 1, bytes.count - 40, 60] {
            let wire = try gateway.connect()
            try wire.send(Array(bytes[..<cut]))
            wire.reset()
        }
        try await until("nothing open") {
            try await gateway.gauge("tollgate_buffered_bytes") == 0
        }
        try await customer.expectNoCharge()
        #expect(shared.node("unreached").stats.requests == before)
    }

    @Test func aClientThatLeavesDuringPrefillPaysThePromptAndTheNodeStopsAtOnce() async throws {
        let (gateway, shared, customer) = try await shared()
        let node = shared.node("prefill-left")
        var delays: [Double] = []
        let ask = Ask.chat("prefill-left", key: customer.key, stream: true)
        for _ in 0..<3 {
            let before = node.stats
            let wire = try gateway.connect()
            try wire.send(ask)
            _ = try await node.stats { $0.requests > before.requests }
            let left = MonotonicTime.now()
            wire.close()
            _ = try await node.stats { $0.aborted > before.aborted }
            delays.append(MonotonicTime.now().seconds(since: left))
        }
        // A busy machine may delay one of them.
        #expect(delays.min()! < 0.1, "\(delays)")
        let books = try await customer.books(settles: 3)
        #expect(
            books.settles.allSatisfy { $0.estimated && $0.completion == 0 && ask.promptEstimates.contains($0.prompt) })
        let line = try await gateway.accessLine(of: books.settles[0].requestID ?? "")
        #expect(line["status"]?.integer == 499)
        #expect(line["failure"]?.string == "client_closed")
    }

    @Test(arguments: [false, true])
    func aClientThatLeavesInMidStreamPaysThePromptAndWhatItGot(resets: Bool) async throws {
        let (gateway, shared, customer) = try await shared()
        let node = shared.node("slow-left")
        let before = node.stats
        let ask = Ask.chat("slow-left", key: customer.key, stream: true, tokens: 2_000)
        let wire = try gateway.connect()
        try wire.send(ask)
        let got = try await blocking {
            _ = try wire.head()
            var got = 0
            while got < 4, let event = try wire.nextEvent() {
                if event.contains("\"content\":\""), !event.contains("\"content\":\"\"") { got += 1 }
            }
            return got
        }
        let left = MonotonicTime.now()
        if resets { wire.reset() } else { wire.close() }
        _ = try await node.stats { $0.aborted > before.aborted }
        #expect(MonotonicTime.now().seconds(since: left) < 1)
        let entry = try await customer.onlySettle()
        #expect(entry.estimated)
        #expect(ask.promptEstimates.contains(entry.prompt))
        // What was on its way when the client left was delivered, too.
        #expect((got...got + 30).contains(entry.completion), "\(entry.completion)")
        let generated = node.stats.generatedTokens - before.generatedTokens
        #expect(generated < 100)
    }

    @Test func aPlainRequestWhoseClientLeavesIsChargedItsPromptAndAborted() async throws {
        let (gateway, shared, customer) = try await shared()
        let node = shared.node("slow-left")
        let before = node.stats
        let ask = Ask.chat("slow-left", key: customer.key, tokens: 2_000)
        let wire = try gateway.connect()
        try wire.send(ask)
        _ = try await node.stats { $0.generatedTokens > before.generatedTokens }
        wire.close()
        _ = try await node.stats { $0.aborted > before.aborted }
        let entry = try await customer.onlySettle()
        #expect(entry.estimated)
        #expect(ask.promptEstimates.contains(entry.prompt))
        #expect(entry.completion == 0)
    }

    // MARK: The node fails

    @Test func aNodeThatDiesInMidStreamEndsItWithAnErrorEventAndAnEstimatedCharge() async throws {
        let (gateway, _, customer) = try await shared()
        let ask = Ask.chat("dies", key: customer.key, stream: true, tokens: 50)
        let answer = try await gateway.ask(ask)
        #expect(answer.status == 200)
        #expect(Answer.errorCode(of: answer.events.last ?? "") == "upstream_unavailable")
        #expect(!answer.text.contains("[DONE]"))
        let contents = answer.events.count { $0.contains("\"content\":\"") && !$0.contains("\"content\":\"\"") }
        let entry = try await customer.onlySettle()
        #expect(entry.estimated)
        #expect(ask.promptEstimates.contains(entry.prompt))
        #expect(entry.completion == contents)
    }

    @Test func aNodeThatDiesBeforeItsPlainAnswerCostsNothing() async throws {
        let (gateway, _, customer) = try await shared()
        let answer = try await gateway.ask(.chat("dies", key: customer.key, tokens: 50))
        #expect(answer.status == 502)
        #expect(answer.errorCode == "upstream_invalid_response")
        try await customer.expectNoCharge()
    }

    @Test func aStreamThatStallsEndsAfterTheIdleTimeWithAnErrorEvent() async throws {
        let (gateway, shared, customer) = try await shared()
        let before = shared.node("stalls").stats.aborted
        let answer = try await gateway.ask(.chat("stalls", key: customer.key, stream: true, tokens: 50))
        #expect(Answer.errorCode(of: answer.events.last ?? "") == "upstream_timeout")
        #expect(!answer.text.contains("[DONE]"))
        let entry = try await customer.onlySettle()
        #expect(entry.estimated)
        #expect(entry.completion == 5)
        _ = try await shared.node("stalls").stats { $0.aborted > before }
    }

    @Test(arguments: [false, true])
    func aNodeThatDoesNotBeginInTimeGets504AndCostsNothing(stream: Bool) async throws {
        let (gateway, shared, customer) = try await shared()
        let before = shared.node("late").stats.aborted
        let answer = try await gateway.ask(.chat("late", key: customer.key, stream: stream))
        #expect(answer.status == 504)
        #expect(answer.errorCode == "upstream_timeout")
        _ = try await shared.node("late").stats { $0.aborted > before }
        try await customer.expectNoCharge()
    }

    @Test func aNodeThatFailsWithAStatusGets502AndCostsNothing() async throws {
        let (gateway, _, customer) = try await shared()
        let answer = try await gateway.ask(.chat("status-500", key: customer.key))
        #expect(answer.status == 502)
        #expect(answer.errorCode == "upstream_invalid_response")
        #expect(!answer.text.contains("fault"))
        try await customer.expectNoCharge()
    }

    @Test func aPlainAnswerThatIsNoJSONGets502AndCostsNothing() async throws {
        let (gateway, _, customer) = try await shared()
        let answer = try await gateway.ask(.chat("bad-json", key: customer.key))
        #expect(answer.status == 502)
        #expect(answer.errorCode == "upstream_invalid_response")
        try await customer.expectNoCharge()
    }

    @Test func aStreamWithoutDoneEndsWithAnErrorEvent() async throws {
        let (gateway, _, customer) = try await shared()
        let answer = try await gateway.ask(.chat("no-done", key: customer.key, stream: true, tokens: 6))
        #expect(Answer.errorCode(of: answer.events.last ?? "") == "upstream_invalid_response")
        #expect(!answer.text.contains("[DONE]"))
        let entry = try await customer.onlySettle()
        #expect(entry.estimated)
        #expect(entry.completion == 6)
    }

    // MARK: Usage that is missing or wrong

    @Test(arguments: [false, true])
    func withoutUsageTheGatewaysOwnCountIsCharged(stream: Bool) async throws {
        let (gateway, _, customer) = try await shared()
        let ask = Ask.chat("no-usage", key: customer.key, stream: stream, tokens: 7)
        let answer = try await gateway.ask(ask)
        #expect(answer.status == 200)
        if stream { #expect(answer.events.last == "[DONE]") }
        let entry = try await customer.onlySettle()
        #expect(entry.estimated)
        #expect(ask.promptEstimates.contains(entry.prompt))
        #expect((1...7).contains(entry.completion))
        if stream { #expect(entry.completion == 7) }
    }

    @Test(arguments: [false, true])
    func usageWithinItsBoundIsBelievedAndBeyondItIsNot(stream: Bool) async throws {
        let (gateway, _, customer) = try await shared()
        // Half as much again of a short completion passes max_tokens; of the prompt it stays below the body's bytes.
        let beyond = Ask.chat("more-usage", key: customer.key, stream: stream, tokens: 20)
        #expect(try await gateway.ask(beyond).status == 200)
        let entry = try await customer.onlySettle()
        #expect(entry.estimated)
        #expect(beyond.promptEstimates.contains(entry.prompt))
        #expect(entry.completion <= 20)
        let other = try await Customer.create(on: gateway)
        let body = #"{"model":"more-usage","input":"one two three four"}"#
        let answer = try await gateway.ask(.post("/v1/embeddings", body, key: other.key))
        let within = try await other.onlySettle()
        #expect(!within.estimated)
        #expect(within.prompt == (try answer.json())["usage"]?["prompt_tokens"]?.integer)
        let distrusted = try await Metrics(gateway.metrics()).value("tollgate_usage_distrusted_total")
        #expect(distrusted ?? 0 >= 1)
    }

    @Test func aPromptBeyondTheBodysBytesIsNotBelieved() async throws {
        let (gateway, _, customer) = try await shared()
        let body = #"{"model":"too-much-usage","input":"one two three four"}"#
        #expect(try await gateway.ask(.post("/v1/embeddings", body, key: customer.key)).status == 200)
        let entry = try await customer.onlySettle()
        #expect(entry.estimated)
        #expect((1...body.utf8.count / 2).contains(entry.prompt))
    }

    @Test func aStreamThatGeneratesBeyondItsLimitIsCutOffAtTheHold() async throws {
        let (gateway, _, customer) = try await shared()
        let answer = try await gateway.ask(.chat("overrun", key: customer.key, stream: true, tokens: 5))
        #expect(!answer.text.contains("[DONE]"))
        #expect(Answer.errorCode(of: answer.events.last ?? "") == "upstream_invalid_response")
        let entry = try await customer.onlySettle()
        #expect(entry.completion == 5)
        #expect(entry.estimated)
    }

    @Test func aPlainAnswerBeyondItsLimitIsChargedAtMostTheHold() async throws {
        let (gateway, _, customer) = try await shared()
        #expect(try await gateway.ask(.chat("overrun", key: customer.key, tokens: 5)).status == 200)
        let entry = try await customer.onlySettle()
        #expect(entry.estimated)
        #expect(entry.completion <= 5)
    }

    // MARK: Many at once

    @Test func ofManyRequestsAtOnceExactlyThoseThatTheBalanceCarriesAreServed() async throws {
        let (gateway, _, _) = try await shared()
        // What is held: one token a byte of the body and 64 for the template, and max tokens.
        let admitted = 25
        let ask = Ask.chat("slow", stream: true, tokens: 2)
        let hold = ((ask.body?.count ?? 0) + 64) * GatewayUnderTest.inputPrice + 2 * GatewayUnderTest.outputPrice
        let nano = hold * admitted + hold / 2
        let digits = String(nano)
        let credit = "0." + String(repeating: "0", count: 9 - digits.count) + digits
        let customer = try await Customer.create(on: gateway, credit: credit)
        var request = ask
        request.key = customer.key
        let final = request
        let answers = try await withThrowingTaskGroup(of: Answer.self) { group in
            for _ in 0..<200 { group.addTask { try await gateway.ask(final) } }
            return try await group.reduce(into: []) { $0.append($1) }
        }
        let served = answers.count { $0.status == 200 }
        #expect(answers.allSatisfy { $0.status == 200 || $0.errorCode == "insufficient_quota" })
        // Charges are less than holds, so those that come late may find room again; none may pass the balance.
        #expect(served >= admitted)
        let books = try await customer.books(settles: served)
        #expect(books.balance >= 0)
        #expect(nano + books.settles.reduce(0) { $0 + $1.amount } == books.balance)
    }

    @Test func exactlyAsManyStreamsRunAtOnceAsTheBalanceHolds() async throws {
        let (gateway, shared, _) = try await shared()
        let node = shared.node("prefill-held")
        let ask = Ask.chat("prefill-held", stream: true, tokens: 2)
        let hold = ((ask.body?.count ?? 0) + 64) * GatewayUnderTest.inputPrice + 2 * GatewayUnderTest.outputPrice
        let digits = String(hold * 7 + hold / 2)
        let customer = try await Customer.create(
            on: gateway, credit: "0." + String(repeating: "0", count: 9 - digits.count) + digits)
        var request = ask
        request.key = customer.key
        let final = request
        let before = node.stats.requests
        let wires = try (0..<100).map { _ in
            let wire = try gateway.connect()
            try wire.send(final)
            return wire
        }
        // Nothing is settled while all of them prefill: holds alone decide, and whoever has an answer was refused.
        let refused = try await eventually("all but those that the balance holds to be refused") { () -> [Wire]? in
            let refused = wires.filter { !$0.isSilent(for: .zero) }
            return refused.count >= 93 ? refused : nil
        }
        #expect(refused.count == 93)
        _ = try await node.stats { $0.requests == before + 7 }
        let codes = try await blocking { try refused.map { try $0.response().errorCode } }
        #expect(Set(codes) == ["insufficient_quota"])
        let org = try await customer.show()
        #expect(org["reserved_nanousd"]?.integer == 7 * hold)
        #expect(org["open_reservations"]?.integer == 7)
        #expect(org["available_nanousd"]?.integer == hold / 2)
        for wire in wires { wire.close() }
        let books = try await customer.books(settles: 7)
        #expect(books.settles.allSatisfy { $0.estimated && $0.completion == 0 })
    }

    @Test func aMixtureOfEverythingLeavesTheBooksSound() async throws {
        let (gateway, _, customer) = try await shared()
        let answers = try await withThrowingTaskGroup(of: Answer.self) { group in
            let models = ["fast", "no-usage", "more-usage", "no-done", "closes", "fast"]
            for index in 0..<120 {
                let model = models[index % models.count]
                group.addTask {
                    try await gateway.ask(
                        .chat(model, key: customer.key, stream: index % 2 == 0, tokens: 1 + index % 9))
                }
            }
            return try await group.reduce(into: []) { $0.append($1) }
        }
        // Every one was delivered something, so each is charged once: plain ones without [DONE] are whole, too.
        #expect(answers.allSatisfy { $0.status == 200 })
        let books = try await customer.books(settles: 120)
        #expect(Set(books.settles.compactMap(\.requestID)) == Set(answers.map(\.requestID)))
        let usage = try await gateway.admin("GET", "/admin/v1/orgs/\(customer.org)/usage")
        #expect(usage[0]?["requests"]?.integer == 120)
        #expect(usage[0]?["cost_nanousd"]?.integer == -books.settles.reduce(0) { $0 + $1.amount })
    }
}
