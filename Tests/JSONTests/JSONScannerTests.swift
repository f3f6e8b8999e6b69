import JSON
import Testing

struct JSONScannerTests {
    private func failure(_ bytes: [UInt8]) -> JSONError? {
        bytes.withUnsafeBytes { text in
            do throws(JSONError) {
                try validateJSON(text)
                return nil
            } catch {
                return error
            }
        }
    }

    @Test(arguments: [
        ("", JSONError.Reason.unexpectedEnd, 0),
        ("  ", .unexpectedEnd, 2),
        ("{\"a\":1", .unexpectedEnd, 6),
        ("{\"a\":}", .expectedValue, 5),
        ("{\"a\" 1}", .expectedColon, 5),
        ("{a:1}", .expectedKey, 1),
        ("{\"a\":1,}", .expectedKey, 7),
        ("{\"a\":1 \"b\":2}", .expectedCommaOrBrace, 7),
        ("[1,]", .expectedValue, 3),
        ("[1 2]", .expectedCommaOrBracket, 3),
        ("[1}", .expectedCommaOrBracket, 2),
        ("01", .trailingBytes, 1),
        ("1.", .badNumber, 2),
        ("-", .badNumber, 1),
        ("1e", .badNumber, 2),
        ("+1", .expectedValue, 0),
        ("NaN", .expectedValue, 0),
        ("nul", .badLiteral, 0),
        ("truE", .badLiteral, 0),
        ("\"a", .unexpectedEnd, 2),
        ("\"a\\x\"", .badEscape, 2),
        ("\"\\u12G4\"", .badEscape, 5),
        ("\"tab\there\"", .controlByte, 4),
        ("'a'", .expectedValue, 0),
        ("{} {}", .trailingBytes, 3),
        ("// c\n1", .expectedValue, 0),
    ])
    func refusesWithOffset(text: String, reason: JSONError.Reason, offset: Int) {
        #expect(failure(Array(text.utf8)) == JSONError(reason, at: offset))
    }

    @Test(arguments: ["\\uD800", "\\uDC00", "\\uD800x", "\\uD800\\n", "\\uD800\\uD800", "\\uDC00\\uD800"])
    func refusesLoneSurrogates(content: String) {
        #expect(failure(Array("\"\(content)\"".utf8))?.reason == .loneSurrogate)
    }

    @Test(
        arguments: [
            [0x80], [0xC0, 0x80], [0xC1, 0xBF], [0xE0, 0x9F, 0xBF], [0xED, 0xA0, 0x80], [0xF0, 0x8F, 0xBF, 0xBF],
            [0xF4, 0x90, 0x80, 0x80], [0xF5, 0x80, 0x80, 0x80], [0xE2, 0x82], [0xC3], [0xFF], [0xE2, 0x28, 0xA1],
        ] as [[UInt8]])
    func refusesInvalidUTF8WhereverItStands(sequence: [UInt8]) {
        for padding in 0..<20 {
            let text =
                Array("\"".utf8) + Array(repeating: UInt8(ascii: "a"), count: padding) + sequence + Array("\"".utf8)
            #expect(failure(text) == JSONError(.invalidUTF8, at: padding + 1))
        }
    }

    @Test func findsEachSpecialByteAtEachPlaceOfAWord() {
        for special in UInt8.min...UInt8.max {
            for place in 0..<24 {
                var content = Array(repeating: UInt8(ascii: "a"), count: 24)
                content[place] = special
                let text = Array("\"".utf8) + content + Array("\"".utf8)
                let isPlain = special >= 0x20 && special < 0x80 && special != 0x22 && special != 0x5C
                #expect((failure(text) == nil) == isPlain, "byte \(special) at \(place)")
            }
        }
    }

    @Test func boundsDepthForSkippedAndForWalkedValues() throws {
        func nested(_ depth: Int) -> [UInt8] {
            Array((String(repeating: "[", count: depth) + String(repeating: "]", count: depth)).utf8)
        }
        let limit = JSONLimits.depthMax
        #expect(failure(nested(limit)) == nil)
        #expect(failure(nested(limit + 1)) == JSONError(.tooDeep, at: limit))
        #expect(failure(nested(1_000_000))?.reason == .tooDeep)
        #expect(throws: JSONError(.tooDeep, at: limit)) { try JSONValue(parsing: nested(limit + 1)) }
        #expect(try JSONValue(parsing: nested(limit)).array?.count == 1)
        let mixed = String(repeating: "{\"a\":[", count: 33) + String(repeating: "]}", count: 33)
        #expect(failure(Array(mixed.utf8))?.reason == .tooDeep)
    }

