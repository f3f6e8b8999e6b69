import Redis

/// The Lua scripts, embedded in the binary from `Scripts/`.
enum StoreScripts {
    static let sync = script(PackageResources.sync_lua)
    static let ratesRead = script(PackageResources.rates_read_lua)
    static let orgCredit = script(PackageResources.org_credit_lua)
    static let orgUpdate = script(PackageResources.org_update_lua)
    static let orgRead = script(PackageResources.org_read_lua)
    static let keyCreate = script(PackageResources.key_create_lua)
    static let keyUpdate = script(PackageResources.key_update_lua)
    static let priceSet = script(PackageResources.price_set_lua)

    private static func script(_ source: [UInt8]) -> RedisScript {
        RedisScript(source: String(decoding: source, as: UTF8.self))
    }
}
