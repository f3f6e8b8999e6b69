import NIOCore
import Testing

@testable import Redis

@Suite struct RESPCommandEncoderTests {
    private func encoded(_ arguments: [RESPArgument]) -> String {
        var encoder = RESPCommandEncoder()
        encoder.encode(arguments)
        #expect(encoder.isComplete)
        return String(buffer: encoder.buffer)
    }

    @Test func writesArraysOfBulkStrings() {
        #expect(encoded(["GET", "key"]) == "*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n")
        #expect(encoded(["ECHO", ""]) == "*2\r\n$4\r\nECHO\r\n$0\r\n\r\n")
        #expect(
            encoded(["SET", .bytes([0x61, 0x0D, 0x0A]), .buffer(ByteBuffer(string: "xy"))])
                == "*3\r\n$3\r\nSET\r\n$3\r\na\r\n\r\n$2\r\nxy\r\n")
        #expect(encoded(["é"]) == "*1\r\n$2\r\né\r\n")
    }

    @Test(arguments: [0, 1, -1, 9, 10, 99, 100, -100, 1_234_567_890, .max, .min] as [Int64])
    func writesIntegersAsTheirDecimalDigits(value: Int64) {
        let digits = String(value)
        #expect(encoded([.integer(value)]) == "*1\r\n$\(digits.utf8.count)\r\n\(digits)\r\n")
    }

    @Test func lengthsOfEveryDigitCountAreRight() {
        for count in [9, 10, 99, 100, 999, 1_000, 99_999, 100_000] {
            let text = String(repeating: "x", count: count)
            #expect(encoded([.string(text)]) == "*1\r\n$\(count)\r\n\(text)\r\n")
        }
    }

    @Test func knowsWhetherAsManyArgumentsCameAsAnnounced() {
        var encoder = RESPCommandEncoder()
        encoder.begin(2)
        encoder.append("GET")
        #expect(!encoder.isComplete)
        encoder.append("key")
        #expect(encoder.isComplete)
        encoder.append(1)
        #expect(!encoder.isComplete)
    }
}

@Suite struct RESPValueTests {
    @Test func digitsInStringsAreIntegers() {
        #expect(RESPValue.bulkString(Array("-17".utf8)).int64 == -17)
        #expect(RESPValue.integer(5).int64 == 5)
        for text in ["", "+1", "1.5", " 1", "99999999999999999999", "0x1"] {
            #expect(RESPValue.bulkString(Array(text.utf8)).int64 == nil, "\(text)")
        }
        #expect(RESPValue.null.int64 == nil)
    }

    @Test func theCodeOfAnErrorIsItsFirstWordInCapitals() {
        let readOnly = RedisServerError("READONLY You can't write against a read only replica.")
        #expect(readOnly.code == "READONLY")
        #expect(readOnly.message == "You can't write against a read only replica.")
        let invented = RedisServerError("something a script said")
        #expect(invented.code == "ERR")
        #expect(invented.message == "something a script said")
        #expect(RedisServerError("BUSYKEY").message == "")
    }

    @Test func anErrorDoesNotRepeatTheArgumentsOfACommand() {
        let error = RedisServerError("ERR unknown command 'AUTH', with args beginning with: 'user' 'hunter2' ")
        #expect(error.text == "ERR unknown command 'AUTH'")
    }
}

@Suite struct SHA1Tests {
    /// RFC 3174's and FIPS 180's vectors, and the two sides of each padding boundary against sha1sum.
    @Test(arguments: [
        ("", "da39a3ee5e6b4b0d3255bfef95601890afd80709"),
        ("abc", "a9993e364706816aba3e25717850c26c9cd0d89d"),
        (
            "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
            "84983e441c3bd26ebaae4aa1f95129e5e54670f1"
        ),
        (String(repeating: "a", count: 55), "c1c8bbdc22796e28c0e15163d20899b65621d65a"),
        (String(repeating: "a", count: 64), "0098ba824b5c16427bd7a1122a5a442a25ec644d"),
        (String(repeating: "a", count: 1_000_000), "34aa973cd4c4daa4f61eeb2bdbad27316534016f"),
    ])
    func matchesKnownDigests(message: String, digest: String) {
        #expect(SHA1.hexDigest(message.utf8) == digest)
    }
}

