import Domain

/// Who a journal is: random, born with the journal's directory, never a host name. The S of the protocol.
package struct JournalID: Hashable, Sendable, CustomStringConvertible {
    /// 32 lower-case hexadecimal digits.
    package let rawValue: String

    package init(_ rawValue: String) { self.rawValue = rawValue }

    package var description: String { rawValue }
}

/// Orders the SYNCs of one journal for one org: a call that executes late, after its successor, changes nothing.
package struct SyncRevision: Hashable, Sendable, Comparable {
    /// Raised at every start of the journal.
    package var incarnation: Int64
    /// Raised at every SYNC of the incarnation.
    package var counter: Int64

    package init(incarnation: Int64, counter: Int64) {
        self.incarnation = incarnation
        self.counter = counter
    }

    package static func < (left: Self, right: Self) -> Bool {
        (left.incarnation, left.counter) < (right.incarnation, right.counter)
    }
}

/// What a finished request costs. Once in the journal it always applies, once, however late.
package struct Charge: Hashable, Sendable {
    /// Dense per org and journal, from 1.
    package var sequence: Int64
    package var requestID: RequestID
    package var key: KeyID
    package var model: ModelID
    package var priceVersion: Int64
    package var usage: TokenUsage
    /// Never above the hold it settles.
    package var amount: NanoUSD
    /// The gateway's own count stands in for the node's.
    package var isEstimated: Bool
    /// When the request was settled.
    package var at: WallTime
    /// The rate booking that the admission made, of which `unusedTokens` go back.
    package var booking: RateBooking
    /// Tokens booked at admission that the request did not use. Never negative.
    package var unusedTokens: Int

    package init(
        sequence: Int64, requestID: RequestID, key: KeyID, model: ModelID, priceVersion: Int64, usage: TokenUsage,
        amount: NanoUSD, isEstimated: Bool, at: WallTime, booking: RateBooking, unusedTokens: Int
    ) {
        self.sequence = sequence
        self.requestID = requestID
        self.key = key
        self.model = model
        self.priceVersion = priceVersion
        self.usage = usage
        self.amount = amount
        self.isEstimated = isEstimated
        self.at = at
        self.booking = booking
        self.unusedTokens = unusedTokens
    }
}

/// Where in the rolling minute an admission was booked: the second, by the store's clock, and what was booked there.
package struct RateBooking: Hashable, Sendable {
    package static let none = RateBooking(second: 0, tokens: 0)

    /// Unix seconds of the bucket.
    package var second: Int64
    package var tokens: Int

    package init(second: Int64, tokens: Int) {
        self.second = second
        self.tokens = tokens
    }
}

/// A request that asks to be let in: all of its limits and the hold, or nothing.
package struct Admission: Hashable, Sendable {
    package var key: KeyID
    /// The most that the request can cost.
    package var hold: NanoUSD
    /// Booked against tokens a minute: the prompt's estimate plus what may be generated.
    package var tokens: Int

    package init(key: KeyID, hold: NanoUSD, tokens: Int) {
        self.key = key
        self.hold = hold
        self.tokens = tokens
    }
}

/// Tokens that a request booked and will not use, where no charge carries them (it was released).
package struct RateReturn: Hashable, Sendable {
    package var key: KeyID
    package var booking: RateBooking

    package init(key: KeyID, booking: RateBooking) {
        self.key = key
        self.booking = booking
    }
}

