import Domain

/// One loop's metrics: plain numbers in plain arrays. No locks and no atomics; a scrape takes a copy on the loop.
///
/// Model labels are those of configured models only. A model is named by its place in the configuration that was
/// published last; what is nil or out of range counts as `other`. Loop-bound: not Sendable.
package final class MetricsShard {
    /// Distinct model names over the life of the process, `other` included; later ones count as `other`.
    package static let modelsMax = 1024
    static let otherModel = "other"

    private var values: MetricsSnapshot
    /// From a place in the configuration to an index of `values.models`.
    private var modelOfPlace: ContiguousArray<Int> = []

    /// - Parameter models: Public ids in the order of the configuration.
    package init(models: [String]) {
        values = MetricsSnapshot()
        publish(models: models)
    }

    /// Takes a reloaded configuration's models. Counts of models that are gone stay: counters never go back.
    package func publish(models: [String]) {
        modelOfPlace.removeAll(keepingCapacity: true)
        for name in models {
            if let known = values.models.firstIndex(of: name) {
                modelOfPlace.append(known)
            } else if values.models.count < Self.modelsMax {
                modelOfPlace.append(values.models.count)
                values.addModel(name)
            } else {
                modelOfPlace.append(0)
            }
        }
    }

    /// A copy of everything. The copy shares memory until the loop counts on.
    package func snapshot() -> MetricsSnapshot { values }

    // MARK: - Requests

    /// - Parameter status: What the client was answered; 499 where it left before.
    package func requestFinished(endpoint: MetricEndpoint, status: Int, outcome: RequestOutcome) {
        values.requests[MetricsSnapshot.requestSeries(endpoint, statusClass: status / 100, outcome)] += 1
    }

    package func refused(_ code: Failure.Code) {
        values.refusals[code.rawValue] += 1
    }

    /// Accepted to the last byte, with the failure that ended it, if one did.
    package func requestDuration(
        seconds: Double, endpoint: MetricEndpoint, model: Int?, failure: Failure.Code? = nil
    ) {
        let series = MetricsSnapshot.durationSeries(index(of: model), endpoint.operation, failure)
        values.requestDuration.observe(seconds, series: series)
    }

    /// Accepted to the first token.
    package func timeToFirstToken(seconds: Double, endpoint: MetricEndpoint, model: Int?) {
        let series = MetricsSnapshot.modelSeries(index(of: model), endpoint.operation)
        values.timeToFirstToken.observe(seconds, series: series)
    }

    /// The mean gap after the first token.
    package func timePerOutputToken(seconds: Double, endpoint: MetricEndpoint, model: Int?) {
        let series = MetricsSnapshot.modelSeries(index(of: model), endpoint.operation)
        values.timePerOutputToken.observe(seconds, series: series)
    }

    /// What a request was charged for.
    package func tokensUsed(_ usage: TokenUsage, endpoint: MetricEndpoint, model: Int?) {
        let model = index(of: model)
        values.tokens[model * 3] += Int64(usage.promptTokens)
        values.tokens[model * 3 + 1] += Int64(usage.cachedTokens)
        values.tokens[model * 3 + 2] += Int64(usage.completionTokens)
        let series = MetricsSnapshot.modelSeries(model, endpoint.operation) * 2
        values.tokenUsage.observe(Double(usage.promptTokens), series: series)
        if endpoint.operation != .embeddings {
            values.tokenUsage.observe(Double(usage.completionTokens), series: series + 1)
        }
    }

    /// The gateway's own time: accepted to dispatched, without what it waited for (body, store, queue).
    package func overhead(seconds: Double) { values.overhead.observe(seconds, series: 0) }

    /// From asking for admission to having it.
    package func admissionWaited(seconds: Double) { values.admissionWait.observe(seconds, series: 0) }

    /// From finding no room at the nodes to having it, or to giving up.
    package func queueWaited(seconds: Double) { values.queueWait.observe(seconds, series: 0) }

    /// One answer of Redis.
    package func redisAnswered(seconds: Double) { values.redisLatency.observe(seconds, series: 0) }

    // MARK: - The rest

    package func count(_ counter: MetricCounter, by amount: Int64 = 1) {
        values.counters[counter.rawValue] &+= amount
    }

    package func add(_ delta: Int, to gauge: MetricGauge) {
        values.gauges[gauge.rawValue] &+= Int64(delta)
    }

    private func index(of place: Int?) -> Int {
        guard let place, modelOfPlace.indices.contains(place) else { return 0 }
        return modelOfPlace[place]
    }
}

