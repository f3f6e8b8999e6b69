import Domain

/// A model that a node serves, and what the node calls it.
package struct ServedModel: Hashable, Sendable {
    package let model: ModelID
    /// What goes upstream in the request's `model`.
    package let upstreamName: String

    package init(model: ModelID, upstreamName: String) {
        self.model = model
        self.upstreamName = upstreamName
    }
}

/// A node as the router knows it: what it can do and how far it is, not how it is reached.
package struct NodeSpec: Hashable, Sendable {
    package let id: NodeID
    package let site: SiteID
    package let engine: Engine
    /// Nodes of one class are equally fast.
    package let speedClass: String
    package let models: [ServedModel]
    /// Requests in flight at once, from this gateway.
    package let maxConcurrency: Int
    package let rttNanoseconds: Int64
    /// Tokens that its KV cache holds, until it reports better.
    package let kvCapacityTokens: Int
    /// Of its site; nil where that has none.
    package let region: String?

    /// - Parameter kvCapacityTokens: nil takes its class's (``SpeedClass/kvCapacityTokens(of:)``).
    package init(
        id: NodeID, site: SiteID, engine: Engine, speedClass: String, models: [ServedModel], maxConcurrency: Int,
        rttNanoseconds: Int64, kvCapacityTokens: Int? = nil, region: String? = nil
    ) {
        self.id = id
        self.site = site
        self.engine = engine
        self.speedClass = speedClass
        self.models = models
        self.maxConcurrency = maxConcurrency
        self.rttNanoseconds = rttNanoseconds
        self.region = region
        self.kvCapacityTokens = kvCapacityTokens.map { max(1, $0) } ?? SpeedClass.kvCapacityTokens(of: speedClass)
    }
}

/// What the names of speed classes tell of their nodes, where nothing better is known.
package enum SpeedClass {
    /// An 8B model with an fp8 cache on a card of that name: rooflines, see the simulator's node constants. Names are
    /// compared by their first part: `h100-8b` is an `h100`.
    package static func kvCapacityTokens(of speedClass: String) -> Int {
        switch speedClass.prefix(while: { $0 != "-" }).lowercased() {
        case "h100", "h200", "b200": 768_000
        case "a100": 512_000
        default: 256_000
        }
    }
}

