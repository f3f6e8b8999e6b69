import Domain
import JSON
import OpenAIProtocol

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
