import Domain

extension LedgerModel.Org {
    /// The steps of SYNC on one org. On `.gap`, `.stale` and `.fenced` without a new charge the caller drops what
    /// this changed.
    mutating func sync(_ request: SyncRequest, now time: Int64) -> SyncAnswer {
        now = max(now, time)
        var journal = journals[request.journal] ?? LedgerModel.Journal()
        let others = lent - journal.lent
        guard request.first <= journal.applied + 1 else {
            return answer(.gap, journal, available: balance + credit - others)
        }

        // 1. Charges above q, and only those.
        var charged: Int64 = 0
        for charge in request.charges where charge.sequence > journal.applied {
            apply(charge)
            journal.applied = charge.sequence
            charged += charge.amount.nanodollars
        }

        // 2. A call that executes after its successor, or from a retired journal, changes nothing more; but what it
        // charged was lent, and is lent no longer.
        let available = balance + credit - others
        let isStale = journal.revision.map { request.revision <= $0 } ?? false
        if journal.isFenced || isStale {
            journal.lent = max(0, journal.lent - charged)
            journals[request.journal] = journal
            return answer(journal.isFenced ? .fenced : .stale, journal, available: available)
        }
        for unused in request.returns { giveBack(unused.booking, key: unused.key) }

        // 3. and 4. Holds in order of arrival, as long as what is available carries them; a pool takes what is left.
        let floor = honoured(request, journal, available: available)
        var running = floor
        var own: [KeyID: Int] = [:]
        for (key, count) in request.slots { own[key, default: 0] += count }
        var granted = 0
        var verdicts: [Verdict] = []
        for admission in request.admissions {
            let verdict = admit(admission, running: running, available: available, own: own, of: request.journal)
            if case .granted = verdict.outcome {
                running += admission.hold.nanodollars
                own[admission.key, default: 0] += 1
                granted += 1
            }
            verdicts.append(verdict)
        }
        slots.set(own, of: request.journal, now: now)

        // 5. One write.
        journal.revision = request.revision
        let want = request.want.nanodollars - request.floor.nanodollars + running
        journal.lent = max(running, min(want, available))
        journal.open = running
        journal.openHolds = request.openHolds + granted
        journals[request.journal] = journal
        var result = answer(.ok, journal, available: available)
        result.isOverspent = floor > available
        result.verdicts = verdicts
        return result
    }

    private func answer(
        _ status: SyncAnswer.Status, _ journal: LedgerModel.Journal, available: Int64
    ) -> SyncAnswer {
        SyncAnswer(
            status: status, applied: journal.applied, lent: NanoUSD(unchecked: journal.lent),
            balance: NanoUSD(unchecked: balance), available: NanoUSD(unchecked: available), isOverspent: false,
            now: now, verdicts: [])
    }

    /// The floor that is lent whatever else is. A gateway that does not know how much of its journal is applied (a call of
    /// its earlier run came late) counts charges in it that are paid: of such a floor, what there is and what it was lent
    /// before cover all that it can owe, and more would break I1.
    private func honoured(_ request: SyncRequest, _ journal: LedgerModel.Journal, available: Int64) -> Int64 {
        let floor = request.floor.nanodollars
        guard journal.applied > request.first + Int64(request.charges.count) - 1 else { return floor }
        return min(floor, max(available, journal.lent))
    }

    private mutating func apply(_ charge: Charge) {
        append(
            LedgerEntry(
                id: "", kind: .settle, amount: -charge.amount, requestID: charge.requestID.description,
                key: charge.key, model: charge.model, usage: charge.usage, isEstimated: charge.isEstimated,
                priceVersion: charge.priceVersion, reference: nil, at: charge.at))
        let day = UTCDate(WallTime(milliseconds: now))
        let group = LedgerModel.AggregateKey(day: day, key: charge.key, model: charge.model)
        var aggregate = aggregates[group] ?? LedgerModel.Aggregate()
        aggregate.requests += 1
        aggregate.usage.promptTokens += charge.usage.promptTokens
        aggregate.usage.cachedTokens += charge.usage.cachedTokens
        aggregate.usage.completionTokens += charge.usage.completionTokens
        aggregate.cost += charge.amount.nanodollars
        aggregates[group] = aggregate
        giveBack(RateBooking(second: charge.booking.second, tokens: charge.unusedTokens), key: charge.key)
    }

    private mutating func giveBack(_ booking: RateBooking, key: KeyID) {
        let present = second
        for scope in [Scope.org, .key(key)] {
            windows[scope]?.age(to: present)
            windows[scope]?.giveBack(booking)
        }
    }

