/// A set of the classes that pre-tokenizers tell apart; every code point is in exactly one class.
///
/// A set is a mask with one bit a class, so that "is this a letter" is one shift and one `and`. The sets are computed
/// properties, because then they are constants to the optimizer; an `OptionSet` would build its unions from arrays.
package struct CharacterClasses: Sendable, Equatable {
    package let rawValue: UInt32

    @inline(__always)
    private init(_ rawValue: UInt32) { self.rawValue = rawValue }

    /// The set of the one class that a character of `UnicodeTables.blocks` says: 0x40 plus its number.
    @inline(__always)
    init(tableEntry: UInt8) { rawValue = 1 &<< UInt32(tableEntry & 0x1F) }

    /// Controls, formats, private use, surrogates and what is not assigned.
    package static var unassigned: CharacterClasses { CharacterClasses(1 << 0) }
    package static var uppercase: CharacterClasses { CharacterClasses(1 << 1) }
    package static var titlecase: CharacterClasses { CharacterClasses(1 << 2) }
    package static var lowercase: CharacterClasses { CharacterClasses(1 << 3) }
    package static var modifierLetter: CharacterClasses { CharacterClasses(1 << 4) }
    package static var otherLetter: CharacterClasses { CharacterClasses(1 << 5) }
    package static var mark: CharacterClasses { CharacterClasses(1 << 6) }
    package static var number: CharacterClasses { CharacterClasses(1 << 7) }
    package static var punctuation: CharacterClasses { CharacterClasses(1 << 8) }
    package static var symbol: CharacterClasses { CharacterClasses(1 << 9) }
    /// White space other than `newline`.
    package static var space: CharacterClasses { CharacterClasses(1 << 10) }
    /// Carriage return and line feed.
    package static var newline: CharacterClasses { CharacterClasses(1 << 11) }

    /// `\p{L}`
    package static var letter: CharacterClasses { uppercase | titlecase | lowercase | modifierLetter | otherLetter }
    /// `[\p{L}\p{M}]`
    package static var letterOrMark: CharacterClasses { letter | mark }
    /// `\s`
    package static var whitespace: CharacterClasses { space | newline }
    /// `[^\s\p{L}\p{N}]`
    package static var other: CharacterClasses { unassigned | mark | punctuation | symbol }
    /// `[^\r\n\p{L}\p{N}]`: what may stand before the letters of one piece.
    package static var wordPrefix: CharacterClasses { other | space }
    /// `[\p{Lm}\p{Lo}\p{M}]`: neither upper nor lower.
    package static var caseless: CharacterClasses { modifierLetter | otherLetter | mark }
    /// `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`
    package static var wordHead: CharacterClasses { uppercase | titlecase | caseless }
    /// `[\p{Ll}\p{Lm}\p{Lo}\p{M}]`
    package static var wordTail: CharacterClasses { lowercase | caseless }

    @inline(__always)
    package static func | (left: CharacterClasses, right: CharacterClasses) -> CharacterClasses {
        CharacterClasses(left.rawValue | right.rawValue)
    }

    /// Whether the two share a class.
    @inline(__always)
    package func meets(_ other: CharacterClasses) -> Bool { rawValue & other.rawValue != 0 }
}
