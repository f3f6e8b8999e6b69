import Foundation
import Testing

/// The arrows between targets, as ARCHITECTURE.md draws them. Anything that is not one of ours is free where
/// ``forbidden`` does not name it.
private let allowed: [String: Set<String>] = [
    "Domain": [],
    "JSON": ["Domain"],
    "OpenAIProtocol": ["Domain", "JSON"],
    "Tokenization": ["Domain", "JSON", "CPrefetch"],
    "Routing": ["Domain", "CPrefetch"],
    "Billing": ["Domain"],
    "Redis": ["Domain", "CHiredis"],
    "Gateway": ["Domain", "Routing", "Billing", "OpenAIProtocol", "JSON", "Tokenization", "Redis", "COpenSSL"],
    "ControlPlane": ["Domain", "Gateway", "Billing", "CCurl"],
    "Simulator": ["Domain", "Routing", "OpenAIProtocol", "JSON"],
    "tollgate": ["Domain", "JSON", "ControlPlane", "Gateway", "Routing", "Simulator", "Tokenization", "CCurl"],
]

private let ours = Set(allowed.keys).union(["CHiredis", "CCurl", "COpenSSL", "CPrefetch"])
private let pure: Set<String> = ["Domain", "JSON", "OpenAIProtocol", "Tokenization", "Routing", "Billing"]

private struct Import {
    let target: String
    let file: String
    let module: String
}

private let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent()

private func swiftFiles(below folder: String) throws -> [(target: String, name: String, text: String)] {
    let sources = root.appending(path: folder)
    var files: [(target: String, name: String, text: String)] = []
    for target in try FileManager.default.contentsOfDirectory(atPath: sources.path) {
        let walker = FileManager.default.enumerator(atPath: sources.appending(path: target).path)
        while let name = walker?.nextObject() as? String {
            guard name.hasSuffix(".swift") else { continue }
            let text = try String(contentsOf: sources.appending(path: target).appending(path: name), encoding: .utf8)
            files.append((target, name, text))
        }
    }
    return files
}

private func imports() throws -> [Import] {
    try swiftFiles(below: "Sources").flatMap { file in
        file.text.split(separator: "\n").compactMap { line -> Import? in
            var words = line.split(separator: " ")[...]
            while let first = words.first, first.hasPrefix("@") || first == "package" || first == "internal" {
                words = words.dropFirst()
            }
            guard words.first == "import", words.count > 1 else { return nil }
            // `import struct Module.Name` names the module in the last word.
            let module = words.last!.split(separator: ".")[0]
            return Import(target: file.target, file: file.name, module: String(module))
        }
    }
}

@Suite struct ImportTests {
    @Test func everyArrowBetweenTargetsIsAllowed() throws {
        let found = try imports()
        #expect(found.count > 100, "the reader of imports found almost nothing")
        for one in found where ours.contains(one.module) && one.module != one.target {
            let arrows = try #require(allowed[one.target], "\(one.target) is not in the diagram")
            #expect(arrows.contains(one.module), "\(one.target)/\(one.file) imports \(one.module)")
        }
    }

    @Test func pureTargetsImportNeitherNIONorFoundation() throws {
        let free: Set<String> = ["Glibc", "Darwin", "Synchronization"]
        for one in try imports() where pure.contains(one.target) && !ours.contains(one.module) {
            #expect(free.contains(one.module), "\(one.target)/\(one.file) imports \(one.module)")
        }
    }

    @Test func redisKnowsNothingOfOurDomainBeyondTime() throws {
        for one in try imports() where one.target == "Redis" {
            #expect(!["Billing", "Gateway", "Routing", "OpenAIProtocol"].contains(one.module))
        }
    }

    @Test func uncheckedConcurrencyCarriesItsReason() throws {
        let marks = ["@unchecked Sendable", "nonisolated(unsafe)"]
        for file in try swiftFiles(below: "Sources") {
            let lines = file.text.split(separator: "\n", omittingEmptySubsequences: false)
            for (index, line) in lines.enumerated() where marks.contains(where: line.contains) {
                let around = lines[max(0, index - 8)...index]
                #expect(
                    around.contains { $0.contains("SAFETY:") },
                    "\(file.target)/\(file.name):\(index + 1) has no SAFETY: note")
            }
        }
    }
}
