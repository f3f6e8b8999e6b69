/// Where a Redis server is and how to log in: `redis://[[user]:password@]host[:port][/db]` or
/// `unix://[[user]:password@]/path[?db=N]`.
///
/// User, password and path may be percent-encoded. The password is never printed: ``description`` shows `***`.
package struct RedisURL: Hashable, Sendable, CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
    package enum Address: Hashable, Sendable {
        case tcp(host: String, port: Int)
        case unix(path: String)
    }

    package static let portDefault = 6379
    /// What `sun_path` holds on Linux, its NUL not counted.
    package static let pathBytesMax = 107

    package let address: Address
    /// An ACL user (Redis 6); nil means the default user.
    package let user: String?
    package let password: String?
    package let database: Int

    package init(address: Address, user: String? = nil, password: String? = nil, database: Int = 0) {
        self.address = address
        self.user = user
        self.password = password
        self.database = database
    }

    /// - Throws: What is wrong, in words that repeat neither user nor password.
    package init(_ text: String) throws(RedisURLError) {
        guard let (scheme, rest) = Self.split(text, at: "://") else { throw .malformed("it has no scheme://") }
        var remainder = rest
        guard !remainder.utf8.contains(UInt8(ascii: "#")) else {
            throw .malformed("it has a '#': write it as %23 where it belongs to a password")
        }
        switch scheme.lowercased() {
        case "redis":
            (user, password) = try Self.takeCredentials(from: &remainder, endingBefore: "/")
            let (authority, path) = Self.split(remainder, at: "/") ?? (remainder, "")
            guard !remainder.utf8.contains(UInt8(ascii: "?")) else {
                throw .malformed("redis:// takes no ?options: the database number is the path, /0")
            }
            address = try Self.tcpAddress(authority)
            database = path.isEmpty ? 0 : try Self.database(path)
        case "unix":
            (user, password) = try Self.takeCredentials(from: &remainder, endingBefore: "/")
            let (path, query) = Self.split(remainder, at: "?") ?? (remainder, "")
            address = try Self.unixAddress(path)
            if query.isEmpty {
                database = 0
            } else {
                guard query.hasPrefix("db=") else { throw .malformed("unix:// knows one option, ?db=N") }
                database = try Self.database(query.dropFirst(3))
            }
        case "rediss", "redis+sentinel", "redis+cluster":
            throw .notBuiltYet(scheme: scheme.lowercased())
        default:
            throw .unknownScheme
        }
    }

    package var description: String {
        var credentials = ""
        if user != nil || password != nil {
            credentials = "\(user ?? "")\(password == nil ? "" : ":***")@"
        }
        switch address {
        case .tcp(let host, let port):
            let shown = host.contains(":") ? "[\(host)]" : host
            return "redis://\(credentials)\(shown):\(port)/\(database)"
        case .unix(let path):
            return "unix://\(credentials)\(path)\(database == 0 ? "" : "?db=\(database)")"
        }
    }

    package var debugDescription: String { description }

    /// `dump` and failed test expectations print mirrors; they get what ``description`` shows.
    package var customMirror: Mirror { Mirror(self, children: ["url": description]) }

    private static func split(_ text: some StringProtocol, at separator: String) -> (Substring, Substring)? {
        var start = text.startIndex
        while start < text.endIndex {
            if text[start...].hasPrefix(separator) {
                let after = text.index(start, offsetBy: separator.count)
                return (Substring(text[..<start]), Substring(text[after...]))
            }
            start = text.index(after: start)
        }
        return nil
    }

    /// Cuts `user:password@` off the front. Without a colon it is a user alone.
    private static func takeCredentials(
        from text: inout Substring, endingBefore terminator: Character
    ) throws(RedisURLError) -> (user: String?, password: String?) {
        let authority = text.prefix { $0 != terminator }
        guard let at = authority.lastIndex(of: "@") else { return (nil, nil) }
        let credentials = authority[..<at]
        text = text[text.index(after: at)...]
        let (user, password) = split(credentials, at: ":") ?? (credentials, "")
        let decodedUser = try percentDecoded(user)
        let decodedPassword = try percentDecoded(password)
        guard decodedUser.isEmpty || !decodedPassword.isEmpty else {
            throw .malformed("it names a user without a password: redis://user:password@host")
        }
        return (decodedUser.isEmpty ? nil : decodedUser, decodedPassword.isEmpty ? nil : decodedPassword)
    }

    private static func tcpAddress(_ authority: Substring) throws(RedisURLError) -> Address {
        var host = authority
        var port: Substring?
        if authority.hasPrefix("[") {
            guard let (inside, after) = split(authority.dropFirst(), at: "]") else {
                throw .malformed("an IPv6 address needs its closing bracket: redis://[::1]:6379")
            }
            host = inside
            guard after.isEmpty || after.hasPrefix(":") else { throw .malformed("after ']' only :port may follow") }
            port = after.isEmpty ? nil : after.dropFirst()
        } else if let (before, after) = split(authority, at: ":") {
            host = before
            port = after
        }
        guard !host.isEmpty, host.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) else {
            throw .malformed("it names no host")
        }
        guard let port else { return .tcp(host: String(host), port: portDefault) }
        guard let number = decimal(port, max: 65_535), number > 0 else {
            throw .malformed("the port is not a number from 1 to 65535")
        }
        return .tcp(host: String(host), port: number)
    }

    private static func unixAddress(_ path: Substring) throws(RedisURLError) -> Address {
        let decoded = try percentDecoded(path)
        guard decoded.hasPrefix("/"), decoded.utf8.count > 1 else {
            throw .malformed("a Unix socket needs an absolute path: unix:///run/redis.sock")
        }
        guard decoded.utf8.count <= pathBytesMax, !decoded.utf8.contains(0) else {
            throw .malformed("the path of a Unix socket has at most \(pathBytesMax) bytes and no NUL")
        }
        return .unix(path: decoded)
    }

    private static func database(_ text: Substring) throws(RedisURLError) -> Int {
        guard let number = decimal(text, max: Int(Int32.max)) else {
            throw .malformed("the database is not a number")
        }
        return number
    }

    private static func decimal(_ text: Substring, max: Int) -> Int? {
        guard text.utf8.count <= 10, text.utf8.allSatisfy({ $0 >= 0x30 && $0 <= 0x39 }), let number = Int(text),
            number <= max
        else { return nil }
        return number
    }

    private static func percentDecoded(_ text: Substring) throws(RedisURLError) -> String {
        var bytes: [UInt8] = []
        var iterator = text.utf8.makeIterator()
        while let byte = iterator.next() {
            guard byte == UInt8(ascii: "%") else {
                bytes.append(byte)
                continue
            }
            guard let high = iterator.next().flatMap(hexValue), let low = iterator.next().flatMap(hexValue) else {
                throw .malformed("a '%' is not followed by two hexadecimal digits: write a plain one as %25")
            }
            bytes.append(high << 4 | low)
        }
        guard let decoded = String(validating: bytes, as: UTF8.self) else {
            throw .malformed("percent-encoded bytes are not UTF-8")
        }
        return decoded
    }

    private static func hexValue(_ byte: UInt8) -> UInt8? {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): byte - UInt8(ascii: "0")
        case UInt8(ascii: "a")...UInt8(ascii: "f"): byte - UInt8(ascii: "a") + 10
        case UInt8(ascii: "A")...UInt8(ascii: "F"): byte - UInt8(ascii: "A") + 10
        default: nil
        }
    }
}

/// Why a text is no usable ``RedisURL``. Its words never repeat the text, which may hold a password.
package enum RedisURLError: Error, Hashable, Sendable, CustomStringConvertible {
    case malformed(String)
    case unknownScheme
    /// A scheme that is planned and not built.
    case notBuiltYet(scheme: String)

    package var description: String {
        switch self {
        case .malformed(let what):
            "the Redis URL is malformed: \(what)"
        case .unknownScheme:
            "the Redis URL's scheme is unknown: use redis://host:port/db or unix:///path"
        case .notBuiltYet(let scheme):
            "the Redis URL's scheme \(scheme):// is not built yet: use redis:// or unix://"
        }
    }
}
