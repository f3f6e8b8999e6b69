/// What a simulated node does wrong, and to which requests.
///
/// The text is `kind[:argument][@every N|@after N|@p 0.1]`, comma-separated; an empty text is a node without faults.
/// Parsing is pure and every error says what is allowed, since the texts come from the command line and `POST /fault`.
package struct FaultPlan: Hashable, Sendable, CustomStringConvertible {
    package static let none = FaultPlan(rules: [])
    /// The most rules in a plan.
    package static let rulesMax = 16
    /// The longest text, in bytes.
    package static let bytesMax = 1_024
    /// The largest number of tokens, requests or per cent in one.
    package static let numberMax = 1_000_000

    package enum Kind: Hashable, Sendable {
        /// The connection is reset before a byte of the answer, as when nothing listens.
        case refuse
        /// Every inference request is answered with this HTTP status, 400 to 599.
        case status(Int)
        /// 503 for this long since the plan was set.
        case loading(Duration)
        /// The first token comes this much later, whatever the node's speed.
        case firstToken(Duration)
        /// The connection is reset after this many tokens of the answer.
        case die(tokens: Int)
        /// Silence after this many tokens of the answer, the connection stays open.
        case stall(tokens: Int)
        /// The answer, or the first event with text, is cut off JSON.
        case badJSON
        /// The connection is closed after the answer without saying so.
        case close
        /// The reported usage is this many per cent off; above -100.
        case usage(percent: Int)
        case noUsage
        /// A stream ends cleanly but without `[DONE]`.
        case noDone
        /// This many tokens more than the limit that the request set.
        case overrun(tokens: Int)
    }

    /// Which of the inference requests since the plan was set.
    package enum Trigger: Hashable, Sendable {
        case always
        /// Requests N, 2N, 3N ...
        case every(Int)
        /// All after the first N.
        case after(Int)
        /// Each with this probability, 0 to 1, drawn from the node's seed.
        case probability(Double)
    }

    package struct Rule: Hashable, Sendable {
        package var kind: Kind
        package var trigger: Trigger

        package init(_ kind: Kind, _ trigger: Trigger = .always) {
            self.kind = kind
            self.trigger = trigger
        }
    }

    package var rules: [Rule]

    package init(rules: [Rule]) {
        self.rules = rules
    }

    /// Parses what ``description`` prints.
    ///
    /// - Throws: ``FaultPlanError``, whose message names the part at fault and what it may be.
    package init(parsing text: String) throws(FaultPlanError) {
        guard text.utf8.count <= Self.bytesMax else {
            throw FaultPlanError("a fault plan has at most \(Self.bytesMax) bytes")
        }
        let trimmed = Self.trimmed(text[...])
        guard !trimmed.isEmpty else {
            self = .none
            return
        }
        let parts = trimmed.split(separator: ",", omittingEmptySubsequences: false)
        guard parts.count <= Self.rulesMax else {
            throw FaultPlanError("a fault plan has at most \(Self.rulesMax) rules, this one \(parts.count)")
        }
        var rules: [Rule] = []
        for part in parts { rules.append(try Self.rule(Self.trimmed(part))) }
        self.init(rules: rules)
    }

    package var description: String { rules.map(\.description).joined(separator: ",") }

    private static func rule(_ text: Substring) throws(FaultPlanError) -> Rule {
        let halves = text.split(separator: "@", maxSplits: 1, omittingEmptySubsequences: false)
        let fault = trimmed(halves[0])
        let kind = try kind(fault)
        return Rule(kind, halves.count == 2 ? try trigger(trimmed(halves[1]), of: fault) : .always)
    }

    private static func kind(_ text: Substring) throws(FaultPlanError) -> Kind {
        let halves = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
        let name = String(halves[0])
        let argument = halves.count == 2 ? halves[1] : nil
        switch name {
        case "refuse", "bad_json", "close", "no_usage", "no_done":
            guard argument == nil else { throw FaultPlanError("'\(name)' takes no argument") }
        default: break
        }
        switch name {
        case "refuse": return .refuse
        case "bad_json": return .badJSON
        case "close": return .close
        case "no_usage": return .noUsage
        case "no_done": return .noDone
        case "status":
            guard let status = number(argument), (400...599).contains(status) else {
                throw FaultPlanError("'status' takes an HTTP status from 400 to 599, as in 'status:500'")
            }
            return .status(status)
        case "loading": return .loading(try duration(argument, of: name))
        case "first_token": return .firstToken(try duration(argument, of: name))
        case "die": return .die(tokens: try tokens(argument, of: name))
        case "stall": return .stall(tokens: try tokens(argument, of: name))
        case "overrun": return .overrun(tokens: try tokens(argument, of: name))
        case "usage":
            guard let argument, let percent = percentage(argument) else {
                throw FaultPlanError(
                    "'usage' takes a signed percentage from -99% to +\(numberMax)%, as in 'usage:+50%'")
            }
            return .usage(percent: percent)
        default:
            throw FaultPlanError(
                "'\(name)' is no fault; allowed are refuse, status:500, loading:5s, first_token:3s, die:20, stall:20, "
                    + "bad_json, close, usage:+50%, no_usage, no_done, overrun:10")
        }
    }

    private static func trigger(_ text: Substring, of fault: Substring) throws(FaultPlanError) -> Trigger {
        let words = text.split(separator: " ")
        if words.count == 2 {
            switch words[0] {
            case "every":
                if let number = number(words[1]), number > 0 { return .every(number) }
            case "after":
                if let number = number(words[1]) { return .after(number) }
            case "p":
                if let probability = decimal(words[1]), probability <= 1 { return .probability(probability) }
            default: break
            }
        }
        throw FaultPlanError(
            "'@\(text)' after '\(fault)' is no trigger; allowed are '@every N' (N from 1), '@after N' and '@p X' "
                + "(X from 0 to 1)")
    }

    private static func tokens(_ argument: Substring?, of name: String) throws(FaultPlanError) -> Int {
        guard let number = number(argument) else {
            throw FaultPlanError("'\(name)' takes a number of tokens up to \(numberMax), as in '\(name):20'")
        }
        return number
    }

    private static func duration(_ argument: Substring?, of name: String) throws(FaultPlanError) -> Duration {
        for (unit, seconds) in [("ms", 1e-3), ("s", 1.0), ("m", 60.0)] {
            guard let argument, argument.hasSuffix(unit) else { continue }
            guard let value = decimal(argument.dropLast(unit.count)), value * seconds <= 86_400 else { break }
            return .nanoseconds(Int64((value * seconds * 1e9).rounded()))
        }
        throw FaultPlanError("'\(name)' takes a duration up to 1440m, as in '\(name):3s', '\(name):250ms'")
    }

    /// Digits only: `Int.init` would take signs, too.
    private static func number(_ text: Substring?) -> Int? {
        guard let text, !text.isEmpty, text.utf8.count <= 7, text.utf8.allSatisfy(isDigit) else { return nil }
        return Int(text).flatMap { $0 <= numberMax ? $0 : nil }
    }

    /// Digits with at most one point: `Double.init` would take exponents, `nan` and hexadecimal, too.
    private static func decimal(_ text: Substring) -> Double? {
        guard text.utf8.count <= 20, text.utf8.first.map(isDigit) == true,
            text.utf8.allSatisfy({ isDigit($0) || $0 == UInt8(ascii: ".") })
        else { return nil }
        return Double(text)
    }

    private static func percentage(_ text: Substring) -> Int? {
        guard let sign = text.first, sign == "+" || sign == "-", text.last == "%",
            let magnitude = number(text.dropFirst().dropLast())
        else { return nil }
        let percent = sign == "-" ? -magnitude : magnitude
        return percent > -100 ? percent : nil
    }

    private static func isDigit(_ byte: UInt8) -> Bool { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) }

    private static func trimmed(_ text: Substring) -> Substring {
        var text = text
        while let first = text.first, first.isWhitespace { text.removeFirst() }
        while let last = text.last, last.isWhitespace { text.removeLast() }
        return text
    }
}

