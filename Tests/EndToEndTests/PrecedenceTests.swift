import Domain
import Foundation
import JSON
import Simulator
import Testing

/// Of two faults of one request the one that design.md names first is answered, whatever their order in the request:
/// from the org's state to the lack of a node. What stands before the key is in `BadInputTests`.
@Suite(.serialized) struct PrecedenceTests {
    private enum Fault: Int, CaseIterable {
        case suspended, size, json, field, model, context, rate, quota, store, capacity

        var answer: (status: Int, code: String) {
            switch self {
            case .suspended: (403, "org_suspended")
            case .size: (413, "request_too_large")
            case .json: (400, "invalid_json")
            case .field: (400, "invalid_request")
            case .model: (404, "model_not_found")
            case .context: (400, "context_length_exceeded")
            case .rate: (429, "rate_limit_exceeded")
            case .quota: (429, "insufficient_quota")
            case .store: (503, "store_unavailable")
            case .capacity: (503, "overloaded")
            }
        }

        /// Faults of the customer's account.
        static let ofAccount: Set<Fault> = [.suspended, .rate, .quota]
    }

    /// nil where the two exclude each other: an unknown model has no nodes, and an account that is at its limits is known
    /// by the store alone.
    private static func pair(_ first: Fault, _ second: Fault) -> Set<Fault>? {
        let pair: Set<Fault> = [first, second]
        if pair == [.model, .capacity] || pair.contains(.store) && !pair.isDisjoint(with: [.rate, .quota]) {
            return nil
        }
        return pair
    }

    private static func request(_ faults: Set<Fault>, key: String) -> String {
        let model = faults.contains(.model) ? "nobody" : faults.contains(.capacity) ? "down" : "m"
        var body = #"{"messages":[{"role":"user","content":"x"}],"max_tokens":"#
        body += faults.contains(.context) ? "5000" : "5"
        // Behind the others, so that their order in the body says nothing.
        if faults.contains(.field) { body += #","stream":5"# }
        body += #","model":"\#(model)"}"#
        if faults.contains(.json) { body += "]" }
        let length = faults.contains(.size) ? 99_999_999 : body.utf8.count
        return "POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer \(key)\r\n"
            + "Content-Type: application/json\r\nContent-Length: \(length)\r\n\r\n\(body)"
    }

    @Test func ofTwoFaultsTheEarlierIsAnswered() async throws {
        let node = try await SimulatedNode.serving("m")
        let down = try await SimulatedNode.serving("down")
        var plan = GatewayPlan()
        plan.loops = 1
        for (model, node) in [("m", node), ("down", down)] {
            plan.serve(model, port: node.port, options: ["context_tokens: 4096", "max_output_tokens: 64"])
        }
        let gateway = try await GatewayUnderTest.start(plan)
        try await gateway.admin("POST", "/admin/v1/nodes/node-down/cordon")
        var customers: [Set<Fault>: Customer] = [:]
        for account in [
            [], [.suspended], [.rate], [.quota], [.suspended, .rate], [.suspended, .quota], [.rate, .quota],
        ]
            as [Set<Fault>]
        {
            let customer = try await Customer.create(
                on: gateway, credit: account.contains(.quota) ? "0.000000001" : "10",
                keyLimits: account.contains(.rate) ? #","tpm":1"# : "")
            if account.contains(.suspended) {
                try await gateway.admin("POST", "/admin/v1/orgs/\(customer.org)/suspend")
            }
            customers[account] = customer
        }
        let redis = try #require(gateway.redis.processID)
        for first in Fault.allCases {
            for second in Fault.allCases where second.rawValue >= first.rawValue {
                guard let faults = Self.pair(first, second) else { continue }
                let customer = try #require(customers[faults.intersection(Fault.ofAccount)])
                // The key is in the cache, so a store that is away is met only where it is asked for the money.
                _ = try await gateway.ask(.get("/v1/models", key: customer.key))
                if faults.contains(.store) { kill(redis, SIGSTOP) }
                let answer = try await gateway.wire { wire in
                    wire.patience = .seconds(20)
                    try wire.send(Self.request(faults, key: customer.key))
                    return try wire.response()
                }
                if faults.contains(.store) {
                    kill(redis, SIGCONT)
                    try await until("readiness") { try await gateway.isReady() }
                }
                #expect(answer.status == first.answer.status, "\(first) and \(second): \(answer.text)")
                #expect(answer.errorCode == first.answer.code, "\(first) and \(second)")
            }
        }
        #expect(node.stats.requests == 0 && down.stats.requests == 0)
        for customer in customers.values { try await customer.expectNoCharge() }
    }
}