    /// One admission over all its scopes, all or nothing. Refusals come in the order of ``Refusal``.
    ///
    /// - Parameters:
    ///   - running: What the journal is lent so far, this batch's grants included.
    ///   - own: The journal's running requests by key, this batch's grants included.
    private mutating func admit(
        _ admission: Admission, running: Int64, available: Int64, own: [KeyID: Int], of journal: JournalID
    ) -> Verdict {
        guard let key = keys[admission.key], key.status == .active else {
            return Verdict(outcome: .refused(.keyInvalid), rates: .unlimited)
        }
        let scopes = [(scope: Scope.org, limits: limits), (scope: .key(admission.key), limits: key.limits)]
        let present = second
        for (scope, limits) in scopes where limits.isRated {
            windows[scope, default: RateWindow(second: present)].age(to: present)
        }
        var refusal = status == .active ? nil : Refusal.orgSuspended
        refusal = refusal ?? rateRefusal(admission, scopes)
        if refusal == nil {
            for (scope, limits) in scopes {
                guard let limit = limits.concurrency else { continue }
                let ours = scope == .org ? own.values.reduce(0, +) : own[admission.key] ?? 0
                guard slots.running(scope, besides: journal, now: now) + ours >= limit else { continue }
                refusal = .concurrency(limit: limit)
                break
            }
        }
        if refusal == nil, admission.hold.nanodollars > available - running {
            refusal = .balance(mayComeBack: balance + credit >= admission.hold.nanodollars)
        }
        if let refusal { return Verdict(outcome: .refused(refusal), rates: rates(of: scopes)) }
        for (scope, limits) in scopes where limits.isRated { windows[scope]?.book(tokens: admission.tokens) }
        return Verdict(
            outcome: .granted(RateBooking(second: present, tokens: admission.tokens)), rates: rates(of: scopes))
    }

    /// Where several scopes refuse, the one that makes the client wait longest is named: less waiting would not help.
    private func rateRefusal(_ admission: Admission, _ scopes: [(scope: Scope, limits: Limits)]) -> Refusal? {
        let tokenLimits = scopes.compactMap(\.limits.tokensPerMinute)
        if let limit = tokenLimits.min(), admission.tokens > limit {
            return .largerThanLimit(tokens: admission.tokens, limit: limit)
        }
        var longest: (limit: Int, wait: Int64)?
        for (scope, limits) in scopes {
            guard let window = windows[scope], let limit = limits.requestsPerMinute, window.requests >= limit else {
                continue
            }
            let wait = window.waitForRequest(limit: limit, now: now)
            if longest.map({ wait > $0.wait }) ?? true { longest = (limit, wait) }
        }
        if let longest { return .requestsPerMinute(limit: longest.limit, retryAfterMilliseconds: longest.wait) }
        for (scope, limits) in scopes {
            guard let window = windows[scope], let limit = limits.tokensPerMinute,
                window.tokens + admission.tokens > limit
            else { continue }
            let wait = window.waitForTokens(admission.tokens, limit: limit, now: now)
            if longest.map({ wait > $0.wait }) ?? true { longest = (limit, wait) }
        }
        return longest.map { .tokensPerMinute(limit: $0.limit, retryAfterMilliseconds: $0.wait) }
    }

    /// The windows, aged to now, as they are without an admission.
    mutating func readRates(of id: KeyID, now time: Int64) -> RateStatus {
        now = max(now, time)
        guard let key = keys[id], key.status == .active else { return .unlimited }
        let scopes = [(scope: Scope.org, limits: limits), (scope: .key(id), limits: key.limits)]
        let present = second
        for (scope, _) in scopes { windows[scope, default: RateWindow(second: present)].age(to: present) }
        return rates(of: scopes)
    }

    /// For requests and for tokens, the scope with the least remaining; the org's where two are alike.
    private func rates(of scopes: [(scope: Scope, limits: Limits)]) -> RateStatus {
        var status = RateStatus.unlimited
        for (scope, limits) in scopes {
            guard let window = windows[scope] else { continue }
            let reset = window.resetMilliseconds(now: now)
            if let limit = limits.requestsPerMinute {
                let remaining = max(0, limit - window.requests)
                if status.requests.map({ remaining < $0.remaining }) ?? true {
                    status.requests = .init(limit: limit, remaining: remaining, resetMilliseconds: reset)
                }
            }
            if let limit = limits.tokensPerMinute {
                let remaining = max(0, limit - window.tokens)
                if status.tokens.map({ remaining < $0.remaining }) ?? true {
                    status.tokens = .init(limit: limit, remaining: remaining, resetMilliseconds: reset)
                }
            }
        }
        return status
    }
}

extension Limits {
    /// Whether admissions are booked in a window. Limits that are set later count from then on.
    var isRated: Bool { requestsPerMinute != nil || tokensPerMinute != nil }
}
