import Domain
import Foundation
import FuzzTargets
import Support
import Testing

/// The fuzz targets without libFuzzer: every file of the corpus, and the corpus with a few bytes changed.
@Suite struct FuzzTests {
    static let corpus = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .appending(path: "Fuzz/Corpus")
    /// Changed inputs of a target over all files: what a second or two allows; libFuzzer has more time.
    static let changedInputs = 300
    /// Longer files are only replayed as they are.
    static let changedBytesMax = 1_024

    static func files(of target: FuzzTarget) throws -> [(name: String, bytes: [UInt8])] {
        let folder = corpus.appending(path: target.rawValue)
        let kept = try FileManager.default.contentsOfDirectory(atPath: folder.path).sorted().map { name in
            (name, Array(try Data(contentsOf: folder.appending(path: name))))
        }
        return target == .front ? kept + SmugglingCase.all.map { ($0.name, $0.bytes(key: "k")) } : kept
    }

    @Test(arguments: FuzzTarget.allCases) func corpusHasNoFinding(target: FuzzTarget) throws {
        let files = try Self.files(of: target)
        #expect(files.count >= 10, "the corpus of \(target) is gone")
        for file in files {
            let finding = file.bytes.withUnsafeBytes { target.finding(in: $0) }
            #expect(finding == nil, "\(target.rawValue)/\(file.name)")
        }
    }

    @Test(arguments: FuzzTarget.allCases) func changedCorpusHasNoFinding(target: FuzzTarget) throws {
        let seed = UInt64.random(in: .min ... .max)
        var random = SplitMix64(seed: seed)
        let files = try Self.files(of: target)
        for file in files where !file.bytes.isEmpty && file.bytes.count <= Self.changedBytesMax {
            for _ in 0..<max(1, Self.changedInputs / files.count) {
                var bytes = file.bytes
                for _ in 0...random.int(0...3) {
                    let at = random.int(0...max(0, bytes.count - 1))
                    switch random.int(0...3) {
                    case 0: if !bytes.isEmpty { bytes[at] = UInt8(random.int(0...255)) }
                    case 1:
                        bytes.insert(Array("\r\n \t:;{}[],\"\\0".utf8)[random.int(0...13)], at: min(at, bytes.count))
                    case 2: if bytes.count > 1 { bytes.remove(at: at) }
                    default:
                        let other = files[random.int(0...(files.count - 1))].bytes.prefix(Self.changedBytesMax)
                        bytes = Array(
                            bytes[..<min(at, bytes.count)] + other.suffix(random.int(0...max(0, other.count))))
                    }
                }
                let finding = bytes.withUnsafeBytes { target.finding(in: $0) }
                #expect(
                    finding == nil,
                    "seed \(seed), \(target.rawValue)/\(file.name): \(Data(bytes).base64EncodedString())")
                if finding != nil { return }
            }
        }
    }
}
