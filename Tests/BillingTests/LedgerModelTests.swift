import Billing
import Domain
import Testing

/// One org with one key and one gateway, in the model.
private struct Bench {
    static let org = OrgID(unchecked: "acme")
    static let key = KeyID(unchecked: "AbCdEfGhIjKl")
    static let start: Int64 = 1_800_000_000_000

    var model = LedgerModel()
    private var counter: Int64 = 0

    init(
        dollars: Int64 = 100, orgLimits: Limits = .unlimited, keyLimits: Limits = .unlimited, start: Int64 = Self.start
    ) throws {
        try model.createOrg(
            Self.org, openingCredit: dollars == 0 ? nil : NanoUSD(unchecked: dollars * 1_000_000_000),
            limits: orgLimits, keysMax: 10, now: start)
        try model.createKey(Self.key, org: Self.org, limits: keyLimits)
    }

    /// A SYNC of the next revision.
    mutating func sync(
        _ admissions: [Admission] = [], charges: [Charge] = [], returns: [RateReturn] = [], floor: Int64 = 0,
        want: Int64? = nil, running: Int = 0, from journal: String = "s1", revision: SyncRevision? = nil,
        first: Int64? = nil, now: Int64 = Self.start
    ) -> SyncAnswer {
        counter += 1
        return model.sync(
            SyncRequest(
                org: Self.org, journal: JournalID(journal),
                revision: revision ?? SyncRevision(incarnation: 1, counter: counter),
                first: first ?? charges.first?.sequence
                    ?? (model.orgs[Self.org]?.journals[JournalID(journal)]?.applied ?? 0) + 1,
                charges: charges, returns: returns, floor: NanoUSD(unchecked: floor), openHolds: running,
                want: NanoUSD(unchecked: want ?? floor), slots: running > 0 ? [(key: Self.key, running: running)] : [],
                admissions: admissions), now: now)
    }

    var balance: Int64 { model.orgs[Self.org]?.balance ?? 0 }
    var lent: Int64 { model.orgs[Self.org]?.lent ?? 0 }
}

private func ask(_ hold: Int64 = 0, tokens: Int = 0, key: KeyID = Bench.key) -> Admission {
    Admission(key: key, hold: NanoUSD(unchecked: hold), tokens: tokens)
}

private func charge(_ sequence: Int64, _ amount: Int64, booking: RateBooking = .none, unused: Int = 0) -> Charge {
    Charge(
        sequence: sequence, requestID: RequestID(high: 1, low: UInt64(sequence)), key: Bench.key,
        model: ModelID(unchecked: "llama"), priceVersion: 1,
        usage: TokenUsage(promptTokens: 10, cachedTokens: 4, completionTokens: 5), amount: NanoUSD(unchecked: amount),
        isEstimated: false, at: WallTime(milliseconds: Bench.start), booking: booking, unusedTokens: unused)
}

extension SyncAnswer {
    fileprivate var outcomes: [Verdict.Outcome] { verdicts.map(\.outcome) }
    fileprivate var grants: Int {
        verdicts.count {
            if case .granted = $0.outcome { true } else { false }
        }
    }
}

