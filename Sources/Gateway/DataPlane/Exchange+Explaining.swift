import Domain
import Logging
import OpenAIProtocol
import Routing

// Why a request went where it went, for operators who ask. Never anything of the prompt but how much of it was cached.
extension Exchange {
    /// At dispatch, while the router still knows.
    func explain(_ assignment: Assignment) {
        let isLogged = loop.services.logger.logLevel <= .debug
        guard isLogged || snapshot.configuration.routing.explainsInHeader else { return }
        explanation = loop.services.router.explanation(assignment)
        guard isLogged, let explanation else { return }
        loop.services.logger.debug(
            "routed",
            metadata: [
                "request": "\(requestID)", "policy": "\(explanation.policy.rawValue)",
                "chosen": "\(explanation.chosen.summary)",
                "runner_up": "\(explanation.runnerUp?.summary ?? "none")",
            ])
    }

    /// `x-tollgate-routing`, where the operator lets clients see it.
    func addRouting(to head: inout AnswerHead) {
        guard snapshot.configuration.routing.explainsInHeader, let explanation else { return }
        head.extra.append((name: "x-tollgate-routing", value: explanation.header))
    }
}

extension RoutingExplanation {
    /// `node=a; cost=0.412; wait=0.100; ...; cached=2048; requests=3; next=b; next_cost=0.600`. Terms below half a
    /// millisecond are left out.
    var header: String {
        var parts = [chosen.summary]
        if let runnerUp {
            parts.append("next=\(runnerUp.node)")
            if let cost = runnerUp.cost { parts.append("next_cost=\(milliseconds: cost.total)") }
        }
        return parts.joined(separator: "; ")
    }
}

extension RoutingCandidate {
    var summary: String {
        var parts = ["node=\(node)"]
        if let cost {
            parts.append("cost=\(milliseconds: cost.total)")
            for (name, seconds) in cost.named where seconds >= 0.000_5 {
                parts.append("\(name)=\(milliseconds: seconds)")
            }
        }
        parts.append("cached=\(cachedTokens)")
        parts.append("requests=\(requests)")
        return parts.joined(separator: "; ")
    }
}

extension DefaultStringInterpolation {
    /// Seconds with three decimals.
    fileprivate mutating func appendInterpolation(milliseconds seconds: Double) {
        let count = Int64((min(max(seconds, 0), 1e9) * 1_000).rounded())
        let rest = String(count % 1_000)
        appendInterpolation("\(count / 1_000).\(String(repeating: "0", count: 3 - rest.count))\(rest)")
    }
}
