import Domain
import Foundation
import Gateway
import Synchronization
import Testing

private func record(
    status: Int = 200, client: String = "192.0.2.1", model: String? = "llama-3.1-8b", duration: Int64 = 1_234_567_890
) -> AccessLogRecord {
    AccessLogRecord(
        time: WallTime(milliseconds: 1_795_369_800_123), requestID: RequestID(high: 0x0123, low: 0xabcdef),
        org: OrgID(unchecked: "acme"), key: KeyID(unchecked: "k3yk3yk3yk3y"), method: "POST",
        path: "/v1/chat/completions", model: model.map { ModelID(unchecked: $0) },
        node: NodeID(unchecked: "austin-01"), site: SiteID(unchecked: "austin"), status: status, streamed: true,
        usage: TokenUsage(promptTokens: 12, cachedTokens: 3, completionTokens: 45),
        cost: NanoUSD(unchecked: 987_654_321), estimated: false, queueNanoseconds: 1_999,
        firstTokenNanoseconds: 50_000_000, durationNanoseconds: duration, bytesIn: 1_024, bytesOut: 700, attempts: 1,
        clientAddress: client, trace: TraceContext(traceHigh: 1, traceLow: 2, spanID: 3, flags: 1))
}

/// A file in a directory of its own that ends with the test.
private final class LogFile {
    let directory: String
    let path: String

    init() throws {
        directory = NSTemporaryDirectory() + "tollgate-accesslog-" + UUID().uuidString
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        path = directory + "/access.log"
    }

    deinit { try? FileManager.default.removeItem(atPath: directory) }

    func lines(_ path: String? = nil) throws -> [String] {
        let text = try String(contentsOfFile: path ?? self.path, encoding: .utf8)
        #expect(text.isEmpty || text.hasSuffix("\n"))
        return text.split(separator: "\n").map(String.init)
    }
}

private func object(_ line: String) throws -> [String: Any] {
    try #require(try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any])
}

@Test func accessLogLineHasEveryField() throws {
    let file = try LogFile()
    let log = try AccessLog(sink: .file(file.path))
    log.append(record())
    #expect(log.close())
    let lines = try file.lines()
    #expect(lines.count == 1)
    let expected = """
        {"time":"2026-11-22T17:50:00.123Z","request_id":"req_00000000000001230000000000abcdef","org":"acme",\
        "key_id":"k3yk3yk3yk3y","method":"POST","path":"/v1/chat/completions","model":"llama-3.1-8b",\
        "node":"austin-01","site":"austin","status":200,"failure":null,"streamed":true,"prompt_tokens":12,\
        "cached_tokens":3,"completion_tokens":45,"cost_nanousd":987654321,"estimated":false,\
        "queue_seconds":0.000001,"ttft_seconds":0.050000,"duration_seconds":1.234567,"bytes_in":1024,\
        "bytes_out":700,"attempts":1,"client":"192.0.2.1","trace_id":"00000000000000010000000000000002"}
        """
    #expect(lines.first == expected)
    let isValid = JSONSerialization.isValidJSONObject(try object(lines.first ?? ""))
    #expect(isValid)
}

@Test func accessLogWritesNullForWhatDoesNotApply() throws {
    let file = try LogFile()
    let log = try AccessLog(sink: .file(file.path))
    log.append(
        AccessLogRecord(
            time: WallTime(milliseconds: 0), requestID: RequestID(high: .max, low: 0), method: "GET", path: "other",
            status: 404, failure: .routeNotFound, durationNanoseconds: -5, bytesIn: 0, bytesOut: 90, attempts: 0,
            clientAddress: "::1"))
    #expect(log.close())
    let line = try object(try file.lines().first ?? "")
    #expect(line.count == 25)
    for name in [
        "org", "key_id", "model", "node", "site", "prompt_tokens", "cached_tokens", "completion_tokens",
        "cost_nanousd", "queue_seconds", "ttft_seconds", "trace_id",
    ] {
        #expect(line[name] is NSNull, "\(name)")
    }
    #expect(line["failure"] as? String == "route_not_found")
    #expect(line["time"] as? String == "1970-01-01T00:00:00.000Z")
    #expect(line["duration_seconds"] as? Double == 0)
}

@Test func accessLogEscapesEverythingAndCutsLongText() throws {
    let file = try LogFile()
    let log = try AccessLog(sink: .file(file.path))
    let hostile = (0..<0x20).map { String(UnicodeScalar($0)) }.joined() + "\"}\n{\"\\\u{7F}é\u{2028}𝄞"
    log.append(record(client: hostile))
    log.append(record(client: String(repeating: "\u{1}", count: 5_000), model: String(repeating: "\"", count: 400)))
    log.append(record(client: String(repeating: "x", count: 127) + "é"))
    #expect(log.close())
    #expect(log.droppedCount == 0)
    let lines = try file.lines()
    #expect(lines.count == 3)
    #expect(try object(lines[0])["client"] as? String == hostile)
    #expect(try object(lines[1])["client"] as? String == String(repeating: "\u{1}", count: 128))
    #expect(try object(lines[2])["client"] as? String == String(repeating: "x", count: 127))
}

