import Simulator
import Testing

@Suite struct TraceTests {
    private static let mooncake = """
        {"timestamp": 0, "input_length": 1100, "output_length": 5, "hash_ids": [0, 1, 2]}
        {"timestamp": 2500, "input_length": 600, "output_length": 0, "hash_ids": [0, 7], "extra": {"a": [1, "x"]}}

        """
    private static let azure = """
        TIMESTAMP,ContextTokens,GeneratedTokens\r
        2023-11-16 23:59:59.5000000,1024,10\r
        2023-11-17 00:00:01.0000000,374,44\r
        """

    private func parse(_ text: String) throws(TraceReader.Failure) -> Trace {
        try TraceReader.parse(Array(text.utf8), file: "folder/trace")
    }

    @Test func mooncakeLinesGiveBlocksForWholePartsOnly() throws {
        let trace = try parse(Self.mooncake)
        #expect(trace.name == "trace")
        #expect(trace.requests.map(\.blocks.count) == [2, 1])
        #expect(trace.requests[0].blocks[0] == trace.requests[1].blocks[0])
        #expect(trace.requests.map(\.seconds) == [0, 2.5])
        #expect(trace.requests.map(\.outputTokens) == [5, 1])
    }

    @Test func azureRowsSpanMidnightAndShareNoBlock() throws {
        let trace = try parse(Self.azure)
        #expect(trace.requests.map(\.seconds) == [0, 1.5])
        #expect(trace.requests.map(\.promptTokens) == [1_024, 374])
        #expect(Set(trace.requests.flatMap(\.blocks)).count == 2)
    }

    @Test(arguments: [
        ("", "folder/trace: the trace is empty"),
        ("{\"timestamp\": 1}\n", "folder/trace:1: input_length is missing"),
        (
            "{\"timestamp\": 1, \"input_length\": -4, \"output_length\": 1}\n",
            "folder/trace:1: input_length is out of range"
        ),
        (
            "{\"timestamp\": 1, \"input_length\": 1e300, \"output_length\": 1}\n",
            "folder/trace:1: input_length is out of range"
        ),
        ("{\"hash_ids\": [1, -2]}\n", "folder/trace:1: not a trace line: a whole number from 0 is expected at byte 18"),
        ("\n{\"timestamp\": nan}\n", "folder/trace:2: not a trace line: a number is expected at byte 15"),
        ("{\"a\": \"open}\n", "folder/trace:1: not a trace line: the line ends within a string at byte 13"),
        ("a,b,c\n1,2,3\n", "folder/trace:1: neither a JSON object nor a header with TIMESTAMP"),
        (
            "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:00:00,5\n",
            "folder/trace:2: 2 fields where the header has 3"
        ),
        (
            "TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,5,6\n",
            "folder/trace:2: TIMESTAMP is not of the form 2023-11-16 18:17:03.97"
        ),
        (
            "TIMESTAMP,ContextTokens,GeneratedTokens\n9000000000000000000-01-01 00:00:00,5,6\n",
            "folder/trace:2: TIMESTAMP is not of the form 2023-11-16 18:17:03.97"
        ),
        (
            "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:00:00,5,6\n",
            "folder/trace: a trace needs at least two requests"
        ),
    ])
    func errorsNameFileAndLine(text: String, message: String) {
        #expect { try parse(text) } throws: { "\($0)" == message }
    }

    @Test func arrivalsKeepTheMeanRateAndTheOrderOfFineTimes() throws {
        let trace = Trace.sessions(20, turns: 5, seed: 1)
        let arrivals = trace.arrivals(rate: 4, seed: 1)
        #expect(arrivals.map(\.index) == Array(0..<100))
        #expect(abs((arrivals.last?.seconds ?? 0) - 25) < 1e-6)
        #expect(trace.arrivals(rate: 4, seed: 2) != arrivals)
        #expect(trace.arrivals(rate: 4, seed: 2) == trace.arrivals(rate: 4, seed: 2))
    }

    @Test func coarseTimesAreSpreadWithinTheirQuantum() {
        let requests = (0..<300).map {
            Trace.Request(seconds: Double($0 / 10) * 3, promptTokens: 10, outputTokens: 1, blocks: [])
        }
        let trace = Trace(name: "coarse", requests: requests)
        #expect(trace.quantumSeconds == 3)
        let arrivals = trace.arrivals(rate: 300 / 87, seed: 1)
        #expect(Set(arrivals.map(\.seconds)).count == 300)
        #expect(
            arrivals.allSatisfy { arrival in
                let recorded = requests[arrival.index].seconds
                return (recorded..<recorded + 3.0001).contains(arrival.seconds)
            })
    }

    @Test func promptsOverTheModelsContextAreLeftOutAndCounted() {
        let long = Trace.Request(seconds: 0, promptTokens: 200_000, outputTokens: 1, blocks: [])
        let short = Trace.Request(seconds: 5, promptTokens: 20, outputTokens: 1, blocks: [])
        let trace = Trace(name: "long", requests: [long, short, short])
        #expect(trace.skippedCount == 1)
        #expect(trace.requests.map(\.seconds) == [0, 0])
    }
}
