import Domain

@testable import Redis

typealias Machine = RedisConnectionStateMachine<Int>

func seconds(_ value: Double) -> MonotonicTime { MonotonicTime(nanoseconds: Int64(value * 1e9)) }

let runID = String(repeating: "a1", count: 20)
let info = RESPValue.bulkString(Array("# Server\r\nredis_version:7.0.15\r\nrun_id:\(runID)\r\n".utf8))
let later = seconds(1_000)

func makeMachine(
    _ handshake: [RedisHandshakeStep] = [.identify], configure: (inout RedisLimits) -> Void = { _ in }
) -> Machine {
    var limits = RedisLimits()
    configure(&limits)
    return Machine(limits: limits, handshake: handshake)
}

func makeReady(at now: MonotonicTime = seconds(0), configure: (inout RedisLimits) -> Void = { _ in }) -> Machine {
    var machine = makeMachine(configure: configure)
    _ = machine.started()
    _ = machine.connected(now: now)
    _ = machine.replyReceived(info)
    return machine
}

extension Machine {
    /// Submits and encodes one that does not wait.
    mutating func sendOne(_ token: Int, deadline: MonotonicTime = later, bytes: Int = 10) -> SubmitAction {
        let action = commandSubmitted(token, deadline: deadline, waitingBytes: nil)
        if action == .write { commandEncoded(bytes: bytes) }
        return action
    }
}
