import Domain
import NIOCore
import OpenAIProtocol
import Routing

// What the router is told of a request.
extension Exchange {
    /// The request as the router weighs it, and the hashes of its prompt's blocks in the loop's ``PromptBlocks``.
    ///
    /// Blocks are hashed here, once for each attempt, rather than kept: the body is at hand and hashing is cheap.
    func routingRequest(_ scanned: ScannedRequest, _ model: ModelEntry, _ org: OrgID) -> RoutingRequest {
        var request = RoutingRequest(
            model: model.id, promptTokens: promptTokensEstimate, expectedOutputTokens: completionTokensMax,
            engines: endpoint?.engines ?? .all, excluded: tried, isStreamed: scanned.stream)
        request.region = key?.region
        // Prompts of a list do not read one another: as if each were cheaper by so many times in its attention.
        request.attentionTokens = Double(model.configuration.attentionTokens) * Double(max(1, scanned.promptCount))
        guard loop.services.router.weighsPrompts, scanned.endpoint.generates,
            let salt = loop.blockSalt(of: org, model.id)
        else {
            loop.promptBlocks.begin(salt: 0)
            return request
        }
        hashBlocks(scanned, salt: salt)
        let hashed = loop.promptBlocks.bytes
        if hashed > 0 {
            request.blockTokens = Double(promptTokensEstimate) * Double(PromptBlocks.blockBytes) / Double(hashed)
        }
        if let session = scanned.sessionKey { request.session = loop.promptBlocks.hash(session, salt: salt) }
        outputKey = loop.promptBlocks.hash(key?.id.rawValue ?? "", salt: salt)
        request.expectedOutputTokens = loop.services.router.expectedOutput(outputKey, tokensMax: completionTokensMax)
        return request
    }

    /// In the order in which templates print them, as far as that is common: tools, system prompt, conversation.
    private func hashBlocks(_ scanned: ScannedRequest, salt: UInt64) {
        body.withUnsafeReadableBytes { body in
            loop.promptBlocks.begin(salt: salt)
            for span in [scanned.toolsSpan, scanned.systemSpan, scanned.promptSpan].compactMap(\.self) {
                loop.promptBlocks.append(UnsafeRawBufferPointer(rebasing: body[span]))
            }
        }
    }
}
