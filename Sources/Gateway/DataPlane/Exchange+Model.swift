import Domain
import OpenAIProtocol
import Routing

// Which model serves, what its configuration makes of the request, and which models a key sees.
extension Exchange {
    // MARK: Choosing

    /// The model that serves: the one that the client names, or where none of its nodes takes requests, its first
    /// fallback that the key may use, that has a price, that some node serves now, and whose rules the request keeps.
    ///
    /// - Throws: What the client hears. A model that the key may not use does not exist for it: same words, same way.
    func chooseModel(_ asked: ScannedRequest) throws(Failure) {
        guard let model = snapshot.model(named: asked.model), key?.mayUse(model.id) == true else {
            throw Failure.unknownModel(asked.model)
        }
        self.model = model
        try checkRegions()
        guard model.price != nil else {
            throw Failure(
                .modelNotFound, "The model '\(model.id)' is not for sale yet: it has no price.", parameter: "model",
                source: .gateway)
        }
        if !model.configuration.fallbacks.isEmpty {
            self.asked = asked
            if !loop.services.router.takesRequests(
                model.id, on: asked.endpoint.engines, in: key?.region), takeFallback()
            {
                return
            }
            // Down, and nothing in its place: those that were passed over may be asked again, should a node come back
            // and fail meanwhile.
            fallbacksSeen = 0
        }
        try take(model, asked)
    }

    /// A key and its org that are pinned to two places can be served in neither.
    private func checkRegions() throws(Failure) {
        guard let rights = key?.rights, let own = rights.keyRegion, let org = rights.orgRegion, own != org else {
            return
        }
        throw Failure(
            .modelNotFound,
            "This key is pinned to the region '\(own)' and its organization to '\(org)': no node is in both. Ask your provider.",
            retry: .never)
    }

    /// Takes the model's price and rules: clamps, fields that its engines would obey, bounds.
    private func take(_ model: ModelEntry, _ asked: ScannedRequest) throws(Failure) {
        guard model.engines.isEmpty || !model.engineSet.isDisjoint(with: asked.endpoint.engines) else {
            throw Failure.unserved(asked.endpoint, model.id)
        }
        let clamps = model.configuration.clamps
        // The request is large to copy, and mostly nothing bounds it.
        let (request, lowered) = clamps == .none ? (asked, []) : asked.lowered(to: clamps)
        try Steering.check(request, engines: model.engines)
        try bound(request, model)
        self.model = model
        price = model.price
        scanned = request
        self.lowered = lowered
    }

    /// Goes on to the next fallback that can serve the request.
    ///
    /// - Returns: False where there is none; the present model stays.
    private func takeFallback() -> Bool {
        guard let asked, let first = replaced ?? model else { return false }
        while let candidate = nextFallback(of: first) {
            fallbacksSeen += 1
            guard let candidate = usable(candidate) else { continue }
            let before = (promptTokensEstimate, promptTokensMax, completionTokensMax, maxTokens, promptCount)
            do throws(Failure) {
                try take(candidate, asked)
                replaced = first
                loop.metrics.count(.fallbacks)
                return true
            } catch {
                // Another model's rules are not the client's fault.
                (promptTokensEstimate, promptTokensMax, completionTokensMax, maxTokens, promptCount) = before
            }
        }
        return false
    }

    private func nextFallback(of model: ModelEntry) -> ModelID? {
        let fallbacks = model.configuration.fallbacks
        return fallbacksSeen < fallbacks.count ? fallbacks[fallbacksSeen] : nil
    }

    /// The model, where this key may have it and a node that this request has not tried takes requests for it.
    private func usable(_ id: ModelID) -> ModelEntry? {
        guard let model = snapshot.model(named: id.rawValue), model.price != nil, key?.mayUse(id) == true,
            loop.services.router.takesRequests(
                id, on: endpoint?.engines ?? .all, excluding: tried, in: key?.region)
        else { return nil }
        return model
    }

    // MARK: After a node failed

    /// Whether the present model has attempts left: each model has all of them.
    var mayAttempt: Bool { machine.attempts - attemptsBefore < snapshot.configuration.retry.attempts }

    /// Whether the model has had its attempts, or all its nodes, and another model may serve.
    var hasFallback: Bool {
        guard let model, let asked else { return false }
        if mayAttempt,
            loop.services.router.takesRequests(
                model.id, on: asked.endpoint.engines, excluding: tried, in: key?.region)
        {
            return false
        }
        let fallbacks = (replaced ?? model).configuration.fallbacks
        return fallbacks.dropFirst(fallbacksSeen).contains { usable($0) != nil }
    }

    /// No node of the model is left: another model serves, for a hold of its own, or the request ends.
    func fallBack(or failure: Failure) {
        guard takeFallback() else { return perform(machine.refused(failure)) }
        attemptsBefore = machine.attempts
        perform(machine.fallbackChosen())
    }

    func exchangeHold() {
        if let hold { loop.services.spending.release(hold, on: loop.transport) }
        hold = nil
        reserve()
    }

    // MARK: What the model's configuration adds

    /// Defaults where the client is silent, and the client's values that are above the clamps.
    func addModelFields(to plan: inout PatchPlan, endpoint: Endpoint) {
        guard endpoint.generates, let model else { return }
        plan.defaults = model.defaults
        if lowered.contains(where: { $0.name == "n" }) { plan.choicesClamp = model.configuration.clamps.n }
    }

    /// Says which model served in another's place, and what was lowered. Not before a node got the request.
    func addModelHeaders(to head: inout AnswerHead) {
        guard machine.attempts > attemptsBefore else { return }
        if replaced != nil, let model { head.extra.append((name: "x-tollgate-fallback", value: model.id.rawValue)) }
        if !lowered.isEmpty {
            let values = lowered.map { "\($0.name)=\($0.value)" }.joined(separator: ", ")
            head.extra.append((name: "x-tollgate-clamped", value: values))
        }
    }

    // MARK: What a key sees

    /// `/openapi.yaml`; `/v1/models` and `/v1/models/{id}`: what this key may use and the fleet can serve now, itself or by
    /// a fallback.
    func answerLocally() {
        if endpoint == .description {
            heldAnswer = OpenAPIDocument.bytes
            return perform(machine.answeredLocally())
        }
        let servable = Set(loop.services.router.servableModels(in: key?.region))
        if endpoint == .models {
            let cards = snapshot.models.filter { isVisible($0, servable) }.map(card)
            heldAnswer = .init(bytes: ModelCard.renderList(cards))
        } else {
            let name = endpointArgument ?? ""
            guard let model = snapshot.model(named: name), model.price != nil, key?.mayUse(model.id) == true else {
                return perform(machine.refused(Failure.unknownModel(name)))
            }
            guard isVisible(model, servable) else {
                return perform(machine.refused(Failure(RoutingRefusal.allUnhealthy)))
            }
            heldAnswer = .init(bytes: card(of: model).render())
        }
        perform(machine.answeredLocally())
    }

    private func isVisible(_ model: ModelEntry, _ servable: Set<ModelID>) -> Bool {
        func isServable(_ model: ModelEntry) -> Bool {
            model.price != nil && key?.mayUse(model.id) == true && servable.contains(model.id)
        }
        guard model.price != nil, key?.mayUse(model.id) == true else { return false }
        return isServable(model)
            || model.configuration.fallbacks.contains { snapshot.model(named: $0.rawValue).map(isServable) ?? false }
    }

    private func card(of model: ModelEntry) -> ModelCard {
        ModelCard(id: model.id.rawValue, created: snapshot.createdAtSeconds)
    }
}