    @Test func boundsNumbers() {
        let digits = String(repeating: "7", count: JSONLimits.numberBytesMax)
        #expect(failure(Array(digits.utf8)) == nil)
        #expect(failure(Array((digits + "7").utf8))?.reason == .badNumber)
    }

    @Test func walkingGivesKeysAndSpans() throws {
        let text = #" { "a" : [ 1 , "x" ] , "b\n" : { } } "#
        try Array(text.utf8).withUnsafeBytes { bytes in
            var scanner = JSONScanner(bytes)
            #expect(try scanner.peek() == UInt8(ascii: "{"))
            try scanner.enter()
            var isFirst = true
            let first = try #require(try scanner.nextMember(&isFirst))
            #expect(JSONDecoding.text(first, in: bytes) == "a" && !first.isEscaped)
            #expect(String(decoding: bytes[try scanner.value()], as: UTF8.self) == #"[ 1 , "x" ]"#)
            let second = try #require(try scanner.nextMember(&isFirst))
            #expect(JSONDecoding.text(second, in: bytes) == "b\n" && second.isEscaped)
            #expect(String(decoding: bytes[try scanner.value()], as: UTF8.self) == "{ }")
            #expect(try scanner.nextMember(&isFirst) == nil)
            #expect(scanner.depth == 0)
            try scanner.finish()
        }
    }

    @Test(
        arguments: [
            ("0", 0), ("-1", -1), ("4096", 4096), ("9223372036854775807", Int64.max),
            ("-9223372036854775808", Int64.min),
            ("9223372036854775808", nil), ("1.0", nil), ("1e2", nil), ("-", nil), ("99999999999999999999", nil),
        ] as [(String, Int64?)])
    func readsOnlyPlainIntegers(text: String, expected: Int64?) {
        let value = Array(text.utf8).withUnsafeBytes { JSONDecoding.integer(0..<$0.count, in: $0) }
        #expect(value == expected)
    }
}

struct JSONWriterTests {
    @Test func placesCommas() {
        var writer = JSONWriter()
        writer.object {
            $0.member("a", 1)
            $0.key("b")
            $0.array {
                $0.null()
                $0.array { _ in }
                $0.bool(true)
                $0.object { $0.member("c", Optional<String>.none) }
            }
            $0.member("d", 0.5)
            $0.member("e", Double.infinity)
        }
        #expect(writer.text == #"{"a":1,"b":[null,[],true,{"c":null}],"d":0.5,"e":null}"#)
    }

    @Test func escapesWhatMustBe() throws {
        let text = "quote \" backslash \\ newline \n tab \t bell \u{7} nul \u{0} é 🙂 \u{2028} /"
        let bytes = JSONWriter.encoded(text)
        #expect(try JSONValue(parsing: bytes).string == text)
        #expect(String(decoding: bytes, as: UTF8.self).contains(#"\u0007"#))
    }

    @Test(arguments: [0, 7, -7, 10, Int64.max, Int64.min])
    func writesIntegers(value: Int64) {
        var bytes: [UInt8] = []
        JSONWriter.append(integer: value, to: &bytes)
        #expect(String(decoding: bytes, as: UTF8.self) == "\(value)")
    }
}

struct JSONValueTests {
    @Test func refusesDuplicateKeysHoweverWritten() {
        #expect(throws: JSONError.self) { try JSONValue(parsing: #"{"a":1,"\u0061":2}"#) }
    }

    @Test func refusesLongTextsAndEndlessNumbers() {
        #expect(throws: JSONError(.tooLong, at: 3)) { try JSONValue(parsing: "[1,2]", bytesMax: 3) }
        #expect(throws: JSONError.self) { try JSONValue(parsing: "1e999") }
    }

    @Test func readsByKeyAndIndex() throws {
        let value = try JSONValue(parsing: #"{"a":[1,{"b":"c"},2.5,null,true]}"#)
        #expect(value["a"]?[1]?["b"]?.string == "c")
        #expect(value["a"]?[0]?.integer == 1)
        #expect(value["a"]?[2]?.double == 2.5)
        #expect(value["a"]?[3]?.isNull == true)
        #expect(value["a"]?[4]?.bool == true)
        #expect(value["a"]?[5] == nil && value["b"] == nil)
        #expect(value == ["a": [1, ["b": "c"], 2.5, nil, true]])
    }
}
