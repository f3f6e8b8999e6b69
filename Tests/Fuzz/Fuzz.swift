import CFuzzer
import Foundation
import FuzzTargets

/// What the process fuzzes; set once, before libFuzzer takes over its only thread.
nonisolated(unsafe) private var chosen = FuzzTarget.json  // SAFETY: see above.

/// `Fuzz json|stream|response|front|vocabulary|text [libFuzzer's arguments]`, or `Fuzz seeds FOLDER`, which writes the smuggling cases as
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
            tell("usage: Fuzz \(names) [libFuzzer's arguments]")
            exit(64)
        }
        chosen = target
        var texts = CommandLine.arguments.map { strdup($0) }
        texts.remove(at: 1)
        var count = Int32(texts.count)
        texts.append(nil)
        let status = texts.withUnsafeMutableBufferPointer { buffer -> Int32 in
            var arguments = buffer.baseAddress
            return LLVMFuzzerRunDriver(&count, &arguments, fuzzOneInput)
        }
        exit(status)
    }

    fileprivate static func tell(_ text: String) { FileHandle.standardError.write(Data("\(text)\n".utf8)) }
}

/// Under the name that libFuzzer's own `main` refers to, which is linked in but not run.
@_cdecl("LLVMFuzzerTestOneInput")
func fuzzOneInput(_ bytes: UnsafePointer<UInt8>?, _ size: Int) -> CInt {
    // SAFETY: libFuzzer lends the bytes for the duration of this call.
    if let finding = chosen.finding(in: UnsafeRawBufferPointer(start: bytes, count: size)) {
        Fuzz.tell("finding: \(finding)")
        abort()
    }
    return 0
}
