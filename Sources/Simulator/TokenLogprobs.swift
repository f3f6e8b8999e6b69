import Domain
import JSON
import NIOCore

/// The logprobs that a request asks for: a function of the choice's seed and the token's index, and as in a real answer
/// the chosen token is the likeliest.
struct TokenLogprobs: Equatable {
    static let topMax = 20
    /// Where the tokens of an echoed prompt are numbered from, so that they share nothing with the answer's.
    private static let promptIndex = 1 << 32

    /// How many alternatives a token shows, itself included.
    var top: Int

    private func chosen(_ token: AnswerToken, _ choice: GenerationRequest.Choice) -> Double {
        let word = SplitMix64.mix(choice.seed ^ UInt64(token.index) &* 0x2545_F491_4F6C_DD1D)
        return -Double(word >> 40) * 0x1p-24
    }

    /// The chosen token and as many others, each less likely than the one before.
    private func alternatives(
        _ token: AnswerToken, _ choice: GenerationRequest.Choice
    ) -> [(text: String, logprob: Double)] {
        var list = [(text: token.text, logprob: chosen(token, choice))]
        let others = FillerText(seed: choice.seed ^ 0x6C6F_6770)
        var next = token.index * 64
        while list.count < top {
            let word = others.token(next)
            next += 1
            // A top list names each token once.
            if !list.contains(where: { $0.text == word }) { list.append((word, list[list.count - 1].logprob - 0.5)) }
        }
        return list
    }

    private func entry(_ text: String, _ logprob: Double) -> String {
        let bytes = text.utf8.map(String.init).joined(separator: ",")
        return "{\"token\":\(JSONValue.quoted(text)),\"logprob\":\(logprob),\"bytes\":[\(bytes)]"
    }

    func writeChat(_ tokens: [AnswerToken], of choice: GenerationRequest.Choice, into body: inout ByteBuffer) {
        body.writeStaticString("{\"content\":")
        writeList(tokens, of: choice, into: &body)
        body.writeStaticString("}")
    }

    func writeList(_ tokens: [AnswerToken], of choice: GenerationRequest.Choice, into body: inout ByteBuffer) {
        body.writeStaticString("[")
        for (index, token) in tokens.enumerated() {
            if index > 0 { body.writeStaticString(",") }
            body.writeString(entry(token.text, chosen(token, choice)))
            body.writeStaticString(",\"top_logprobs\":[")
            if top > 0 {
                let list = alternatives(token, choice).map { entry($0.text, $0.logprob) + "}" }
                body.writeString(list.joined(separator: ","))
            }
            body.writeStaticString("]}")
        }
        body.writeStaticString("]")
    }

    /// - Parameter echo: The prompt's text in front; its tokens are listed, too, the first without a logprob.
    func writeLegacy(
        _ tokens: [AnswerToken], of choice: GenerationRequest.Choice, echo: String?, into body: inout ByteBuffer
    ) {
        var rows: [(token: AnswerToken, isFirst: Bool)] = []
        var offset = 0
        for piece in FillerText.pieces(of: echo ?? "") {
            rows.append((AnswerToken(text: piece, index: Self.promptIndex + rows.count, offset: offset), rows.isEmpty))
            offset += piece.utf8.count
        }
        for var token in tokens {
            token.offset += offset
            rows.append((token, false))
        }
        func list(_ values: [String]) -> String { "[\(values.joined(separator: ","))]" }
        let offsets = list(rows.map { String($0.token.offset) })
        let logprobs = list(rows.map { $0.isFirst ? "null" : "\(chosen($0.token, choice))" })
        let texts = list(rows.map { JSONValue.quoted($0.token.text) })
        let tops = list(
            rows.map { row in
                guard !row.isFirst, top > 0 else { return "null" }
                let members = alternatives(row.token, choice).map { "\(JSONValue.quoted($0.text)):\($0.logprob)" }
                return "{\(members.joined(separator: ","))}"
            })
        body.writeString("{\"text_offset\":\(offsets),\"token_logprobs\":\(logprobs),\"tokens\":\(texts),")
        body.writeString("\"top_logprobs\":\(tops)}")
    }
}
