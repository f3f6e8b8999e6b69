import Domain
import JSON
import NIOCore

/// What an input's embedding is here: a unit vector drawn from the hash of its tokens, so equal inputs have equal vectors
/// and others are all but orthogonal.
enum EmbeddingVector {
    static func of(_ prompt: PromptTokens, dimensions: Int) -> [Float] {
        var generator = SplitMix64(seed: prompt.seed)
        var vector = (0..<dimensions).map { _ in Float(generator.unit() * 2 - 1) }
        let length = vector.reduce(0) { $0 + $1 * $1 }.squareRoot()
        guard length > 0 else { return vector }
        for index in vector.indices { vector[index] /= length }
        return vector
    }

    /// The whole answer of `/v1/embeddings`.
    static func answer(
        _ request: EmbeddingRequest, id: String, created: Int64, model: String, dimensions: Int, usage: TokenUsage?,
        into body: inout ByteBuffer
    ) {
        body.writeString("{\"id\":\"embd-\(id)\",\"object\":\"list\",\"created\":\(created),")
        body.writeString("\"model\":\(model),\"data\":[")
        for (index, input) in request.inputs.enumerated() {
            if index > 0 { body.writeStaticString(",") }
            body.writeString("{\"index\":\(index),\"object\":\"embedding\",\"embedding\":")
            let vector = of(input, dimensions: request.dimensions ?? dimensions)
            if request.isBase64 {
                let bytes = vector.flatMap { value in
                    (0..<4).map { UInt8(truncatingIfNeeded: value.bitPattern >> ($0 * 8)) }
                }
                body.writeString("\"\(base64(bytes))\"}")
            } else {
                body.writeString("[\(vector.map(\.description).joined(separator: ","))]}")
            }
        }
        body.writeStaticString("]")
        if let usage { body.writeString(",\"usage\":\(ChatRenderer.usage(usage))") }
        body.writeStaticString("}")
    }

    /// RFC 4648, with padding.
    static func base64(_ bytes: [UInt8]) -> String {
        let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)
        var text: [UInt8] = []
        text.reserveCapacity((bytes.count + 2) / 3 * 4)
        for start in stride(from: 0, to: bytes.count, by: 3) {
            let group = bytes[start..<min(start + 3, bytes.count)]
            let word = group.reduce(UInt32(0)) { $0 << 8 | UInt32($1) } << UInt32(8 * (3 - group.count))
            for digit in 0..<4 {
                text.append(
                    digit <= group.count
                        ? alphabet[Int(word >> UInt32(18 - 6 * digit) & 63)] : UInt8(ascii: "="))
            }
        }
        return String(decoding: text, as: UTF8.self)
    }
}
