import Domain

/// The waiting requests, each in a place that its ticket names. A place used again has another serial, so a ticket that
/// is over names nothing.
struct AdmissionPlaces: Sendable {
    private struct Place: Sendable {
        var serial: UInt32 = 0
        var request: AdmissionRequest?
        /// Where it stands in its org's heap.
        var position = 0
    }

    private var places: ContiguousArray<Place> = []
    private var free: ContiguousArray<Int> = []
    /// Ascends with each insertion: of equal deadlines the first to come goes first.
    private var order: ContiguousArray<UInt64> = []
    private var inserted: UInt64 = 0

    var count: Int { places.count - free.count }

    subscript(index: Int) -> AdmissionRequest? { places[index].request }

    mutating func insert(_ request: AdmissionRequest) -> (index: Int, value: UInt64) {
        let index: Int
        if let place = free.popLast() {
            index = place
        } else {
            index = places.count
            places.append(Place())
            order.append(0)
        }
        inserted += 1
        order[index] = inserted
        places[index].serial &+= 1
        places[index].request = request
        return (index, value(of: index))
    }

    mutating func remove(_ index: Int) -> AdmissionRequest? {
        guard let request = places[index].request else { return nil }
        places[index].request = nil
        free.append(index)
        return request
    }

    /// The ticket of a place.
    func value(of index: Int) -> UInt64 { UInt64(places[index].serial) << 32 | UInt64(index) }

    /// nil where the ticket is over.
    func index(of value: UInt64) -> Int? {
        let index = Int(truncatingIfNeeded: value & 0xFFFF_FFFF)
        guard places.indices.contains(index), places[index].request != nil, self.value(of: index) == value else {
            return nil
        }
        return index
    }

    func deadline(_ index: Int) -> MonotonicTime { places[index].request?.deadline ?? MonotonicTime(nanoseconds: .max) }
    func cost(_ index: Int) -> Double { places[index].request?.cost ?? 0 }
    func position(_ index: Int) -> Int { places[index].position }
    mutating func setPosition(_ index: Int, _ position: Int) { places[index].position = position }

    /// Whether `left` goes before `right` within an org.
    func isBefore(_ left: Int, _ right: Int) -> Bool {
        let (first, second) = (deadline(left), deadline(right))
        return first == second ? order[left] < order[right] : first < second
    }
}
