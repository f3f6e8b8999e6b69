/// A Lua script and the hash that names it on every server.
package struct RedisScript: Hashable, Sendable {
    package let source: String
    /// 40 lower-case hexadecimal digits, what `SCRIPT LOAD` would answer.
    package let sha1: String

    package init(source: String) {
        self.source = source
        sha1 = SHA1.hexDigest(source.utf8)
    }
}