/// SYNC(S, rev, first, charges[], floor, want, admissions[]): the one script that spends.
package struct SyncRequest: Sendable {
    /// Bounds of one batch: what does not fit waits for the next.
    package static let chargesMax = 256
    package static let admissionsMax = 256

    package var org: OrgID
    package var journal: JournalID
    package var revision: SyncRevision
    /// The sequence of `charges[0]`; where there is none, the sequence that the next charge will have.
    package var first: Int64
    /// Consecutive sequences from `first`.
    package var charges: [Charge]
    /// Applied at most once: a SYNC whose answer is lost does not repeat them, so rates err on the strict side.
    package var returns: [RateReturn]
    /// open + unsynced once `charges` have been applied: what the gateway may still spend of what it admitted.
    package var floor: NanoUSD
    /// How many holds are in `floor`, for people who look.
    package var openHolds: Int
    /// What the gateway would like lent in all; `floor` where it asks for no pool.
    package var want: NanoUSD
    /// Requests running now, by key, of every key that has any: absolute, so a repeated SYNC repeats nothing.
    package var slots: [(key: KeyID, running: Int)]
    package var admissions: [Admission]

    package init(
        org: OrgID, journal: JournalID, revision: SyncRevision, first: Int64, charges: [Charge], returns: [RateReturn],
        floor: NanoUSD, openHolds: Int, want: NanoUSD, slots: [(key: KeyID, running: Int)], admissions: [Admission]
    ) {
        self.org = org
        self.journal = journal
        self.revision = revision
        self.first = first
        self.charges = charges
        self.returns = returns
        self.floor = floor
        self.openHolds = openHolds
        self.want = want
        self.slots = slots
        self.admissions = admissions
    }
}

/// What the store answers to a SYNC.
package struct SyncAnswer: Hashable, Sendable {
    package enum Status: Hashable, Sendable {
        case ok
        /// Charges are missing between `applied` and `first`: nothing was changed.
        case gap
        /// `revision` was not newer than what the store had: charges were applied, nothing else.
        case stale
        /// The journal was retired: as `stale`, and for good.
        case fenced
        /// The org does not exist. Charges for it cannot.
        case unknownOrg
    }

    package var status: Status
    /// q: the last sequence applied.
    package var applied: Int64
    /// l:S after the call.
    package var lent: NanoUSD
    package var balance: NanoUSD
    /// bal + credit - what is lent to others.
    package var available: NanoUSD
    /// The floor passed what was available (only after the store lost writes).
    package var isOverspent: Bool
    /// The store's clock, unix milliseconds.
    package var now: Int64
    /// One for each admission, in order. Empty unless `status` is `ok`.
    package var verdicts: [Verdict]

    package init(
        status: Status, applied: Int64, lent: NanoUSD, balance: NanoUSD, available: NanoUSD, isOverspent: Bool,
        now: Int64, verdicts: [Verdict]
    ) {
        self.status = status
        self.applied = applied
        self.lent = lent
        self.balance = balance
        self.available = available
        self.isOverspent = isOverspent
        self.now = now
        self.verdicts = verdicts
    }
}

/// Let in or refused, with what the rate headers say.
package struct Verdict: Hashable, Sendable {
    package enum Outcome: Hashable, Sendable {
        case granted(RateBooking)
        case refused(Refusal)
    }

    package var outcome: Outcome
    package var rates: RateStatus

    package init(outcome: Outcome, rates: RateStatus) {
        self.outcome = outcome
        self.rates = rates
    }
}

/// Why an admission was refused. In order of precedence.
package enum Refusal: Hashable, Sendable {
    /// Revoked, expired or unknown to the org.
    case keyInvalid
    case orgSuspended
    /// More tokens than the limit allows in a whole minute: waiting does not help.
    case largerThanLimit(tokens: Int, limit: Int)
    case requestsPerMinute(limit: Int, retryAfterMilliseconds: Int64)
    case tokensPerMinute(limit: Int, retryAfterMilliseconds: Int64)
    case concurrency(limit: Int)
    /// bal + credit cannot carry the hold. `mayComeBack`: it could once running holds end.
    case balance(mayComeBack: Bool)
}

/// The tightest scope's limits after this admission. A limit of nil means unlimited.
package struct RateStatus: Hashable, Sendable {
    package static let unlimited = RateStatus(requests: nil, tokens: nil)

    package struct Window: Hashable, Sendable {
        package var limit: Int
        package var remaining: Int
        /// Until the newest booked bucket ages out.
        package var resetMilliseconds: Int64

        package init(limit: Int, remaining: Int, resetMilliseconds: Int64) {
            self.limit = limit
            self.remaining = remaining
            self.resetMilliseconds = resetMilliseconds
        }
    }

    package var requests: Window?
    package var tokens: Window?

    package init(requests: Window?, tokens: Window?) {
        self.requests = requests
        self.tokens = tokens
    }
}
