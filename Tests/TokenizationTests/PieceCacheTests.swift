import Testing

@testable import Tokenization

/// The cache against a dictionary: it may forget, but never says what was not stored.
@Suite struct PieceCacheTests {
    @Test func whatIsFoundIsWhatWasStoredLast() {
        let seed = UInt64.random(in: 0 ... .max)
        var generator = TextGenerator(seed: seed)
        let cache = PieceCache()
        let hashKeys = LongPieceHash()
        defer {
            cache.deallocate()
            hashKeys.deallocate()
        }
        // Two tokenizers that share the cache.
        let seeds = [PieceKey.Seed(), PieceKey.Seed()]
        var stored: [[UInt8]: [UInt32]] = [:]
        var found = 0
        let rounds = 3000
        for _ in 0..<rounds {
            // Few bytes, so that pieces come again and differ by little.
            let piece = (0..<Int.random(in: 1...PieceKey.longMax, using: &generator)).map { _ in
                UInt8.random(in: 0...1, using: &generator)
            }
            for piece in [piece, Array(piece.prefix(7))] {
                let tokenizer = UInt8.random(in: 0...1, using: &generator)
                let key = piece.withUnsafeBytes { bytes -> PieceKey in
                    let start = bytes.baseAddress.unsafelyUnwrapped
                    return bytes.count <= PieceKey.shortMax
                        ? PieceKey(
                            short: start, length: bytes.count, readable: bytes.count, seed: seeds[Int(tokenizer)])
                        : PieceKey(long: start, length: bytes.count, seed: seeds[Int(tokenizer)], hashKeys)
                }
                // Of long pieces the tokenizers differ by their hash keys, which are the same here.
                let name = piece + [2 + tokenizer]
                let count = cache.count(key)
                // Rows of many ids are forgotten sooner than their number.
                if count > 0, piece.count <= PieceKey.shortMax {
                    found += 1
                    #expect(count == stored[name]?.count, "seed \(seed)")
                    if let ids = ids(cache, key) { #expect(ids == stored[name], "seed \(seed)") }
                }
                let ids = (0..<Int.random(in: 1...PieceCache.idsMax, using: &generator)).map { _ in
                    UInt32.random(in: 0..<UInt32(TokenizerLimits.idMax), using: &generator)
                }
                cache.store(key, ids, ids.count)
                stored[name] = ids
                #expect(self.ids(cache, key) == ids, "seed \(seed), right after it was stored")
                #expect(cache.count(key) == ids.count, "seed \(seed)")
            }
        }
        #expect(found > rounds / 2, "seed \(seed): the cache forgets too much")
        cache.empty()
        for length in 1...PieceKey.shortMax {
            let piece = [UInt8](repeating: 0, count: length)
            let key = piece.withUnsafeBytes {
                PieceKey(
                    short: $0.baseAddress.unsafelyUnwrapped, length: length, readable: length, seed: seeds[0])
            }
            #expect(cache.count(key) == 0)
        }
    }

    /// Short pieces whose hashes have the same low bits: those that an index is masked out of.
    private func pieces(_ count: Int, sharing mask: UInt64, _ seed: PieceKey.Seed) -> [PieceKey] {
        var keys: [PieceKey] = []
        var number: UInt64 = 0
        while keys.count < count {
            number += 1
            let key = withUnsafeBytes(of: number) {
                PieceKey(short: $0.baseAddress.unsafelyUnwrapped, length: 8, readable: 8, seed: seed)
            }
            if let first = keys.first, first.hash & mask != key.hash & mask { continue }
            keys.append(key)
        }
        return keys
    }

    @Test func aFullSetForgetsOnePieceForEachThatIsNewAndKeepsTheOthersWhole() {
        let cache = PieceCache()
        defer { cache.deallocate() }
        let keys = pieces(12, sharing: UInt64(TokenizerLimits.cachedSets - 1), PieceKey.Seed())
        for (index, key) in keys.enumerated() {
            let own = (0..<(1 + index % PieceCache.besideMax)).map { UInt32(100 * index + $0) }
            cache.store(key, own, own.count)
            #expect(ids(cache, key) == own)
            var held = 0
            for (other, key) in keys[...index].enumerated() where cache.count(key) > 0 {
                held += 1
                let stored = (0..<(1 + other % PieceCache.besideMax)).map { UInt32(100 * other + $0) }
                #expect(ids(cache, key) == stored, "piece \(other) after piece \(index)")
            }
            #expect(held == min(index + 1, 3), "after piece \(index)")
        }
    }

    @Test func aRowThatIsTakenByAnotherPieceIsNotRead() {
        let cache = PieceCache()
        defer { cache.deallocate() }
        // The same row, in two sets or one: either way the first piece's ids are gone, and said to be.
        let keys = pieces(2, sharing: UInt64(TokenizerLimits.cachedRows - 1), PieceKey.Seed())
        let lists = [0, 1].map { list in (0..<PieceCache.idsMax).map { UInt32(100 * list + $0) } }
        cache.store(keys[0], lists[0], lists[0].count)
        #expect(ids(cache, keys[0]) == lists[0])
        cache.store(keys[1], lists[1], lists[1].count)
        #expect(ids(cache, keys[0]) == nil)
        #expect(ids(cache, keys[1]) == lists[1])
    }

    @Test func anyByteOfALongPieceChangesItsKey() {
        let hashKeys = LongPieceHash()
        defer { hashKeys.deallocate() }
        let seed = PieceKey.Seed()
        func key(_ piece: [UInt8]) -> [UInt64] {
            piece.withUnsafeBytes {
                let key = PieceKey(
                    long: $0.baseAddress.unsafelyUnwrapped, length: $0.count, seed: seed, hashKeys)
                return [key.first, key.second]
            }
        }
        var seen: Set<[UInt64]> = []
        var pieces = 0
        for length in (PieceKey.shortMax + 1)...PieceKey.longMax {
            var piece = (0..<length).map { UInt8($0) }
            #expect(key(piece) == key(piece))
            for index in 0..<length {
                for bit in 0..<8 {
                    piece[index] ^= 1 << bit
                    pieces += 1
                    #expect(seen.insert(key(piece)).inserted, "length \(length), byte \(index), bit \(bit)")
                    piece[index] ^= 1 << bit
                }
            }
        }
        #expect(seen.count == pieces)
    }

    /// The ids that the cache has; nil where it has none.
    private func ids(_ cache: PieceCache, _ key: PieceKey) -> [UInt32]? {
        let found = cache.ids(key)
        guard found.count > 0 else { return nil }
        if found.count > PieceCache.besideMax {
            guard let words = cache.row(key) else { return nil }
            var ids = [UInt32](repeating: 0, count: PieceCache.idsMax)
            for word in 0..<(PieceCache.idsMax / 3) { PackedIDs.unpack(words[word], to: &ids[3 * word]) }
            return Array(ids.prefix(found.count))
        }
        var ids = [UInt32(truncatingIfNeeded: found.pair), UInt32(truncatingIfNeeded: found.pair >> 32)]
        ids += (0..<3).map { PackedIDs.id(found.beside[0], $0) } + (0..<3).map { PackedIDs.id(found.beside[1], $0) }
        return Array(ids.prefix(found.count))
    }
}
