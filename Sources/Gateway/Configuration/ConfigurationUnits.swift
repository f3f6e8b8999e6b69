import Domain
import Routing

/// Why a value is no good, in words that follow the value: `"10" has no unit: ...`.
package struct UnitFailure: Error, CustomStringConvertible {
    let message: String
    /// The value holds what no message may repeat.
    let isSecret: Bool

    package var description: String { message }

    init(_ message: String, isSecret: Bool = false) {
        self.message = message
        self.isSecret = isSecret
    }
}

/// How the texts of the configuration become values. Integers throughout: no floating point touches money or time.
package enum ConfigurationUnits {
    /// The path of a file that the configuration in `file` names: relative to that one's folder.
    static func path(_ name: String, beside file: String) -> String {
        guard !name.hasPrefix("/"), let slash = file.lastIndex(of: "/") else { return name }
        return file[...slash] + name
    }

    static func text(_ text: String) throws(UnitFailure) -> String {
        guard !text.isEmpty else { throw UnitFailure("is empty") }
        return text
    }

    static func integer(in range: ClosedRange<Int>) -> (String) throws(UnitFailure) -> Int {
        { text throws(UnitFailure) in
            guard let value = plainInteger(text) else { throw UnitFailure("is not a whole number") }
            return try bounded(value, in: range, describe: { "\($0)" })
        }
    }

    /// A number of bytes: `512`, `32KiB`, `8MiB`, `1GiB`.
    static func bytes(in range: ClosedRange<Int>) -> (String) throws(UnitFailure) -> Int {
        { text throws(UnitFailure) in
            let factors = ["": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30]
            let (number, unit) = split(text)
            guard let number = plainInteger(number) else {
                throw UnitFailure("is not a size: write 32KiB, 8MiB or bytes")
            }
            guard let factor = factors[unit] else {
                throw UnitFailure("has an unknown unit: write KiB, MiB, GiB, or a plain number of bytes")
            }
            let (value, overflow) = number.multipliedReportingOverflow(by: factor)
            guard !overflow else { throw UnitFailure("is too large") }
            return try bounded(value, in: range, describe: { "\($0) bytes" })
        }
    }

    /// A duration with its unit: `250ms`, `10s`, `10m`, `2h`.
    static func duration(in range: ClosedRange<Duration>) -> (String) throws(UnitFailure) -> Duration {
        { text throws(UnitFailure) in
            let (number, unit) = split(text)
            guard let number = plainInteger(number), number <= 1 << 40 else {
                throw UnitFailure("is not a duration: write 250ms, 10s, 5m or 2h")
            }
            let duration: Duration
            switch unit {
            case "ms": duration = .milliseconds(number)
            case "s": duration = .seconds(number)
            case "m": duration = .seconds(number * 60)
            case "h": duration = .seconds(number * 3_600)
            case "": throw UnitFailure("has no unit: write 250ms, 10s, 5m or 2h")
            default: throw UnitFailure("has an unknown unit: write ms, s, m or h")
            }
            return try bounded(duration, in: range, describe: { "\($0.milliseconds)ms" })
        }
    }

    /// A share of one, in thousandths: `10%`, `2.5%`.
    static func permille(_ text: String) throws(UnitFailure) -> Int {
        guard text.hasSuffix("%"), let permille = DecimalText.scaled(text.dropLast(), decimals: 1) else {
            throw UnitFailure("is not a share: write 10% or 2.5%")
        }
        return try bounded(Int(permille), in: 0...1_000, describe: { "\($0 / 10)%" })
    }

    /// US dollars per million tokens to nano-dollars per million tokens, exactly.
    static func rate(_ text: String) throws(UnitFailure) -> Int64 {
        guard let rate = DecimalText.scaled(text, decimals: 9) else {
            throw UnitFailure("is not a price: write US dollars per million tokens as 0.05, at most nine decimals")
        }
        return try bounded(rate, in: 0...Price.rateMax, describe: { "\(NanoUSD(unchecked: $0))" })
    }

    static func boolean(_ text: String) throws(UnitFailure) -> Bool {
        switch text {
        case "true": return true
        case "false": return false
        default: throw UnitFailure("is neither true nor false")
        }
    }

    static func identifier<Kind>(_ kind: Identifier<Kind>.Type) -> (String) throws(UnitFailure) -> Identifier<Kind> {
        { text throws(UnitFailure) in
            guard let identifier = Identifier<Kind>(text) else {
                throw UnitFailure("is not a name: 1 to 64 of a-z A-Z 0-9 . _ - / :, beginning with a letter or digit")
            }
            return identifier
        }
    }

    /// One of a closed set of words.
    static func word<Word: RawRepresentable & CaseIterable>(
        _ type: Word.Type
    ) -> (String) throws(UnitFailure) -> Word where Word.RawValue == String {
        { text throws(UnitFailure) in
            guard let word = Word(rawValue: text) else {
                let known = Word.allCases.map(\.rawValue).joined(separator: ", ")
                throw UnitFailure("is unknown: write one of \(known)")
            }
            return word
        }
    }

    /// `host:port`, `[::1]:port`.
    static func listenAddress(_ text: String) throws(UnitFailure) -> ListenAddress {
        guard let (host, port) = hostAndPort(text[...]), let port else {
            throw UnitFailure("is not an address: write host:port, as 0.0.0.0:8080 or [::1]:8080")
        }
        return ListenAddress(host: host, port: port)
    }

    /// `http://host[:port][/base]`, or `https://`.
    package static func nodeURL(_ text: String) throws(UnitFailure) -> NodeURL {
        guard !text.contains("@") else {
            throw UnitFailure("must not carry a user or password: use api_key", isSecret: true)
        }
        let isSecure = text.hasPrefix("https://")
        guard isSecure || text.hasPrefix("http://") else {
            throw UnitFailure("must begin with http:// or https://")
        }
        let rest = text.dropFirst(isSecure ? "https://".count : "http://".count)
        guard rest.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F && $0 != UInt8(ascii: "?") && $0 != UInt8(ascii: "#") })
        else { throw UnitFailure("must be host, port and path only, in printable ASCII without ? and #") }
        let authority = rest.prefix { $0 != "/" }
        guard let (host, port) = hostAndPort(authority), port != 0 else {
            throw UnitFailure("has no usable host and port: write http://10.0.0.5:8000")
        }
        var path = rest.dropFirst(authority.count)
        while path.hasSuffix("/") { path = path.dropLast() }
        guard !path.hasSuffix("/v1") else {
            throw UnitFailure("ends in /v1, which the gateway appends itself: remove it")
        }
        return NodeURL(host: host, port: port ?? (isSecure ? 443 : 80), basePath: String(path), isSecure: isSecure)
    }

    /// What a node calls a model: it is put into a JSON string, and a path or repository name is all that engines use.
    static func upstreamModelName(_ text: String) throws(UnitFailure) -> String {
        guard !text.isEmpty, text.utf8.count <= 256 else { throw UnitFailure("is not 1 to 256 bytes") }
        guard text.unicodeScalars.allSatisfy({ $0.value >= 0x20 && $0.value != 0x7F }) else {
            throw UnitFailure("has control characters")
        }
        return text
    }

    static func accessLog(_ text: String) throws(UnitFailure) -> AccessLogDestination {
        switch text {
        case "": throw UnitFailure("is empty: write stdout, off, or a file's path")
        case "stdout": return .standardOutput
        case "off", "false": return .off
        default: return .file(path: text)
        }
    }

    // MARK: Inside

    private static func bounded<Value: Comparable>(
        _ value: Value, in range: ClosedRange<Value>, describe: (Value) -> String
    ) throws(UnitFailure) -> Value {
        guard range.contains(value) else {
            throw UnitFailure(
                "is out of bounds: \(describe(range.lowerBound)) to \(describe(range.upperBound)) are allowed")
        }
        return value
    }

    /// Digits only: `Int.init` would take a plus sign, YAML's `0x10`, `1_000` and `1e3` mean different things to
    /// different readers.
    private static func plainInteger(_ text: some StringProtocol) -> Int? {
        guard !text.isEmpty, text.utf8.allSatisfy({ UInt8(ascii: "0") <= $0 && $0 <= UInt8(ascii: "9") }) else {
            return nil
        }
        return Int(text)
    }

    private static func split(_ text: String) -> (number: String, unit: String) {
        let number = text.prefix { $0.isASCII && $0.isNumber }
        return (String(number), String(text.dropFirst(number.count).drop { $0 == " " }))
    }

    /// The host without brackets, the port where there is one.
    private static func hostAndPort(_ text: Substring) -> (host: String, port: Int?)? {
        var host = text
        var portText: Substring?
        if text.hasPrefix("[") {
            guard let end = text.firstIndex(of: "]") else { return nil }
            host = text[text.index(after: text.startIndex)..<end]
            let after = text[text.index(after: end)...]
            guard after.isEmpty || after.hasPrefix(":"), host.contains(":") else { return nil }
            guard host.allSatisfy({ $0.isHexDigit || $0 == ":" || $0 == "." || $0 == "%" }) else { return nil }
            portText = after.isEmpty ? nil : after.dropFirst()
        } else {
            if let colon = text.firstIndex(of: ":") {
                host = text[..<colon]
                portText = text[text.index(after: colon)...]
            }
            let isName = host.utf8.allSatisfy {
                switch $0 {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                    UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "-"), UInt8(ascii: "_"):
                    true
                default: false
                }
            }
            guard isName else { return nil }
        }
        guard !host.isEmpty, host.utf8.count <= 253 else { return nil }
        guard let portText else { return (String(host), nil) }
        guard let port = plainInteger(portText), port <= 65_535 else { return nil }
        return (String(host), port)
    }
}
