import Domain
import JSON
import OpenAIProtocol

/// SplitMix64: the same numbers for the same seed, everywhere.
struct SeededNumbers: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var value = state
        value = (value ^ (value >> 30)) &* 0xBF58_476D_1CE4_E5B9
        value = (value ^ (value >> 27)) &* 0x94D0_49BB_1331_11EB
        return value ^ (value >> 31)
    }

    mutating func below(_ bound: Int) -> Int { Int.random(in: 0..<bound, using: &self) }
    mutating func chance(_ percent: Int) -> Bool { below(100) < percent }
    mutating func pick<Element>(_ elements: [Element]) -> Element { elements[below(elements.count)] }
}

func scan(_ body: String, _ endpoint: Endpoint = .chatCompletions) throws(Failure) -> ScannedRequest {
    let result = Array(body.utf8).withUnsafeBytes { bytes in
        Result { () throws(Failure) in try scanRequest(bytes, endpoint: endpoint) }
    }
    return try result.get()
}

/// What scanning that body fails with.
func scanFailure(_ body: String, _ endpoint: Endpoint = .chatCompletions) -> Failure? {
    do throws(Failure) {
        _ = try scan(body, endpoint)
        return nil
    } catch {
        return error
    }
}

/// A chat body with these members besides the two that it needs.
func chat(_ members: String = "") -> String {
    #"{"model":"m","messages":[{"role":"user","content":"hi"}]"# + (members.isEmpty ? "" : ",") + members + "}"
}

func withBytes<Result>(_ text: String, _ body: (UnsafeRawBufferPointer) throws -> Result) rethrows -> Result {
    try Array(text.utf8).withUnsafeBytes(body)
}

func text(_ bytes: some Sequence<UInt8>) -> String { String(decoding: Array(bytes), as: UTF8.self) }