/// Why a text is no fault plan.
package struct FaultPlanError: Error, Hashable, CustomStringConvertible {
    /// For the person who wrote it: what is wrong and what is allowed.
    package let message: String

    init(_ message: String) {
        self.message = message
    }

    package var description: String { message }
}

extension FaultPlan.Rule: CustomStringConvertible {
    package var description: String { "\(kind)\(trigger)" }
}

extension FaultPlan.Kind: CustomStringConvertible {
    package var description: String {
        switch self {
        case .refuse: "refuse"
        case .status(let status): "status:\(status)"
        case .loading(let duration): "loading:\(duration.milliseconds)ms"
        case .firstToken(let duration): "first_token:\(duration.milliseconds)ms"
        case .die(let tokens): "die:\(tokens)"
        case .stall(let tokens): "stall:\(tokens)"
        case .badJSON: "bad_json"
        case .close: "close"
        case .usage(let percent): "usage:\(percent < 0 ? "" : "+")\(percent)%"
        case .noUsage: "no_usage"
        case .noDone: "no_done"
        case .overrun(let tokens): "overrun:\(tokens)"
        }
    }
}

extension FaultPlan.Trigger: CustomStringConvertible {
    package var description: String {
        switch self {
        case .always: ""
        case .every(let number): "@every \(number)"
        case .after(let number): "@after \(number)"
        case .probability(let probability): "@p \(probability)"
        }
    }
}