@Suite struct LedgerModelTests {
    @Test func refusalsComeInTheirOrder() throws {
        // Everything is wrong at once; each step puts right what was named.
        var bench = try Bench(
            dollars: 0, orgLimits: Limits(requestsPerMinute: 0, tokensPerMinute: 50, concurrency: 0),
            keyLimits: Limits(requestsPerMinute: 0, tokensPerMinute: 60, concurrency: 0))
        try bench.model.setOrgStatus(Bench.org, .suspended)
        let much = ask(5, tokens: 100)
        #expect(bench.sync([ask(key: KeyID(unchecked: "other"))]).outcomes == [.refused(.keyInvalid)])
        #expect(bench.sync([much]).outcomes == [.refused(.orgSuspended)])
        try bench.model.setOrgStatus(Bench.org, .active)
        #expect(bench.sync([much]).outcomes == [.refused(.largerThanLimit(tokens: 100, limit: 50))])
        let less = ask(5, tokens: 40)
        #expect(
            bench.sync([less]).outcomes == [.refused(.requestsPerMinute(limit: 0, retryAfterMilliseconds: 60_000))])
        try bench.model.setLimits(
            Bench.org, Limits(requestsPerMinute: 9, tokensPerMinute: 50, concurrency: 0))
        try bench.model.setLimits(
            Bench.key, org: Bench.org, Limits(requestsPerMinute: 9, tokensPerMinute: 60, concurrency: 0))
        #expect(bench.sync([less]).outcomes == [.refused(.concurrency(limit: 0))])
        try bench.model.setLimits(Bench.org, Limits(requestsPerMinute: 9, tokensPerMinute: 50))
        try bench.model.setLimits(Bench.key, org: Bench.org, Limits(requestsPerMinute: 9, tokensPerMinute: 60))
        #expect(bench.sync([less]).outcomes == [.refused(.balance(mayComeBack: false))])
        _ = try bench.model.topUp(Bench.org, amount: NanoUSD(unchecked: 5), reference: "r", now: Bench.start)
        #expect(bench.sync([less]).grants == 1)
        #expect(
            bench.sync([ask(tokens: 11)], floor: 5).outcomes
                == [.refused(.tokensPerMinute(limit: 50, retryAfterMilliseconds: 60_000))])
        try bench.model.revokeKey(Bench.key, org: Bench.org)
        #expect(bench.sync([ask()], floor: 5).outcomes == [.refused(.keyInvalid)])
    }

    @Test func refusedAdmissionBooksNothing() throws {
        var bench = try Bench(dollars: 1, orgLimits: Limits(requestsPerMinute: 2, tokensPerMinute: 100))
        let refused = bench.sync([ask(2_000_000_000, tokens: 100)])
        #expect(refused.outcomes == [.refused(.balance(mayComeBack: false))])
        #expect(refused.verdicts[0].rates.requests?.remaining == 2)
        #expect(refused.verdicts[0].rates.tokens?.remaining == 100)
        #expect(refused.lent == .zero)
        #expect(bench.sync([ask(1, tokens: 60), ask(1, tokens: 40)]).grants == 2)
    }

    // MARK: Money

    @Test func batchNeverGrantsMoreThanTheBalance() throws {
        var bench = try Bench(dollars: 10)
        let answer = bench.sync((0..<8).map { _ in ask(3_000_000_000) })
        #expect(answer.grants == 3)
        #expect(answer.lent == NanoUSD(unchecked: 9_000_000_000))
        #expect(answer.outcomes.last == .refused(.balance(mayComeBack: true)))
        // What one gateway holds, another cannot have; not even as a pool.
        let other = bench.sync([ask(1_000_000_001)], want: 5_000_000_000, from: "s2")
        #expect(other.grants == 0)
        #expect(other.available == NanoUSD(unchecked: 1_000_000_000))
        #expect(other.lent == NanoUSD(unchecked: 1_000_000_000))
        #expect(bench.lent == 10_000_000_000)
    }

    @Test func creditLimitIsSpentAfterTheBalance() throws {
        var bench = try Bench(dollars: 1)
        try bench.model.setCreditLimit(Bench.org, NanoUSD(unchecked: 2_000_000_000))
        #expect(bench.sync([ask(3_000_000_000)]).grants == 1)
        _ = bench.sync(charges: [charge(1, 3_000_000_000)])
        #expect(bench.balance == -2_000_000_000)
        #expect(bench.sync([ask(1)]).outcomes == [.refused(.balance(mayComeBack: false))])
        #expect(bench.sync([ask(0)]).grants == 1)
    }

    @Test func creditLimitCannotBeTakenFromRunningHolds() throws {
        var bench = try Bench(dollars: 1)
        try bench.model.setCreditLimit(Bench.org, NanoUSD(unchecked: 2_000_000_000))
        _ = bench.sync([ask(3_000_000_000)])
        #expect(throws: OperatorFailure(.limitReached, "")) { try bench.model.setCreditLimit(Bench.org, .zero) }
        _ = bench.sync()
        try bench.model.setCreditLimit(Bench.org, .zero)
    }

    @Test func chargeIsAppliedOnceHoweverOftenItComes() throws {
        var bench = try Bench(dollars: 10)
        let charges = (1...3).map { charge(Int64($0), 1_000) }
        #expect(bench.sync(charges: Array(charges[..<2])).applied == 2)
        #expect(bench.sync(charges: charges).applied == 3)
        #expect(bench.sync(charges: charges, revision: SyncRevision(incarnation: 0, counter: 1)).status == .stale)
        #expect(bench.balance == 10_000_000_000 - 3_000)
        #expect(bench.model.orgs[Bench.org]?.entries.count == 4)
        #expect(bench.sync(charges: [charge(5, 1)]).status == .gap)
        #expect(bench.balance == 10_000_000_000 - 3_000)
    }

    @Test func lateCallChangesNothingAndGrantsNothing() throws {
        var bench = try Bench(dollars: 10)
        _ = bench.sync(floor: 500, revision: SyncRevision(incarnation: 2, counter: 1))
        let late = bench.sync([ask(1)], floor: 9_000, revision: SyncRevision(incarnation: 1, counter: 99))
        #expect(late.status == .stale)
        #expect(late.verdicts.isEmpty)
        #expect(bench.lent == 500)
        let same = bench.sync(floor: 9_000, revision: SyncRevision(incarnation: 2, counter: 1))
        #expect(same.status == .stale)
        #expect(bench.lent == 500)
    }

    @Test func floorThatNothingCoversIsHonouredAndReported() throws {
        var bench = try Bench(dollars: 1)
        let answer = bench.sync([ask(0)], floor: 3_000_000_000)
        #expect(answer.isOverspent)
        #expect(answer.lent == NanoUSD(unchecked: 3_000_000_000))
        #expect(answer.grants == 0)
    }

    /// A gateway that restarted gives its journal back in parts; a call of its run before came in between.
    @Test func floorThatCountsPaidChargesIsHonouredAsFarAsThereIs() throws {
        var bench = try Bench(dollars: 1)
        let charges = (1...3).map { charge(Int64($0), 200_000_000) }
        #expect(bench.sync(charges: charges).applied == 3)
        #expect(bench.sync(floor: 300_000_000, from: "s2").lent == NanoUSD(unchecked: 300_000_000))
        // 100,000,000 are left, and two charges of 400,000,000 together are counted that are paid.
        let answer = bench.sync(
            charges: [charges[0]], floor: 400_000_000, revision: SyncRevision(incarnation: 2, counter: 1))
        #expect(answer.status == .ok)
        #expect(answer.lent == NanoUSD(unchecked: 100_000_000))
        #expect(!answer.isOverspent)
        #expect(bench.lent == 400_000_000)
        // What it was lent before stays, whatever there is.
        _ = bench.sync(floor: 250_000_000, revision: SyncRevision(incarnation: 2, counter: 2))
        let again = bench.sync(
            charges: [charges[0]], floor: 900_000_000, revision: SyncRevision(incarnation: 2, counter: 3))
        #expect(again.lent == NanoUSD(unchecked: 250_000_000))
    }

    @Test func unknownOrgHasNoLedger() throws {
        var model = LedgerModel()
        let request = SyncRequest(
            org: Bench.org, journal: JournalID("s"), revision: SyncRevision(incarnation: 1, counter: 1), first: 1,
            charges: [charge(1, 5)], returns: [], floor: .zero, openHolds: 0, want: .zero, slots: [], admissions: [])
        #expect(model.sync(request, now: 5).status == .unknownOrg)
        #expect(model.orgs.isEmpty)
    }

    @Test func topUpCountsOncePerReference() throws {
        var bench = try Bench(dollars: 1)
        let amount = NanoUSD(unchecked: 7)
        #expect(try bench.model.topUp(Bench.org, amount: amount, reference: "a", now: 0).isRepeat == false)
        #expect(try bench.model.topUp(Bench.org, amount: amount, reference: "a", now: 0).isRepeat)
        #expect(bench.balance == 1_000_000_007)
        #expect(throws: OperatorFailure(.referenceReused, "")) {
            try bench.model.topUp(Bench.org, amount: NanoUSD(unchecked: 8), reference: "a", now: 0)
        }
    }

    @Test func amountsPastTheBoundAreRefusedWhereTheyEnter() throws {
        var bench = try Bench(dollars: 1)
        for amount in [0, -5, NanoUSD.magnitudeMax] {
            #expect(throws: OperatorFailure(.invalid, "")) {
                try bench.model.topUp(Bench.org, amount: NanoUSD(unchecked: amount), reference: "x", now: 0)
            }
        }
        let rest = NanoUSD.magnitudeMax - 1_000_000_000
        try bench.model.setCreditLimit(Bench.org, NanoUSD(unchecked: rest))
        #expect(throws: OperatorFailure(.invalid, "")) {
            try bench.model.topUp(Bench.org, amount: NanoUSD(unchecked: 1), reference: "x", now: 0)
        }
        #expect(bench.balance == 1_000_000_000)
    }

    // MARK: Concurrency

    @Test func concurrencyCountsEveryGatewayAndThisBatch() throws {
        var bench = try Bench(keyLimits: Limits(concurrency: 3))
        #expect(bench.sync([ask(), ask()], from: "s1").grants == 2)
        let other = bench.sync([ask(), ask()], from: "s2")
        #expect(other.grants == 1)
        #expect(other.outcomes.last == .refused(.concurrency(limit: 3)))
        // One of the first gateway's two has ended: its count is absolute.
        #expect(bench.sync(running: 1, from: "s1").status == .ok)
        #expect(bench.sync([ask()], running: 1, from: "s2").grants == 1)
    }

    @Test func slotsOfASilentGatewayFreeThemselves() throws {
        var bench = try Bench(orgLimits: Limits(concurrency: 1))
        #expect(bench.sync([ask()], from: "dead").grants == 1)
        let held = Bench.start + Slots.validityMilliseconds - 1
        #expect(bench.sync([ask()], from: "s2", now: held).outcomes == [.refused(.concurrency(limit: 1))])
        #expect(bench.sync([ask()], from: "s2", now: held + 1).grants == 1)
    }

    @Test func heldSlotsAreRenewedByEverySync() throws {
        var bench = try Bench(orgLimits: Limits(concurrency: 1))
        #expect(bench.sync([ask()], from: "s1").grants == 1)
        _ = bench.sync(running: 1, from: "s1", now: Bench.start + 9_000)
        let later = Bench.start + 15_000
        #expect(bench.sync([ask()], from: "s2", now: later).outcomes == [.refused(.concurrency(limit: 1))])
    }

    // MARK: Rates

    @Test func tightestScopeIsReported() throws {
        var bench = try Bench(
            orgLimits: Limits(requestsPerMinute: 10, tokensPerMinute: 1_000),
            keyLimits: Limits(requestsPerMinute: 4, tokensPerMinute: 5_000))
        let rates = bench.sync([ask(tokens: 100)]).verdicts[0].rates
        #expect(rates.requests == .init(limit: 4, remaining: 3, resetMilliseconds: 61_000))
        #expect(rates.tokens == .init(limit: 1_000, remaining: 900, resetMilliseconds: 61_000))
    }

    @Test func unlimitedScopesReportNothing() throws {
        var bench = try Bench()
        #expect(bench.sync([ask(tokens: 100)]).verdicts[0].rates == .unlimited)
    }

    @Test func unusedTokensComeBackToTheirBucket() throws {
        var bench = try Bench(orgLimits: Limits(tokensPerMinute: 1_000))
        let answer = bench.sync([ask(tokens: 1_000)])
        guard case .granted(let booking) = answer.outcomes[0] else {
            Issue.record("refused: \(answer.outcomes)")
            return
        }
        let later = Bench.start + 30_000
        #expect(bench.sync([ask(tokens: 1)], now: later).grants == 0)
        let settled = bench.sync(
            [ask(tokens: 700)], charges: [charge(1, 1, booking: booking, unused: 700)], now: later)
        #expect(settled.grants == 1)
        #expect(settled.verdicts[0].rates.tokens?.remaining == 0)
        // The 300 that were used leave with the first second, the 700 thirty seconds later.
        let aged = Bench.start + 61_000
        #expect(bench.sync([ask(tokens: 301)], now: aged).grants == 0)
        #expect(bench.sync([ask(tokens: 300)], now: aged).grants == 1)
    }

    @Test func returnedTokensOfAnAgedBucketComeBackToNobody() throws {
        var bench = try Bench(orgLimits: Limits(tokensPerMinute: 1_000))
        _ = bench.sync([ask(tokens: 1_000)])
        let late = Bench.start + 61_000
        #expect(bench.sync([ask(tokens: 1_000)], now: late).grants == 1)
        let old = RateReturn(key: Bench.key, booking: RateBooking(second: Bench.start / 1_000, tokens: 1_000))
        #expect(bench.sync([ask(tokens: 1)], returns: [old], now: late).grants == 0)
    }
}
