import Domain

extension Trace {
    /// Sessions that come back with all that was said before.
    ///
    /// Every session shares a system prompt of `sharedBlocks`, then adds two to seven blocks a turn, waits 4 to 16 s and
    /// comes again; answers have 20 to 419 tokens. Sessions begin one a second on the average. A trace that no policy was
    /// tuned on: other lengths, a shared beginning, and the same from every machine.
    package static func sessions(_ sessions: Int, turns: Int, sharedBlocks: Int = 2, seed: UInt64) -> Trace {
        var random = SplitMix64(seed: seed)
        var requests: [Request] = []
        for session in 0..<sessions {
            var said = (0..<sharedBlocks).map { UInt64($0) + 1 }
            var seconds = random.unit() * Double(sessions)
            for turn in 0..<turns {
                for _ in 0..<(2 + random.below(6)) {
                    said.append(UInt64(session) * 100_000 + UInt64(turn) * 1_000 + UInt64(said.count) + 10)
                }
                let prompt = said.count * NodeProfile.blockTokens + random.below(NodeProfile.blockTokens)
                requests.append(
                    Request(
                        seconds: seconds, promptTokens: prompt, outputTokens: 20 + random.below(400),
                        blocks: said.map { SplitMix64.mix($0) }))
                seconds += 4 + random.unit() * 12
            }
        }
        return Trace(name: "sessions-\(sessions)x\(turns)", requests: requests)
    }
}
