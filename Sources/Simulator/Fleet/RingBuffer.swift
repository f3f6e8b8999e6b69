/// A queue with two ends that does not move its elements.
struct RingBuffer<Element> {
    private var places: ContiguousArray<Element?> = ContiguousArray(repeating: nil, count: 16)
    private var head = 0
    private(set) var count = 0

    var isEmpty: Bool { count == 0 }
    var first: Element? { count == 0 ? nil : places[head] }

    mutating func append(_ element: Element) {
        if count == places.count { grow() }
        places[(head + count) & (places.count - 1)] = element
        count += 1
    }

    mutating func prepend(_ element: Element) {
        if count == places.count { grow() }
        head = (head - 1) & (places.count - 1)
        places[head] = element
        count += 1
    }

    mutating func popFirst() -> Element? {
        guard count > 0 else { return nil }
        defer {
            places[head] = nil
            head = (head + 1) & (places.count - 1)
            count -= 1
        }
        return places[head]
    }

    /// Linear in the size: for rare events.
    mutating func removeAll(where isGone: (Element) -> Bool) {
        var kept = RingBuffer()
        while let element = popFirst() { if !isGone(element) { kept.append(element) } }
        self = kept
    }

    private mutating func grow() {
        var grown: ContiguousArray<Element?> = ContiguousArray(repeating: nil, count: places.count * 2)
        for offset in 0..<count { grown[offset] = places[(head + offset) & (places.count - 1)] }
        places = grown
        head = 0
    }
}

extension RingBuffer: Sendable where Element: Sendable {}
