import Support
import Testing

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

@Suite struct RedisServerProcessTests {
    private func exists(_ path: String) -> Bool { access(path, F_OK) == 0 }

    @Test func stoppingLeavesNeitherProcessNorDirectory() throws {
        let redis = try RedisServerProcess.start()
        let process = try #require(redis.processID)
        #expect(exists("/proc/\(process)") && exists(redis.directory))
        redis.stop()
        #expect(!exists("/proc/\(process)") && !exists(redis.directory))
    }

    @Test func forgettingItLeavesNothingEither() throws {
        var redis: RedisServerProcess? = try RedisServerProcess.start()
        let process = try #require(redis?.processID)
        let directory = try #require(redis?.directory)
        redis = nil
        #expect(!exists("/proc/\(process)") && !exists(directory))
    }

    @Test func killingKeepsTheDirectoryForTheRestart() throws {
        let redis = try RedisServerProcess.start()
        let process = try #require(redis.processID)
        redis.kill9()
        #expect(redis.processID == nil)
        #expect(!exists("/proc/\(process)") && exists(redis.directory))
        try redis.restart()
        #expect(redis.processID != process)
        redis.kill9()
        redis.stop()
        #expect(!exists(redis.directory))
    }

    @Test func aServerThatDoesNotStartSaysWhy() throws {
        let error = #expect(throws: RedisServerProcess.StartError.self) {
            try RedisServerProcess.start(extra: ["--maxmemory-policy", "nonsense"])
        }
        #expect(error?.description.contains("did not get ready") == true)
    }
}
