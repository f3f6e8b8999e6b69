import Billing
import Domain
import Glibc

extension Journal {
    /// Cuts the torn end, begins a segment under a new incarnation, and charges the streams that the last run left
    /// open.
    ///
    /// A crash in here is harmless: the next start finds the same, or the new segment with some of the charges.
    static func start(
        _ scan: JournalScan, _ directory: JournalDirectory, _ configuration: JournalConfiguration
    ) throws(JournalStartFailure) -> State {
        let files = configuration.files
        for path in scan.unused {
            let code = files.remove(path)
            guard code == 0 else { throw .system(path: path, operation: "remove", code: code) }
        }
        if let cut = scan.cut {
            let file = open(cut.path, O_RDWR | O_CLOEXEC)
            guard file >= 0 else { throw .system(path: cut.path, operation: "open", code: errno) }
            defer { Glibc.close(file) }
            let code = files.truncate(file, bytes: cut.length)
            guard code == 0 else { throw .system(path: cut.path, operation: "cut", code: code) }
        }
        let number = (scan.segments.last?.number ?? 0) + 1
        let path = directory.path + "/" + JournalSegment.fileName(number)
        do throws(JournalFailure) {
            let incarnation = scan.incarnation + 1
            let file = try files.create(path, bytes: configuration.segmentBytes)
            do throws(JournalFailure) {
                let segment = try begin(
                    number, in: file, after: scan.segments.last, incarnation, configuration, directory)
                var state = State(incarnation: incarnation, file: file, segment: segment, older: scan.segments)
                var sequences = scan.lastSequences
                for (open, tokens) in scan.interrupted {
                    let sequence = (sequences[open.org] ?? 0) + 1
                    sequences[open.org] = sequence
                    let charge = charge(for: open, tokens: tokens, sequence: sequence, at: configuration.wallTime())
                    try write(.charge(open.org, charge), &state, configuration, directory, mayCreate: true)
                    state.segment.lastSequences[open.org] = sequence
                }
                let code = files.sync(state.file)
                guard code == 0 else { throw JournalFailure(.sync, code: code) }
                return state
            } catch {
                Glibc.close(file)
                throw error
            }
        } catch {
            throw .system(path: path, operation: error.operation.rawValue, code: error.code)
        }
    }

    /// What a stream owes that ended with the gateway: its prompt and what it is known to have delivered.
    private static func charge(for open: JournalOpen, tokens: Int, sequence: Int64, at: WallTime) -> Charge {
        let usage = TokenUsage(promptTokens: open.promptTokens, cachedTokens: 0, completionTokens: tokens)
        let cost = (try? open.price.cost(of: usage)) ?? open.hold
        return Charge(
            sequence: sequence, requestID: open.requestID, key: open.key, model: open.model,
            priceVersion: open.price.version, usage: usage, amount: min(cost, open.hold), isEstimated: true, at: at,
            booking: open.booking, unusedTokens: max(0, open.booking.tokens - usage.totalTokens))
    }
}

/// Charges given back to a store that does not have them.
package struct JournalCharges: Sendable {
    /// Consecutive from the first that was asked for; empty where the journal does not have that one.
    package var charges: [Charge] = []
    /// The sum of those that were asked for and found beyond ``Journal/chargesPerReadMax``.
    package var unread: NanoUSD = .zero
}

extension Journal {
    /// Charges read at once; the rest is read when these have been applied.
    package static let chargesPerReadMax = 8_192

    /// Reads charges back. Takes as long as the disk does: never on an event loop.
    ///
    /// - Throws: A segment that cannot be read.
    package func charges(of org: OrgID, in sequences: ClosedRange<Int64>) throws(JournalStartFailure) -> JournalCharges
    {
        let segments = state.withLock { state in
            (state.older + [state.segment]).filter { ($0.lastSequences[org] ?? 0) >= sequences.lowerBound }
        }
        var result = JournalCharges()
        var unread: Int64 = 0
        var expected = sequences.lowerBound
        for segment in segments {
            let file = try MappedFile(directory.path + "/" + JournalSegment.fileName(segment.number))
            var scanner = JournalScanner(file.bytes)
            while expected <= sequences.upperBound, let body = scanner.next(limit: segment.length) {
                guard JournalRecord.isCharge(body, of: org), case .charge(_, let charge)? = JournalRecord(body: body)
                else { continue }
                if charge.sequence < expected { continue }
                // A charge is missing: what follows it cannot be applied.
                if charge.sequence > expected { return result }
                expected += 1
                if result.charges.count < Self.chargesPerReadMax {
                    result.charges.append(charge)
                } else {
                    unread += charge.amount.nanodollars
                    result.unread = NanoUSD(unchecked: min(unread, NanoUSD.magnitudeMax))
                }
            }
        }
        return result
    }
}
