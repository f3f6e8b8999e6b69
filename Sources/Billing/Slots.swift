import Domain

/// Who runs how many requests of an org, by the word of each journal.
///
/// Counts are absolute and replace each other, so a repeated SYNC repeats nothing and a lost one leaks nothing; and a
/// journal's word counts only until V after its last SYNC, so a dead gateway's slots free themselves.
package struct Slots: Hashable, Sendable {
    /// V: how long a journal's word counts.
    package static let validityMilliseconds: Int64 = 10_000

    private struct Word: Hashable {
        var until: Int64
        var running: [KeyID: Int]
    }

    private var words: [JournalID: Word] = [:]

    package init() {}

    /// What journals other than `journal` run, of one scope.
    package func running(_ scope: Scope, besides journal: JournalID, now: Int64) -> Int {
        words.reduce(0) { sum, element in
            guard element.key != journal, element.value.until > now else { return sum }
            return switch scope {
            case .org: sum + element.value.running.values.reduce(0, +)
            case .key(let id): sum + (element.value.running[id] ?? 0)
            }
        }
    }

    package mutating func set(_ running: [KeyID: Int], of journal: JournalID, now: Int64) {
        let running = running.filter { $0.value > 0 }
        words[journal] = running.isEmpty ? nil : Word(until: now + Self.validityMilliseconds, running: running)
    }
}
