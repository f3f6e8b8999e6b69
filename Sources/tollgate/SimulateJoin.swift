import ArgumentParser
import ControlPlane
import Domain
import NIOPosix
import ServiceLifecycle

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// How a simulated node registers itself with a gateway.
struct JoinOptions: ParsableArguments {
    static let tokenVariable = "TOLLGATE_JOIN_TOKEN"

    @Option(
        help: ArgumentHelp(
            "Register with the control plane there, and keep saying so; TOLLGATE_JOIN_TOKEN is the token.",
            valueName: "url"))
    var join: String?

    @Option(help: ArgumentHelp("Its id in the fleet. Default simulated-PORT.", valueName: "id"))
    var joinID: NodeID?

    @Option(help: ArgumentHelp("Its site in the fleet; needed with --join.", valueName: "site"))
    var joinSite: SiteID?

    @Option(help: ArgumentHelp("Public id of the model. Default --model.", valueName: "id"))
    var joinModel: ModelID?

    @Option(help: ArgumentHelp("Where the gateway reaches it. Default http://HOST:PORT.", valueName: "url"))
    var joinAs: String?

    @Option(help: ArgumentHelp("Between two heartbeats: 1s to 300s. Default 10s.", valueName: "time"))
    var heartbeat: TimeArgument?

    func validate() throws {
        guard join != nil else { return }
        guard joinSite != nil else { throw ValidationError("--join needs --join-site.") }
        if let heartbeat, !(1_000...300_000).contains(heartbeat.milliseconds) {
            throw ValidationError("--heartbeat must be 1s to 300s.")
        }
    }

    /// nil without --join.
    func membership(model: String, baseURL: String, port: Int, profile: String) throws -> JoinService? {
        guard let join, let joinSite else { return nil }
        guard let token = ProcessInfo.processInfo.environment[Self.tokenVariable], !token.isEmpty else {
            throw CommandFailure(
                "\(Self.tokenVariable) is not set; set it to the `join_token` of the gateway's configuration")
        }
        let id = joinID?.rawValue ?? "simulated-\(port)"
        let seconds = heartbeat ?? TimeArgument(argument: "10s")
        let body: [String: JSONValue] = [
            "id": .string(id), "site": .string(joinSite.rawValue), "url": .string(joinAs ?? baseURL),
            "engine": .string("vllm"), "class": .string(profile),
            "models": ServedModelsArgument(names: [joinModel?.rawValue ?? model: model]).value,
            "heartbeat_seconds": seconds?.value ?? .integer(10),
        ]
        return JoinService(
            client: try AdminClient(url: join, token: token), body: body,
            interval: .milliseconds(seconds?.milliseconds ?? 10_000))
    }
}

/// Registers, and says so again each interval until the process ends. A gateway that is away is tried again.
struct JoinService: Service {
    let client: AdminClient
    let body: [String: JSONValue]
    let interval: Duration

    func run() async throws {
        var isFailing: Bool?
        while !Task.isCancelled, !Task.isShuttingDownGracefully {
            let failure = await beat()
            if isFailing != (failure != nil) { Output.note(failure ?? "joined the fleet") }
            isFailing = failure != nil
            try? await cancelWhenGracefulShutdown { try await Task.sleep(for: interval) }
        }
    }

    /// - Returns: Why it is not registered.
    private func beat() async -> String? {
        do {
            try await NIOThreadPool.singleton.runIfActive { [client, body] in
                let _: AdmissionDocument = try client.call(.post, ["nodes"], body: body)
            }
            return nil
        } catch {
            return "cannot join the fleet: \(error); trying again"
        }
    }
}
