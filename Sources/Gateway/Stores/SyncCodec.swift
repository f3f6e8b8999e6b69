import Billing
import Domain
import Redis

/// SYNC on the wire: a flat list of arguments there, a flat list of integers back. `Scripts/sync.lua` says which.
package enum SyncCodec {
    private static let answerHead = 7
    private static let answerPerVerdict = 9

    /// - Parameter now: The store's clock in unix milliseconds, for tests; nil (always, in production) means that the
    ///   store reads its own.
    package static func arguments(_ request: SyncRequest, now: Int64? = nil) -> [RESPArgument] {
        var arguments: [RESPArgument] = []
        arguments.reserveCapacity(
            12 + 12 * request.charges.count + 3 * request.returns.count + 2 * request.slots.count
                + 3 * request.admissions.count)
        func add(_ number: Int) { arguments.append(.integer(Int64(number))) }
        arguments.append(now.map(RESPArgument.integer) ?? "")
        arguments.append(.string(request.journal.rawValue))
        arguments.append(.integer(request.revision.incarnation))
        arguments.append(.integer(request.revision.counter))
        arguments.append(.integer(request.first))
        arguments.append(.integer(request.floor.nanodollars))
        add(request.openHolds)
        arguments.append(.integer(request.want.nanodollars))
        add(request.charges.count)
        add(request.returns.count)
        add(request.slots.count)
        add(request.admissions.count)
        for charge in request.charges {
            arguments.append(.integer(charge.amount.nanodollars))
            arguments.append(.string(charge.requestID.description))
            arguments.append(.string(charge.key.rawValue))
            arguments.append(.string(charge.model.rawValue))
            arguments.append(.integer(charge.priceVersion))
            add(charge.usage.promptTokens)
            add(charge.usage.cachedTokens)
            add(charge.usage.completionTokens)
            add(charge.isEstimated ? 1 : 0)
            arguments.append(.integer(charge.at.milliseconds))
            arguments.append(.integer(charge.booking.second))
            add(charge.unusedTokens)
        }
        for unused in request.returns {
            arguments.append(.string(unused.key.rawValue))
            arguments.append(.integer(unused.booking.second))
            add(unused.booking.tokens)
        }
        for (key, running) in request.slots {
            arguments.append(.string(key.rawValue))
            add(running)
        }
        for admission in request.admissions {
            arguments.append(.string(admission.key.rawValue))
            arguments.append(.integer(admission.hold.nanodollars))
            add(admission.tokens)
        }
        return arguments
    }

    /// - Returns: nil where the reply is no answer to a SYNC.
    package static func answer(_ reply: RESPValue) -> SyncAnswer? {
        guard case .array(let elements) = reply, elements.count >= answerHead,
            (elements.count - answerHead) % answerPerVerdict == 0
        else { return nil }
        var numbers: [Int64] = []
        numbers.reserveCapacity(elements.count)
        for element in elements {
            guard case .integer(let number) = element else { return nil }
            numbers.append(number)
        }
        guard let status = status(numbers[0]) else { return nil }
        var answer = SyncAnswer(
            status: status, applied: numbers[1], lent: NanoUSD(unchecked: numbers[2]),
            balance: NanoUSD(unchecked: numbers[3]), available: NanoUSD(unchecked: numbers[4]),
            isOverspent: numbers[5] != 0, now: numbers[6], verdicts: [])
        answer.verdicts.reserveCapacity((numbers.count - answerHead) / answerPerVerdict)
        for start in stride(from: answerHead, to: numbers.count, by: answerPerVerdict) {
            let part = numbers[start..<(start + answerPerVerdict)].map(Int.init)
            guard let outcome = outcome(part[0], part[1], part[2]) else { return nil }
            answer.verdicts.append(Verdict(outcome: outcome, rates: rates(part[3...])))
        }
        return answer
    }

    /// - Returns: nil where the reply is none of `Scripts/rates_read.lua`.
    package static func rates(_ reply: RESPValue) -> RateStatus? {
        guard case .array(let elements) = reply, elements.count == 6 else { return nil }
        let numbers = elements.compactMap { if case .integer(let number) = $0 { Int(number) } else { nil } }
        return numbers.count == 6 ? rates(numbers[...]) : nil
    }

    /// - Parameter numbers: Limit, remaining and reset of requests, the same of tokens.
    private static func rates(_ numbers: ArraySlice<Int>) -> RateStatus {
        let at = numbers.startIndex
        return RateStatus(
            requests: window(numbers[at], numbers[at + 1], numbers[at + 2]),
            tokens: window(numbers[at + 3], numbers[at + 4], numbers[at + 5]))
    }

    private static func status(_ code: Int64) -> SyncAnswer.Status? {
        switch code {
        case 0: .ok
        case 1: .gap
        case 2: .stale
        case 3: .fenced
        case 4: .unknownOrg
        default: nil
        }
    }

    private static func outcome(_ code: Int, _ first: Int, _ second: Int) -> Verdict.Outcome? {
        switch code {
        case 0: .granted(RateBooking(second: Int64(first), tokens: second))
        case 1: .refused(.keyInvalid)
        case 2: .refused(.orgSuspended)
        case 3: .refused(.largerThanLimit(tokens: first, limit: second))
        case 4: .refused(.requestsPerMinute(limit: first, retryAfterMilliseconds: Int64(second)))
        case 5: .refused(.tokensPerMinute(limit: first, retryAfterMilliseconds: Int64(second)))
        case 6: .refused(.concurrency(limit: first))
        case 7: .refused(.balance(mayComeBack: first != 0))
        default: nil
        }
    }

    private static func window(_ limit: Int, _ remaining: Int, _ reset: Int) -> RateStatus.Window? {
        limit < 0 ? nil : .init(limit: limit, remaining: remaining, resetMilliseconds: Int64(reset))
    }
}
