import Domain

/// The waiting requests of one class: orgs in turn by deficit round robin, each org's by earliest deadline.
struct ClassQueue: Sendable {
    private struct OrgQueue: Sendable {
        /// A binary heap of places; the earliest deadline first.
        var heap: ContiguousArray<Int> = []
        var cost = 0.0
        /// What it may still use of the turns it had.
        var deficit = 0.0
        var latest = MonotonicTime(nanoseconds: .min)
    }

    private var orgs: [OrgID: OrgQueue] = [:]
    /// Those that wait, in the order of their turns.
    private var ring: ContiguousArray<OrgID> = []
    private var turn = 0
    /// Whether the org whose turn it is has got its quantum.
    private var isGranted = false
    private(set) var cost = 0.0
    private var count = 0
    /// What a turn gives.
    private var quantum: Double { min(AdmissionQueue.quantum, max(1, cost / Double(max(1, count)))) }

    // MARK: What waits

    /// The orgs that wait, in the order of their turns.
    var waiting: ContiguousArray<OrgID> { ring }

    func hasWork(of org: OrgID) -> Bool { orgs[org] != nil }
    func hasOrg(where condition: (OrgID) -> Bool) -> Bool { ring.contains(where: condition) }
    func cost(of org: OrgID) -> Double { orgs[org]?.cost ?? 0 }

    /// What of the org's goes before a request that would come now.
    func costBefore(_ request: AdmissionRequest, _ places: AdmissionPlaces) -> Double {
        guard let org = orgs[request.org] else { return 0 }
        if request.deadline >= org.latest { return org.cost }
        return org.heap.reduce(0) { places.deadline($1) <= request.deadline ? $0 + places.cost($1) : $0 }
    }

    /// What the other orgs are served while one is served so much.
    func costOfOthers(than org: OrgID, upTo cost: Double) -> Double {
        orgs.reduce(0) { $1.key == org ? $0 : $0 + min($1.value.cost, cost) }
    }

    /// Who holds the most; of equals the first by name, so that equal events give equal decisions.
    func largest() -> (org: OrgID, cost: Double)? {
        var largest: (org: OrgID, cost: Double)?
        for (org, queue) in orgs {
            if let held = largest, (held.cost, org) > (queue.cost, held.org) { continue }
            largest = (org, queue.cost)
        }
        return largest
    }

    /// The one of the org that would go last.
    func last(of org: OrgID, _ places: AdmissionPlaces) -> Int? {
        orgs[org]?.heap.max { places.isBefore($0, $1) }
    }

    /// One whose deadline has passed.
    func earliestPast(_ now: MonotonicTime, _ places: AdmissionPlaces) -> Int? {
        for org in ring {
            if let first = orgs[org]?.heap.first, places.deadline(first) <= now { return first }
        }
        return nil
    }

    // MARK: Turns

    /// Takes out whoever's turn it is among those that may go; the caller frees the place.
    mutating func next(_ places: inout AdmissionPlaces, mayGo: (OrgID) -> Bool) -> Int? {
        let quantum = quantum
        while true {
            // One round; a request of many quanta needs several, which are granted at one go.
            var rounds = Double.infinity
            for _ in 0..<ring.count {
                let org = ring[turn]
                guard mayGo(org), let first = orgs[org]?.heap.first else {
                    passTurn()
                    continue
                }
                if !isGranted {
                    orgs[org]?.deficit += quantum
                    isGranted = true
                }
                let (price, deficit) = (places.cost(first), orgs[org]?.deficit ?? 0)
                if price <= deficit {
                    orgs[org]?.deficit = deficit - price
                    remove(first, &places)
                    return first
                }
                rounds = min(rounds, ((price - deficit) / quantum).rounded(.up))
                passTurn()
            }
            guard rounds.isFinite else { return nil }
            guard rounds > 1 else { continue }
            for org in ring where mayGo(org) { orgs[org]?.deficit += (rounds - 1) * quantum }
        }
    }

    private mutating func passTurn() {
        turn = turn + 1 < ring.count ? turn + 1 : 0
        isGranted = false
    }

    // MARK: Heaps

    mutating func insert(_ index: Int, _ places: inout AdmissionPlaces) {
        guard let request = places[index] else { return }
        if orgs[request.org] == nil {
            orgs[request.org] = OrgQueue()
            // Behind all who wait: just before whose turn it is.
            ring.insert(request.org, at: turn)
            turn = turn + 1 < ring.count ? turn + 1 : 0
        }
        cost += request.cost
        count += 1
        change(request.org) { queue in
            queue.cost += request.cost
            queue.latest = max(queue.latest, request.deadline)
            queue.heap.append(index)
            Self.rise(queue.heap.count - 1, &queue.heap, &places)
        }
    }

    mutating func remove(_ index: Int, _ places: inout AdmissionPlaces) {
        guard let request = places[index] else { return }
        let org = request.org
        cost -= request.cost
        count -= 1
        var isOver = false
        change(org) { queue in
            let position = places.position(index)
            queue.cost -= request.cost
            queue.heap.swapAt(position, queue.heap.count - 1)
            queue.heap.removeLast()
            if position < queue.heap.count {
                places.setPosition(queue.heap[position], position)
                Self.rise(position, &queue.heap, &places)
                Self.sink(position, &queue.heap, &places)
            }
            isOver = queue.heap.isEmpty
        }
        if isOver { leave(org) }
    }

    /// An org that has nothing left keeps nothing of its turns.
    private mutating func leave(_ org: OrgID) {
        orgs[org] = nil
        if orgs.isEmpty { cost = 0 }
        guard let position = ring.firstIndex(of: org) else { return }
        ring.remove(at: position)
        if position < turn { turn -= 1 } else if position == turn { isGranted = false }
        if turn >= ring.count { turn = 0 }
    }

    /// In place: what is taken out of a dictionary and put back would be copied.
    private mutating func change(_ org: OrgID, _ body: (inout OrgQueue) -> Void) {
        body(&orgs[org, default: OrgQueue()])
    }

    private static func rise(_ start: Int, _ heap: inout ContiguousArray<Int>, _ places: inout AdmissionPlaces) {
        var position = start
        while position > 0, places.isBefore(heap[position], heap[(position - 1) / 2]) {
            heap.swapAt(position, (position - 1) / 2)
            places.setPosition(heap[position], position)
            position = (position - 1) / 2
        }
        places.setPosition(heap[position], position)
    }

    private static func sink(_ start: Int, _ heap: inout ContiguousArray<Int>, _ places: inout AdmissionPlaces) {
        var position = start
        while true {
            var least = position
            for child in [2 * position + 1, 2 * position + 2] where child < heap.count {
                if places.isBefore(heap[child], heap[least]) { least = child }
            }
            guard least != position else { break }
            heap.swapAt(position, least)
            places.setPosition(heap[position], position)
            position = least
        }
        places.setPosition(heap[position], position)
    }
}
