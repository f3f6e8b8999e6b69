import CFuzzer
import Foundation
import FuzzTargets

/// What the process fuzzes; set once, before libFuzzer takes over its only thread.
nonisolated(unsafe) private var chosen = FuzzTarget.json  // SAFETY: see above.

/// `Fuzz json|stream|response|front [libFuzzer's arguments]`, or `Fuzz seeds FOLDER`, which writes the smuggling cases as
/// files. One binary for all, since most of the cost of building it is the same for each.
@main
struct Fuzz {
    static func main() throws {
        if CommandLine.arguments.count == 3, CommandLine.arguments[1] == "seeds" {
            for one in SmugglingCase.all {
                try Data(one.bytes(key: "k")).write(
                    to: URL(filePath: CommandLine.arguments[2]).appending(path: one.name))
            }
            return
        }
        guard CommandLine.arguments.count > 1, let target = FuzzTarget(rawValue: CommandLine.arguments[1]) else {
            let names = FuzzTarget.allCases.map(\.rawValue).joined(separator: "|")
            fputs("usage: Fuzz \(names) [libFuzzer's arguments]\n", stderr)
            exit(64)
        }
        chosen = target
        var texts = CommandLine.arguments.map { strdup($0) }
        texts.remove(at: 1)
        var count = Int32(texts.count)
        texts.append(nil)
        let status = texts.withUnsafeMutableBufferPointer { buffer -> Int32 in
            var arguments = buffer.baseAddress
            return LLVMFuzzerRunDriver(&count, &arguments) { bytes, size in
                // SAFETY: libFuzzer lends the bytes for the duration of this call.
                if let finding = chosen.finding(in: UnsafeRawBufferPointer(start: bytes, count: size)) {
                    fputs("finding: \(finding)\n", stderr)
                    abort()
                }
                return 0
            }
        }
        exit(status)
    }
}
