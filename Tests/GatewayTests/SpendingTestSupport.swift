import Billing
import Domain
import NIOCore
import NIOPosix
import Synchronization

@testable import Gateway

/// The pure ledger as a store that all loops share, with the ways in which a real one fails.
final class FakeLedger: Sendable {
    enum Mode: Sendable {
        /// Answers in the loop's next turn.
        case answering
        /// Says within the call that there is no connection.
        case unreachable
        /// Executes, and the answer is lost.
        case losingAnswers
        /// Keeps calls until the test lets them go on.
        case holding
    }

    let model: Mutex<LedgerModel>
    private let currentMode = Mutex(Mode.answering)
    private let clock = Mutex<Int64>(1_790_000_000_000)

    init(balance: Int64 = 1_000_000_000, limits: Limits = .unlimited) throws {
        var model = LedgerModel()
        try model.createOrg(
            JournalFixture.org, openingCredit: NanoUSD(unchecked: balance), limits: limits, keysMax: 10, now: 0)
        try model.createKey(JournalFixture.key, org: JournalFixture.org, limits: .unlimited)
        self.model = Mutex(model)
    }

    var mode: Mode {
        get { currentMode.withLock { $0 } }
        set { currentMode.withLock { $0 = newValue } }
    }

    func execute(_ request: SyncRequest) -> SyncAnswer {
        let now = clock.withLock { clock in
            clock += 1
            return clock
        }
        return model.withLock { $0.sync(request, now: now) }
    }

    func rates(of key: KeyID, org: OrgID) -> RateStatus {
        let now = clock.withLock { $0 }
        return model.withLock { $0.rates(of: key, org: org, now: now) }
    }

    var org: LedgerModel.Org { model.withLock { $0.orgs[JournalFixture.org]! } }
    var settles: [LedgerEntry] { org.entries.filter { $0.kind == .settle } }
}

final class FakeTransport: LedgerTransport {
    let eventLoop: any EventLoop
    let ledger: FakeLedger
    var held: [(request: SyncRequest, completion: (Result<SyncAnswer, LedgerTransportFailure>) -> Void)] = []

    init(eventLoop: any EventLoop, ledger: FakeLedger) {
        self.eventLoop = eventLoop
        self.ledger = ledger
    }

    func sync(_ request: SyncRequest, completion: @escaping (Result<SyncAnswer, LedgerTransportFailure>) -> Void) {
        let result: Result<SyncAnswer, LedgerTransportFailure>
        switch ledger.mode {
        case .unreachable: return completion(.failure(.unreachable))
        case .holding: return held.append((request, completion))
        case .answering: result = .success(ledger.execute(request))
        case .losingAnswers:
            _ = ledger.execute(request)
            result = .failure(.unreachable)
        }
        let bound = NIOLoopBound(completion, eventLoop: eventLoop)
        eventLoop.execute { bound.value(result) }
    }

    func readRates(of key: KeyID, org: OrgID, completion: @escaping (RateStatus?) -> Void) {
        completion(ledger.mode == .answering ? ledger.rates(of: key, org: org) : nil)
    }

    /// Lets the calls go on that were held.
    func resume() {
        let calls = held
        held = []
        for call in calls { call.completion(.success(ledger.execute(call.request))) }
    }
}

/// A gateway's spending on two event loops.
final class SpendingRig: Sendable {
    static let group = MultiThreadedEventLoopGroup(numberOfThreads: 2)

    let ledger: FakeLedger
    let journal: Journal
    let service: SpendingService
    let transports: [NIOLoopBound<any LedgerTransport>]
    let loops: [any EventLoop]

    init(
        _ directory: JournalTestDirectory, _ ledger: FakeLedger, files: any JournalFiles = SystemJournalFiles(),
        sync: JournalConfiguration.SyncMode = .interval
    ) async throws {
        self.ledger = ledger
        journal = try JournalFixture.journal(directory, segmentBytes: 1 << 20, sync: sync, files: files)
        service = SpendingService(journal: journal, logger: JournalFixture.logger)
        loops = Array(Self.group.makeIterator())
        var transports: [NIOLoopBound<any LedgerTransport>] = []
        for loop in loops {
            transports.append(
                try await loop.submit {
                    NIOLoopBound<any LedgerTransport>(FakeTransport(eventLoop: loop, ledger: ledger), eventLoop: loop)
                }.get())
        }
        self.transports = transports
    }

    func close() { journal.close() }

    func on<Value: Sendable>(
        loop index: Int = 0, _ body: @escaping @Sendable (SpendingService, FakeTransport) throws -> Value
    ) async throws -> Value {
        let (service, transport) = (service, transports[index])
        return try await loops[index].submit {
            guard let transport = transport.value as? FakeTransport else { throw LedgerTransportFailure.unreachable }
            return try body(service, transport)
        }.get()
    }

    func admit(_ id: UInt64, hold: Int64 = 1_000, loop index: Int = 0) async throws -> AdmissionOutcome {
        let (service, transport, loop) = (service, transports[index], loops[index])
        return try await loop.flatSubmit {
            let promise = loop.makePromise(of: AdmissionOutcome.self)
            _ = service.admit(
                Admission(key: JournalFixture.key, hold: NanoUSD(unchecked: hold), tokens: 100),
                org: JournalFixture.org, requestID: RequestID(high: 5, low: id), on: transport.value
            ) { outcome in
                promise.succeed(outcome)
            }
            return promise.futureResult
        }.get()
    }

    func granted(_ id: UInt64, hold: Int64 = 1_000, loop index: Int = 0) async throws -> Hold {
        switch try await admit(id, hold: hold, loop: index) {
        case .granted(let granted): return granted
        case let other: throw OutcomeWasNot(outcome: other)
        }
    }

    struct OutcomeWasNot: Error {
        var outcome: AdmissionOutcome
    }

    /// Costs promptTokens + 2 x completionTokens nano-dollars.
    static func settlement(prompt: Int = 40, completion: Int = 10) -> Settlement {
        Settlement(
            model: JournalFixture.model, price: JournalFixture.price,
            usage: TokenUsage(promptTokens: prompt, cachedTokens: 0, completionTokens: completion), isEstimated: false,
            at: WallTime(milliseconds: 1_790_000_000_000))
    }

    @discardableResult
    func flush(within duration: Duration = .seconds(20)) async -> Int {
        await service.flush(on: transports[0], loop: loops[0], deadline: .now().advanced(by: duration))
    }

    func replay(wait: Duration = .seconds(20)) async throws {
        let (service, transport, loop) = (service, transports[0], loops[0])
        try await loop.flatSubmit { service.replay(on: transport.value, wait: wait) }.get()
    }
}
