import Foundation

/// Prometheus's text format, read strictly: a line that is none of its forms is an error.
struct Metrics {
    struct Sample: Hashable {
        let name: String
        let labels: [String: String]
        let value: Double
    }

    struct Malformed: Error {
        let line: String
    }

    private(set) var samples: [Sample] = []
    /// Family to type.
    private(set) var types: [String: String] = [:]

    init(_ text: String) throws {
        guard text.hasSuffix("\n") else { throw Malformed(line: "the last line has no end") }
        for line in text.split(separator: "\n", omittingEmptySubsequences: true).map(String.init) {
            if line.hasPrefix("# HELP ") { continue }
            if let type = line.wholeMatch(of: /# TYPE ([a-zA-Z_:][a-zA-Z0-9_:]*) (counter|gauge|histogram)/) {
                guard types.updateValue(String(type.2), forKey: String(type.1)) == nil else {
                    throw Malformed(line: line)
                }
                continue
            }
            guard let parts = line.wholeMatch(of: /([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)/),
                let value = Double(parts.3 == "+Inf" ? "inf" : String(parts.3))
            else { throw Malformed(line: line) }
            var labels: [String: String] = [:]
            for label in (parts.2 ?? "").matches(of: /([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"/) {
                labels[String(label.1)] = String(label.2)
            }
            let name = String(parts.1)
            let family =
                ["_bucket", "_sum", "_count"].first {
                    name.hasSuffix($0) && types[String(name.dropLast($0.count))] != nil
                }
                .map { String(name.dropLast($0.count)) } ?? name
            guard types[family] != nil else { throw Malformed(line: "no type before: \(line)") }
            samples.append(Sample(name: name, labels: labels, value: value))
        }
    }

    /// The sum over all samples of that name whose labels include these; nil where there is none.
    func value(_ name: String, _ labels: [String: String] = [:]) -> Double? {
        let found = samples.filter { sample in
            sample.name == name && labels.allSatisfy { sample.labels[$0.key] == $0.value }
        }
        return found.isEmpty ? nil : found.reduce(0) { $0 + $1.value }
    }
}
