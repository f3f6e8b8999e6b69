/// Bounds on what is loaded and on what encoding keeps in memory.
///
/// The widths of ids and ranks are also what ``PairTable`` packs into one word, so they cannot be raised alone.
package enum TokenizerLimits {
    /// Bytes of a file. The largest in use (Gemma's `tokenizer.json`) has 33 MB.
    package static let fileBytesMax = 128 << 20
    /// Bits of an id; the largest vocabularies in use need 18.
    package static let idBits = 21
    /// Ids are less than this. The last value is left out, so that no packed pair is all ones.
    package static let idMax = (1 << idBits) - 1
    /// Bits of a rank.
    package static let rankBits = 22
    /// Merges of a file.
    package static let mergesMax = (1 << rankBits) - 2
    /// Bytes of a token; the longest in use have 128.
    package static let tokenBytesMax = 1024
    /// Bytes of all tokens together.
    package static let vocabularyBytesMax = 16 << 20
    /// Added tokens of a `tokenizer.json`; Gemma's has 6,414.
    package static let addedTokensMax = 1 << 16
    /// Bytes of an added token: what a place in text can cost that looks like the start of one.
    package static let addedTokenBytesMax = 256
    /// Steps in each of the sequences (normalizers, pre-tokenizers) of a `tokenizer.json`.
    package static let stepsMax = 16

    /// Bits of the table of pairs of characters that some merge joins, as a power of two: 512 KiB.
    static let cutHashBitsMax = 22
    /// Symbols (bytes or characters) of a piece up to which the pair of least rank is searched by a scan.
    static let scannedSymbolsMax = 64
    /// Bytes of scratch per symbol of a longer piece: id, other end, and the tree of ranks with its upper levels.
    package static let scratchBytesPerSymbolMax = 13
    /// Bytes of scratch that outlive one call; what a larger input needed is given back when the call returns.
    package static let scratchBytesKeptMax = 1 << 20
    /// Sets of three pieces in the cache, a power of two; 112 bytes each.
    static let cachedSets = 1 << 16
    /// Pieces of more than eight ids in the cache, a power of two; 64 bytes each.
    static let cachedRows = 1 << 14
    /// Ids that are collected before they are appended to the caller's array.
    static let idsBuffered = 2048
}