@Suite struct RedisURLTests {
    @Test func readsHostPortDatabaseAndCredentials() throws {
        #expect(try RedisURL("redis://localhost") == RedisURL(address: .tcp(host: "localhost", port: 6379)))
        #expect(
            try RedisURL("redis://u:p%40%3A%2F@10.0.0.1:7000/3")
                == RedisURL(address: .tcp(host: "10.0.0.1", port: 7000), user: "u", password: "p@:/", database: 3))
        #expect(
            try RedisURL("redis://:secret@[::1]/")
                == RedisURL(address: .tcp(host: "::1", port: 6379), password: "secret"))
        #expect(
            try RedisURL("REDIS://u:a:b@h:1/0")
                == RedisURL(address: .tcp(host: "h", port: 1), user: "u", password: "a:b"))
        #expect(try RedisURL("unix:///run/redis.sock") == RedisURL(address: .unix(path: "/run/redis.sock")))
        #expect(
            try RedisURL("unix://u:p@/tmp/a%20b?db=2")
                == RedisURL(address: .unix(path: "/tmp/a b"), user: "u", password: "p", database: 2))
    }

    @Test(arguments: ["rediss", "redis+sentinel", "redis+cluster"])
    func saysWhichSchemesAreNotBuiltYet(scheme: String) {
        #expect(throws: RedisURLError.notBuiltYet(scheme: scheme)) { try RedisURL("\(scheme)://h:1/0") }
    }

    @Test(arguments: [
        "", "hunter2", "localhost:6379", "http://u:hunter2@h", "redis://", "redis://u:hunter2@", "redis://h:0",
        "redis://h:65536", "redis://h:x", "redis://h:", "redis://h/x", "redis://h/-1", "redis://h?db=1", "redis://[::1",
        "redis://[::1]x", "redis://u@h", "redis://u:%zzhunter2@h", "redis://u:%ff@h", "redis://h#f", "redis://a b",
        "unix://relative", "unix://", "unix:///", "unix:///a?x=1", "unix:///a?db=",
    ])
    func refusesWhatItDoesNotUnderstandWithoutRepeatingIt(text: String) {
        let error = #expect(throws: RedisURLError.self) { try RedisURL(text) }
        #expect(error?.description.contains("hunter2") == false)
    }

    @Test func refusesSocketPathsTooLongForTheKernel() {
        let path = "/" + String(repeating: "a", count: 107)
        #expect(throws: RedisURLError.self) { try RedisURL("unix://\(path)") }
        #expect(throws: Never.self) { try RedisURL("unix://\(path.dropLast())") }
    }

    @Test func neverPrintsThePassword() throws {
        let url = try RedisURL("redis://user:hunter2@h:1/4")
        #expect(url.description == "redis://user:***@h:1/4")
        var dumped = ""
        dump(RedisConfiguration(url: url), to: &dumped)
        for text in ["\(url)", String(reflecting: url), "\(RedisConfiguration(url: url))", dumped] {
            #expect(!text.contains("hunter2"))
        }
    }

    @Test(arguments: ["redis://h:1/4", "redis://[::1]:6379/0", "unix:///a/b?db=3", "unix:///a/b"])
    func descriptionIsAURLAgain(text: String) throws {
        #expect(try RedisURL(text).description == text)
    }
}

@Suite struct RedisErrorTests {
    @Test func saysWhetherACommandMayHaveRun() {
        #expect(!RedisError.notConnected.commandMayHaveRun)
        #expect(!RedisError.overloaded.commandMayHaveRun)
        #expect(RedisError.timedOut.commandMayHaveRun)
        #expect(RedisError.protocolViolation("").commandMayHaveRun)
        #expect(RedisError.connectionClosed(commandMayHaveRun: true).commandMayHaveRun)
        #expect(!RedisError.connectionClosed(commandMayHaveRun: false).commandMayHaveRun)
        #expect(!RedisError.server(code: "LOADING", message: "").commandMayHaveRun)
        #expect(RedisError.server(code: "ERR", message: "").commandMayHaveRun)
        #expect(RedisError.server(code: "READONLY", message: "").commandMayHaveRun)
    }
}
