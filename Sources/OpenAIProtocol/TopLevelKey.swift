/// A top-level key that the gateway reads. All others pass unread.
enum TopLevelKey: Hashable, Sendable {
    case model, stream, streamOptions, n, bestOf, cacheSalt
    case limit(Endpoint.LimitField)
    case prompt(Endpoint.PromptField)
    case system, instructions, tools, promptCacheKey, user
    /// Refused by endpoints that keep no state between requests and run nothing of their own.
    case stateful(StatefulKey)
    case steering(SteeringKey)

    enum StatefulKey: String, CaseIterable, Sendable {
        case previousResponseID = "previous_response_id"
        case conversation, background, container
        case mcpServers = "mcp_servers"
    }

    private struct Row: Sendable {
        let hash: UInt64
        let name: [UInt8]
        let key: TopLevelKey
    }

    /// The keys in order of their hashes: a body has some twenty keys, most of them unknown.
    private static let rows: [Row] = {
        var rows: [(name: String, key: TopLevelKey)] = [
            ("model", .model), ("stream", .stream), ("stream_options", .streamOptions), ("n", .n), ("best_of", .bestOf),
            ("cache_salt", .cacheSalt), ("system", .system), ("instructions", .instructions), ("tools", .tools),
            ("prompt_cache_key", .promptCacheKey),
            ("user", .user),
        ]
        rows += Endpoint.LimitField.allCases.map { ($0.rawValue, .limit($0)) }
        rows += Endpoint.PromptField.allCases.map { ($0.rawValue, .prompt($0)) }
        rows += StatefulKey.allCases.map { ($0.rawValue, .stateful($0)) }
        let ownCases: Set<SteeringKey> = [.n, .bestOf, .cacheSalt, .messages]
        rows += SteeringKey.allCases.filter { !ownCases.contains($0) }.map { ($0.rawValue, .steering($0)) }
        return rows.map { Row(hash: KeyHash.of($0.name), name: Array($0.name.utf8), key: $0.key) }
            .sorted { $0.hash < $1.hash }
    }()

    /// The same hashes alone, which is all that an unknown key touches.
    private static let hashes: [UInt64] = rows.map(\.hash)

    /// The key whose bytes are `name`, and whose hash is `hash`.
    static func named(_ name: UnsafeRawBufferPointer, hash: UInt64) -> TopLevelKey? {
        let hashes = hashes
        var low = 0
        var high = hashes.count
        while low < high {
            let middle = (low + high) / 2
            if hashes[middle] < hash { low = middle + 1 } else { high = middle }
        }
        guard low < hashes.count, hashes[low] == hash else { return nil }
        let row = rows[low]
        guard row.name.count == name.count else { return nil }
        for index in name.indices where row.name[index] != name[index] { return nil }
        return row.key
    }
}

/// A hash of a key's bytes: quick, the same in every process, no defence against collisions, so equal hashes are
/// followed by a comparison wherever it matters.
package enum KeyHash {
    package static func of(_ bytes: UnsafeRawBufferPointer) -> UInt64 {
        var hash = UInt64(truncatingIfNeeded: bytes.count) &* 0x9E37_79B9_7F4A_7C15
        var at = 0
        while at + 8 <= bytes.count {
            hash = mix(hash ^ UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: at, as: UInt64.self)))
            at += 8
        }
        var tail: UInt64 = 0
        while at < bytes.count {
            tail = tail << 8 | UInt64(bytes[at])
            at += 1
        }
        return mix(hash ^ tail)
    }

    package static func of(_ name: String) -> UInt64 {
        var name = name
        return name.withUTF8 { of(UnsafeRawBufferPointer($0)) }
    }

    private static func mix(_ value: UInt64) -> UInt64 {
        let product = value &* 0xD6E8_FEB8_6659_FD93
        return product ^ (product >> 32)
    }
}