/// What one shard has counted, at one moment.
package struct MetricsSnapshot: Sendable {
    static let statusClasses = 5
    static let failures = Failure.Code.allCases.count

    /// The first is `other`. Only ever appended to, so an index keeps its meaning.
    fileprivate(set) var models = [MetricsShard.otherModel]
    fileprivate(set) var requests = ContiguousArray<Int64>(
        repeating: 0, count: MetricEndpoint.indexCount * statusClasses * RequestOutcome.allCases.count)
    fileprivate(set) var refusals = ContiguousArray<Int64>(repeating: 0, count: failures)
    fileprivate(set) var counters = ContiguousArray<Int64>(repeating: 0, count: MetricCounter.allCases.count)
    fileprivate(set) var gauges = ContiguousArray<Int64>(repeating: 0, count: MetricGauge.allCases.count)
    /// Prompt, cached, completion for each model.
    fileprivate(set) var tokens = ContiguousArray<Int64>(repeating: 0, count: 3)
    fileprivate(set) var requestDuration = HistogramFamily(bounds: MetricBounds.requestDuration, capacity: 0)
    fileprivate(set) var timeToFirstToken = HistogramFamily(bounds: MetricBounds.timeToFirstToken, capacity: 0)
    fileprivate(set) var timePerOutputToken = HistogramFamily(bounds: MetricBounds.timePerOutputToken, capacity: 0)
    fileprivate(set) var tokenUsage = HistogramFamily(bounds: MetricBounds.tokenUsage, capacity: 0)
    fileprivate(set) var overhead = HistogramFamily(bounds: MetricBounds.overhead, capacity: 1)
    fileprivate(set) var admissionWait = HistogramFamily(bounds: MetricBounds.admissionWait, capacity: 1)
    fileprivate(set) var queueWait = HistogramFamily(bounds: MetricBounds.queueWait, capacity: 1)
    fileprivate(set) var redisLatency = HistogramFamily(bounds: MetricBounds.redisLatency, capacity: 1)

    package init() {
        growHistograms()
    }

    /// The models that are named, without `other`.
    package var modelNames: [String] { Array(models.dropFirst()) }

    /// Adds the other shard's counts, model by name.
    package mutating func add(_ other: MetricsSnapshot) {
        for index in requests.indices { requests[index] += other.requests[index] }
        for index in refusals.indices { refusals[index] += other.refusals[index] }
        for index in counters.indices { counters[index] &+= other.counters[index] }
        for index in gauges.indices { gauges[index] &+= other.gauges[index] }
        overhead.add(other.overhead, series: 0, as: 0)
        admissionWait.add(other.admissionWait, series: 0, as: 0)
        queueWait.add(other.queueWait, series: 0, as: 0)
        redisLatency.add(other.redisLatency, series: 0, as: 0)
        for (theirs, name) in other.models.enumerated() {
            if !models.contains(name) { addModel(name) }
            guard let ours = models.firstIndex(of: name) else { continue }
            for kind in 0..<3 { tokens[ours * 3 + kind] += other.tokens[theirs * 3 + kind] }
            Self.addModel(other.requestDuration, theirs, to: &requestDuration, ours, other.models.count)
            Self.addModel(other.timeToFirstToken, theirs, to: &timeToFirstToken, ours, other.models.count)
            Self.addModel(other.timePerOutputToken, theirs, to: &timePerOutputToken, ours, other.models.count)
            Self.addModel(other.tokenUsage, theirs, to: &tokenUsage, ours, other.models.count)
        }
    }

    /// Every family puts the model first, so that a model's series are one run.
    private static func addModel(
        _ source: HistogramFamily, _ theirs: Int, to target: inout HistogramFamily, _ ours: Int, _ theirModels: Int
    ) {
        let width = source.capacity / theirModels
        for offset in 0..<width { target.add(source, series: theirs * width + offset, as: ours * width + offset) }
    }

    fileprivate mutating func addModel(_ name: String) {
        models.append(name)
        tokens.append(contentsOf: repeatElement(0, count: 3))
        growHistograms()
    }

    private mutating func growHistograms() {
        let perModel = MetricOperation.allCases.count
        requestDuration.grow(to: models.count * perModel * (Self.failures + 1))
        timeToFirstToken.grow(to: models.count * perModel)
        timePerOutputToken.grow(to: models.count * perModel)
        tokenUsage.grow(to: models.count * perModel * 2)
    }

    static func requestSeries(_ endpoint: MetricEndpoint, statusClass: Int, _ outcome: RequestOutcome) -> Int {
        let row = endpoint.index * statusClasses + min(max(statusClass, 1), statusClasses) - 1
        return row * RequestOutcome.allCases.count + Int(outcome.rawValue)
    }

    static func modelSeries(_ model: Int, _ operation: MetricOperation) -> Int {
        model * MetricOperation.allCases.count + operation.rawValue
    }

    static func durationSeries(_ model: Int, _ operation: MetricOperation, _ failure: Failure.Code?) -> Int {
        modelSeries(model, operation) * (failures + 1) + (failure.map { $0.rawValue + 1 } ?? 0)
    }
}
