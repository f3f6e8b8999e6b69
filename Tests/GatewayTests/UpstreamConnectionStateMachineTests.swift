import Gateway
import Testing

private typealias Machine = UpstreamConnectionStateMachine

private enum Event: CaseIterable {
    case connected, requestSent, bytesArrived
    case headReceivedKeep, headReceivedClose, headReceivedEarly
    case responseEnded, responseEndedWithExcess, responseRejected
    case callCancelled, idleExpired, connectionClosed, connectionClosedEndsBody
}

extension Machine {
    fileprivate mutating func handle(_ event: Event) -> Action {
        switch event {
        case .connected: connected()
        case .requestSent: requestSent()
        case .bytesArrived: bytesArrived()
        case .headReceivedKeep: headReceived(keepAlive: true, requestWritten: true)
        case .headReceivedClose: headReceived(keepAlive: false, requestWritten: true)
        case .headReceivedEarly: headReceived(keepAlive: true, requestWritten: false)
        case .responseEnded: responseEnded(excess: false)
        case .responseEndedWithExcess: responseEnded(excess: true)
        case .responseRejected: responseRejected()
        case .callCancelled: callCancelled()
        case .idleExpired: idleExpired()
        case .connectionClosed: connectionClosed(endsBody: false)
        case .connectionClosedEndsBody: connectionClosed(endsBody: true)
        }
    }
}

/// Every state by the events that lead there.
private let paths: [(name: String, path: [Event], state: Machine.State)] = [
    ("connecting", [], .connecting),
    ("idle", [.connected], .idle),
    ("awaiting", [.connected, .requestSent], .awaiting(reused: false, bytesArrived: false)),
    ("awaiting with bytes", [.connected, .requestSent, .bytesArrived], .awaiting(reused: false, bytesArrived: true)),
    (
        "relaying, to be kept", [.connected, .requestSent, .bytesArrived, .headReceivedKeep],
        .relaying(reusable: true)
    ),
    (
        "relaying, to be closed", [.connected, .requestSent, .bytesArrived, .headReceivedClose],
        .relaying(reusable: false)
    ),
    (
        "relaying an early answer", [.connected, .requestSent, .bytesArrived, .headReceivedEarly],
        .relaying(reusable: false)
    ),
    (
        "idle again", [.connected, .requestSent, .bytesArrived, .headReceivedKeep, .responseEnded], .idle
    ),
    (
        "awaiting, reused",
        [.connected, .requestSent, .bytesArrived, .headReceivedKeep, .responseEnded, .requestSent],
        .awaiting(reused: true, bytesArrived: false)
    ),
    (
        "awaiting with bytes, reused",
        [.connected, .requestSent, .bytesArrived, .headReceivedKeep, .responseEnded, .requestSent, .bytesArrived],
        .awaiting(reused: true, bytesArrived: true)
    ),
    ("closed", [.connected, .idleExpired], .closed),
]

/// What is allowed. Everything else is `.illegal`, and closes.
private func expected(_ state: Machine.State, _ event: Event) -> (Machine.Action, Machine.State)? {
    switch (state, event) {
    case (.connecting, .connected): (.none, .idle)
    case (.connecting, .callCancelled): (.close, .closed)
    case (.connecting, .connectionClosed), (.connecting, .connectionClosedEndsBody):
        (.fail(.connectFailed), .closed)
    case (.idle, .bytesArrived), (.idle, .idleExpired): (.close, .closed)
    case (.idle, .connectionClosed), (.idle, .connectionClosedEndsBody): (.forget, .closed)
    case (.awaiting(let reused, false), .bytesArrived):
        (.releaseRequest, .awaiting(reused: reused, bytesArrived: true))
    case (.awaiting(_, true), .bytesArrived): (.none, state)
    case (.awaiting(_, true), .headReceivedKeep): (.none, .relaying(reusable: true))
    case (.awaiting(_, true), .headReceivedClose), (.awaiting(_, true), .headReceivedEarly):
        (.none, .relaying(reusable: false))
    case (.awaiting(_, true), .responseRejected), (.relaying, .responseRejected): (.close, .closed)
    case (.awaiting, .callCancelled), (.relaying, .callCancelled): (.close, .closed)
    case (.awaiting(true, false), .connectionClosed), (.awaiting(true, false), .connectionClosedEndsBody):
        (.sendAgain, .closed)
    case (.awaiting(false, false), .connectionClosed), (.awaiting(false, false), .connectionClosedEndsBody):
        (.fail(.closedBeforeResponse), .closed)
    case (.awaiting(_, true), .connectionClosed), (.awaiting(_, true), .connectionClosedEndsBody):
        (.fail(.closedMidResponse), .closed)
    case (.relaying, .bytesArrived): (.none, state)
    case (.relaying(true), .responseEnded): (.park, .idle)
    case (.relaying(false), .responseEnded), (.relaying, .responseEndedWithExcess): (.close, .closed)
    case (.relaying, .connectionClosed): (.fail(.closedMidResponse), .closed)
    case (.relaying, .connectionClosedEndsBody): (.end, .closed)
    case (.closed, .bytesArrived), (.closed, .responseRejected), (.closed, .callCancelled), (.closed, .idleExpired),
        (.closed, .connectionClosed), (.closed, .connectionClosedEndsBody):
        (.none, .closed)
    case (.idle, .requestSent): nil
    default: (.illegal, .closed)
    }
}

@Test(arguments: paths.indices)
private func upstreamConnectionAnswersEveryEventInEveryState(_ index: Int) {
    let (name, path, state) = paths[index]
    for event in Event.allCases {
        var machine = Machine()
        for step in path { _ = machine.handle(step) }
        #expect(machine.state == state, "\(name)")
        let sent = machine.requestCount
        let action = machine.handle(event)
        if let (expectedAction, expectedState) = expected(state, event) {
            #expect(action == expectedAction, "\(event) while \(name)")
            #expect(machine.state == expectedState, "\(event) while \(name)")
            #expect(machine.requestCount == sent)
        } else {
            #expect(action == .none, "\(event) while \(name)")
            #expect(machine.state == .awaiting(reused: sent > 0, bytesArrived: false), "\(event) while \(name)")
            #expect(machine.requestCount == sent + 1)
        }
    }
}
