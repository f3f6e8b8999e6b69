import Gateway
import Testing

private let valid = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

@Test func traceparentIsReadAndWrittenBack() {
    let context = TraceContext(traceparent: valid)
    #expect(context?.traceHigh == 0x4bf9_2f35_77b3_4da6)
    #expect(context?.traceLow == 0xa3ce_929d_0e0e_4736)
    #expect(context?.spanID == 0x00f0_67aa_0ba9_02b7)
    #expect(context?.isSampled == true)
    #expect(context?.description == valid)
}

@Test func childKeepsTheTraceAndHasASpanOfItsOwn() throws {
    var generator = SystemRandomNumberGenerator()
    let parent = try #require(TraceContext(traceparent: valid))
    let child = parent.child(using: &generator)
    #expect(child.spanID != parent.spanID && child.spanID != 0)
    #expect(child.description.hasPrefix("00-4bf92f3577b34da6a3ce929d0e0e4736-"))
    #expect(child.description.hasSuffix("-01"))
    #expect(TraceContext(traceparent: child.description) == child)
}

@Test func newTraceIsValidAndNotSampled() {
    var generator = SystemRandomNumberGenerator()
    let context = TraceContext(using: &generator)
    #expect(TraceContext(traceparent: context.description) == context)
    #expect(!context.isSampled)
}

@Test func unknownFlagsAreNotPassedOn() {
    let text = valid.dropLast(2) + "ff"
    #expect(TraceContext(traceparent: text)?.description == valid.dropLast(2) + "03")
}

@Test(
    arguments: [
        (valid, true),
        ("cc" + valid.dropFirst(2), true),
        ("cc" + valid.dropFirst(2) + "-what the future brings", true),
        ("", false),
        (String(valid.dropLast()), false),
        (valid + "0", false),
        (valid + "-", false),
        (valid + "-00", false),
        ("cc" + valid.dropFirst(2) + "0", false),
        ("cc" + valid.dropFirst(2) + "-" + String(repeating: "0", count: 300), false),
        ("ff" + valid.dropFirst(2), false),
        ("0g" + valid.dropFirst(2), false),
        (valid.uppercased(), false),
        (" " + valid, false),
        ("00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", false),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7-01", false),
        ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", false),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", false),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0x", false),
        ("00-4bf92f3577b34da6a3ce929d0e0e473\u{FF16}-00f067aa0ba902b7-01", false),
    ] as [(String, Bool)])
private func traceparentFollowsTheGrammar(_ text: String, _ isValid: Bool) {
    #expect((TraceContext(traceparent: text) != nil) == isValid)
}

@Test func tracestateIsPassedWhereItIsBoundedAndPrintable() {
    #expect(TraceContext.isPassable(tracestate: "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"))
    #expect(!TraceContext.isPassable(tracestate: ""))
    #expect(!TraceContext.isPassable(tracestate: "a=b\r\nx: y"))
    #expect(TraceContext.isPassable(tracestate: String(repeating: "a", count: 512)))
    #expect(!TraceContext.isPassable(tracestate: String(repeating: "a", count: 513)))
}