/// The nodes at one moment, immutable, shared by the router and every event loop.
///
/// A node keeps its index for as long as it stays in the fleet, over any number of reloads (``succeeded(by:)``). An
/// index that a node left may be taken by another: the `generation` of an index says since which fleet it is whose, so
/// an ``Assignment`` made against an older or newer snapshot resolves to the right node or to none (``node(_:)``).
package final class FleetSnapshot: Sendable {
    /// By index; nil where a node left and none took its place.
    package let slots: [NodeSpec?]
    /// By index: the fleet in which the present holder (or hole) of the index came.
    package let generations: [UInt32]
    /// Counts the fleets from 1.
    package let generation: UInt32

    private let indexByNode: [NodeID: Int]
    private let modelIndexes: [ModelID: Int]
    /// By model index: the nodes that serve it, ascending.
    private let servers: [ContiguousArray<Int32>]
    /// The same as a bit for each index, 64 a word; and the nodes of each engine, by the place of its bit in ``EngineSet``.
    private let serverWords: [ContiguousArray<UInt64>]
    private let engineWords: [ContiguousArray<UInt64>]
    /// The same, of one region alone.
    private let serversByRegion: [String: [ContiguousArray<Int32>]]
    private let regionWords: [String: ContiguousArray<UInt64>]
    /// In the order in which the operator listed them.
    private let order: [Int]

    package static let empty = FleetSnapshot(nodes: [])

    /// The first fleet. Of several nodes with one id, the first counts.
    package convenience init(nodes: [NodeSpec]) {
        self.init(nodes: nodes, slots: [], generations: [], generation: 1)
    }

    /// The next fleet: nodes that stay keep their indexes, new ones fill the holes or come at the end.
    package func succeeded(by nodes: [NodeSpec]) -> FleetSnapshot {
        FleetSnapshot(nodes: nodes, slots: slots, generations: generations, generation: generation &+ 1)
    }

    private init(
        nodes: [NodeSpec], slots oldSlots: [NodeSpec?], generations oldGenerations: [UInt32], generation: UInt32
    ) {
        var listed: [NodeID: NodeSpec] = [:]
        for node in nodes where listed[node.id] == nil { listed[node.id] = node }

        var slots: [NodeSpec?] = []
        var generations = oldGenerations
        var indexByNode: [NodeID: Int] = [:]
        for (index, old) in oldSlots.enumerated() {
            let survivor = old.flatMap { listed[$0.id] }
            if let survivor {
                indexByNode[survivor.id] = index
            } else if old != nil {
                generations[index] = generation
            }
            slots.append(survivor)
        }
        var holes = slots.indices.filter { slots[$0] == nil }[...]
        for node in nodes where indexByNode[node.id] == nil {
            if let hole = holes.popFirst() {
                slots[hole] = node
                generations[hole] = generation
                indexByNode[node.id] = hole
            } else {
                indexByNode[node.id] = slots.count
                slots.append(node)
                generations.append(generation)
            }
        }

        var modelIndexes: [ModelID: Int] = [:]
        var servers: [ContiguousArray<Int32>] = []
        let regions = Set(slots.compactMap { $0?.region })
        for (index, node) in slots.enumerated() {
            for served in node?.models ?? [] {
                let model = modelIndexes[served.model] ?? servers.count
                if model == servers.count {
                    modelIndexes[served.model] = model
                    servers.append([])
                }
                if servers[model].last != Int32(index) { servers[model].append(Int32(index)) }
            }
        }

        var seen: Set<NodeID> = []
        let none = ContiguousArray<UInt64>(repeating: 0, count: (slots.count + 63) / 64)
        self.serverWords = servers.map { indexes in
            indexes.reduce(into: none) { $0[Int($1) >> 6] |= 1 << UInt64($1 & 63) }
        }
        var engineWords = Array(repeating: none, count: EngineSet.RawValue.bitWidth)
        for (index, node) in slots.enumerated() {
            guard let node else { continue }
            engineWords[EngineSet(node.engine).rawValue.trailingZeroBitCount][index >> 6] |= 1 << UInt64(index & 63)
        }
        self.engineWords = engineWords
        self.slots = slots
        self.generations = generations
        self.generation = generation
        self.indexByNode = indexByNode
        self.modelIndexes = modelIndexes
        self.servers = servers
        serversByRegion = Dictionary(
            uniqueKeysWithValues: regions.map { region in
                (region, servers.map { $0.filter { slots[Int($0)]?.region == region } })
            })
        regionWords = Dictionary(
            uniqueKeysWithValues: regions.map { region in
                let inside = slots.indices.filter { slots[$0]?.region == region }
                return (region, inside.reduce(into: none) { $0[$1 >> 6] |= 1 << UInt64($1 & 63) })
            })
        self.order = nodes.compactMap { seen.insert($0.id).inserted ? indexByNode[$0.id] : nil }
    }

    /// The node behind an assignment; nil where it has left the fleet since, or has not come to this snapshot yet.
    package func node(_ assignment: Assignment) -> NodeID? {
        guard slots.indices.contains(assignment.nodeIndex),
            generations[assignment.nodeIndex] == assignment.generation
        else { return nil }
        return slots[assignment.nodeIndex]?.id
    }

    /// Whether a node holds the index.
    func isHeld(_ index: Int) -> Bool {
        if case .none = slots[index] { false } else { true }
    }

    package func index(of node: NodeID) -> Int? { indexByNode[node] }

    /// Indexes of the nodes, in the order in which the operator listed them.
    package var nodeIndexes: [Int] { order }

    /// Interned for this snapshot only; nil where no node serves the model.
    package func modelIndex(of model: ModelID) -> Int? { modelIndexes[model] }

    /// Indexes of the nodes that serve a model, ascending.
    package func servers(ofModelIndex index: Int) -> ContiguousArray<Int32> { servers[index] }

    /// The same within a region; nil is anywhere.
    package func servers(ofModelIndex index: Int, in region: String?) -> ContiguousArray<Int32> {
        guard let region else { return servers[index] }
        return serversByRegion[region]?[index] ?? []
    }

    /// The same as bits, 64 indexes a word, the first the lowest.
    func serverWords(ofModelIndex index: Int) -> ContiguousArray<UInt64> { serverWords[index] }

    /// The nodes of a region as bits; nil where there is no bound, or no such region.
    func words(of region: String?) -> ContiguousArray<UInt64>? { region.flatMap { regionWords[$0] } }

    /// Of `word`, the nodes that run one of `engines`.
    func running(_ engines: EngineSet, among nodes: UInt64, word: Int) -> UInt64 {
        var (found, rest) = (UInt64(0), engines.rawValue)
        while rest != 0 {
            found |= engineWords[rest.trailingZeroBitCount][word]
            rest &= rest - 1
        }
        return nodes & found
    }

    /// Every model that some node serves, sorted.
    package var models: [ModelID] { modelIndexes.keys.sorted() }

    /// What the node at `index` calls `model`; nil where it does not serve it.
    package func upstreamName(of model: ModelID, nodeIndex index: Int) -> String? {
        guard slots.indices.contains(index), let node = slots[index] else { return nil }
        return node.models.first { $0.model == model }?.upstreamName
    }
}
