/// A mean that follows: all samples weigh alike at first, later the newest weighs a twentieth.
struct RunningMean: Hashable, Sendable {
    private(set) var mean: Double?
    private var count = 0.0
    private static let weightMin = 0.05

    mutating func add(_ sample: Double) {
        count += 1
        let old = mean ?? sample
        mean = old + (sample - old) * max(Self.weightMin, 1 / count)
    }
}