@Test(arguments: [0, 951_782_400_000, 951_868_799_999, 1_709_164_800_000, 4_107_542_399_999, 253_402_300_799_999])
private func accessLogTimeIsTheCivilTime(_ milliseconds: Int64) throws {
    let file = try LogFile()
    let log = try AccessLog(sink: .file(file.path))
    var entry = record()
    entry.time = WallTime(milliseconds: milliseconds)
    log.append(entry)
    #expect(log.close())
    #expect(try object(try file.lines().first ?? "")["time"] as? String == WallTime(milliseconds: milliseconds).rfc3339)
}

@Test func accessLogDropsAndCountsWhatDoesNotFit() throws {
    let pipe = try makePipe()
    _ = fcntl(pipe[1], F_SETFL, O_NONBLOCK)
    // A pipe that is full: the writer can get rid of nothing.
    let filler = [UInt8](repeating: 0x20, count: 65_536)
    while write(pipe[1], filler, filler.count) > 0 {}
    while write(pipe[1], filler, 1) > 0 {}
    let log = try AccessLog(sink: .descriptor(pipe[1]), bufferBytesMax: 10_000)
    let total = 1_000
    for _ in 0..<total { log.append(record()) }
    // At most two buffers can be held, the one that waits and the one at the writer; a line has over 400 bytes.
    let dropped = log.droppedCount
    #expect(dropped >= total - 2 * 10_000 / 400)
    #expect(!log.flush(timeout: .milliseconds(50)))
    // The reader comes back: what was held arrives, whole.
    let held = Mutex<[UInt8]>([])
    let done = DispatchSemaphore(value: 0)
    let reader = Thread {
        var chunk = [UInt8](repeating: 0, count: 65_536)
        while true {
            let count = read(pipe[0], &chunk, chunk.count)
            if count <= 0 { break }
            held.withLock { $0.append(contentsOf: chunk[..<count]) }
        }
        close(pipe[0])
        done.signal()
    }
    reader.start()
    #expect(log.close(timeout: .seconds(20)))
    close(pipe[1])
    done.wait()
    let text = held.withLock { String(decoding: $0, as: UTF8.self) }
    let lines = text.drop { $0 == " " }.split(separator: "\n")
    #expect(lines.count == total - log.droppedCount)
    #expect(lines.allSatisfy { $0.hasPrefix("{\"time\"") && $0.hasSuffix("}") })
}

private func makePipe() throws -> [Int32] {
    var ends: [Int32] = [0, 0]
    try #require(pipe(&ends) == 0)
    return ends
}

@Test func accessLogCountsLinesOfABrokenPipeAsDropped() throws {
    let pipe = try makePipe()
    close(pipe[0])
    let log = try AccessLog(sink: .descriptor(pipe[1]))
    for _ in 0..<5 { log.append(record()) }
    #expect(log.flush(timeout: .seconds(20)))
    #expect(log.droppedCount == 5)
    log.append(record())
    #expect(log.close(timeout: .seconds(20)))
    #expect(log.droppedCount == 6)
    log.append(record())
    #expect(log.droppedCount == 7)
    close(pipe[1])
}

@Test func accessLogWritesToANewFileAfterReopen() throws {
    let file = try LogFile()
    let log = try AccessLog(sink: .file(file.path))
    log.append(record(status: 200))
    #expect(log.flush())
    try FileManager.default.moveItem(atPath: file.path, toPath: file.path + ".1")
    log.append(record(status: 201))
    #expect(log.flush())
    log.reopen()
    log.append(record(status: 202))
    #expect(log.close())
    #expect(try file.lines(file.path + ".1").map { try object($0)["status"] as? Int } == [200, 201])
    #expect(try file.lines().map { try object($0)["status"] as? Int } == [202])
}

@Test func accessLogKeepsEveryLineOfManyThreadsWhole() throws {
    let file = try LogFile()
    let log = try AccessLog(sink: .file(file.path), bufferBytesMax: 64 * 1024 * 1024)
    let (threads, each) = (4, 2_000)
    DispatchQueue.concurrentPerform(iterations: threads) { thread in
        for index in 0..<each { log.append(record(status: 200, duration: Int64(thread * each + index) * 1_000)) }
    }
    #expect(log.close(timeout: .seconds(30)))
    #expect(log.droppedCount == 0)
    let seen = try file.lines().map { line in
        Int(((try object(line)["duration_seconds"] as? Double ?? -1) * 1e6).rounded())
    }
    #expect(seen.count == threads * each)
    #expect(Set(seen) == Set(0..<threads * each))
}

@Test func accessLogThatCannotBeOpenedSaysWhy() {
    #expect(throws: AccessLogFailure.open(path: "/nonexistent/access.log", errno: ENOENT)) {
        try AccessLog(sink: .file("/nonexistent/access.log"))
    }
}
