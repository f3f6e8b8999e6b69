import Domain
import Logging
import Routing

/// How requests wait in the gateway while no node has room: `queue`.
package struct QueueConfiguration: Hashable, Sendable {
    package static let requestsMax = 1_000_000
    /// More would be a list of all orgs.
    package static let priorityOrgsMax = 1_024

    /// That wait at once; 0 refuses at once what finds no room.
    package var requests: Int
    /// How long one waits.
    package var deadline: Duration
    /// Whose `service_tier: priority` counts; nil is everybody's.
    package var priorityOrgs: [OrgID]?

    package init(requests: Int = 1_000, deadline: Duration = .seconds(30), priorityOrgs: [OrgID]? = nil) {
        self.requests = requests
        self.deadline = deadline
        self.priorityOrgs = priorityOrgs
    }

    /// Which of the API's words stands where. `auto`, `default`, `scale` and unknown ones are the usual class.
    func admissionClass(of serviceTier: String?, org: OrgID) -> AdmissionClass {
        switch serviceTier {
        case "priority" where priorityOrgs?.contains(org) != false: .priority
        case "flex": .flex
        default: .standard
        }
    }
}

/// What answers should be like: `routing.objective`.
package struct RoutingObjective: Hashable, Sendable {
    /// Requests wait in the gateway rather than behind others on a node when the least busy node is so many times this
    /// behind.
    package static let waitMultiple = 1.5

    /// Request to first token.
    package var firstToken: Duration
    /// Between two tokens.
    package var perOutputToken: Duration

    package init(firstToken: Duration = .seconds(2), perOutputToken: Duration = .milliseconds(50)) {
        self.firstToken = firstToken
        self.perOutputToken = perOutputToken
    }
}

extension GatewayConfiguration {
    /// Of the bodies' memory those that wait may have one part in so many: the rest is for requests that find room.
    private static let waitingBytesShare = 2

    /// What the waiting room is bounded by.
    var admissionLimits: AdmissionLimits {
        var limits = AdmissionLimits(
            bytesMax: limits.bufferedBytes / Self.waitingBytesShare,
            waitSecondsMax: Double(routing.objective.firstToken.nanoseconds) / 1e9
                * RoutingObjective.waitMultiple)
        limits.requestsMax = queue.requests
        return limits
    }
}

extension SharedRouter {
    /// What of the configuration a reload may change.
    func configure(_ configuration: GatewayConfiguration, logger: Logger) {
        setExplaining(configuration.routing.explainsInHeader || logger.logLevel <= .debug)
        configureAdmission(
            configuration.admissionLimits,
            stepSecondsMax: Double(configuration.routing.objective.perOutputToken.nanoseconds) / 1e9)
    }
}
