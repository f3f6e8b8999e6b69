/// Histograms with the same bounds, one a label combination.
///
/// Combinations are numbers below `capacity`; counts exist only for those that were seen, so a family over models,
/// operations and errors costs four bytes for each combination that never happens. A value type: a copy is a snapshot.
package struct HistogramFamily: Sendable {
    let bounds: [Double]
    private var slotOfSeries: ContiguousArray<Int32>
    /// For each slot its buckets, not cumulated, the last one open above.
    private var counts: ContiguousArray<Int64> = []
    private var sums: ContiguousArray<Double> = []

    init(bounds: [Double], capacity: Int) {
        self.bounds = bounds
        slotOfSeries = ContiguousArray(repeating: -1, count: capacity)
    }

    var capacity: Int { slotOfSeries.count }

    mutating func grow(to capacity: Int) {
        guard capacity > slotOfSeries.count else { return }
        slotOfSeries.append(contentsOf: repeatElement(-1, count: capacity - slotOfSeries.count))
    }

    mutating func observe(_ value: Double, series: Int) {
        guard slotOfSeries.indices.contains(series), value.isFinite else { return }
        var bucket = 0
        while bucket < bounds.count, value > bounds[bucket] { bucket += 1 }
        let slot = slot(of: series)
        counts[slot * (bounds.count + 1) + bucket] += 1
        sums[slot] += value
    }

    /// Adds `other`'s counts of one series to a series of this family; the bounds must be the same.
    mutating func add(_ other: HistogramFamily, series: Int, as own: Int) {
        guard let values = other.values(of: series), bounds == other.bounds, slotOfSeries.indices.contains(own) else {
            return
        }
        let slot = slot(of: own)
        for (bucket, count) in values.buckets.enumerated() { counts[slot * (bounds.count + 1) + bucket] += count }
        sums[slot] += values.sum
    }

    /// - Returns: nil where nothing was observed.
    func values(of series: Int) -> (buckets: ContiguousArray<Int64>.SubSequence, sum: Double)? {
        guard slotOfSeries.indices.contains(series), slotOfSeries[series] >= 0 else { return nil }
        let slot = Int(slotOfSeries[series])
        let width = bounds.count + 1
        return (counts[slot * width..<(slot + 1) * width], sums[slot])
    }

    private mutating func slot(of series: Int) -> Int {
        let known = slotOfSeries[series]
        if known >= 0 { return Int(known) }
        let slot = sums.count
        slotOfSeries[series] = Int32(truncatingIfNeeded: slot)
        sums.append(0)
        counts.append(contentsOf: repeatElement(0, count: bounds.count + 1))
        return slot
    }
}
