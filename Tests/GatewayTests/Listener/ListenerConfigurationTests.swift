import Testing

@testable import Gateway

@Suite struct ListenerConfigurationTests {
    private func load(_ yaml: String) throws(ConfigurationFailure) -> ListenerConfiguration {
        try ConfigurationLoader.parse(
            yaml: "admin: { token: 0123456789abcdef0123456789abcdef }\n" + yaml + "\n", fileName: "/etc/tg/gate.yaml",
            environment: [:]
        ).listener
    }

    private func problem(_ yaml: String) -> String? {
        do throws(ConfigurationFailure) {
            _ = try load(yaml)
            return nil
        } catch {
            return error.problems.count == 1 ? error.problems[0].description : error.description
        }
    }

    @Test func defaultsTrustNobodyAndLimitFailedKeys() throws {
        let listener = try load("")
        #expect(listener.tls == nil && listener.cors == nil && listener.trustedProxies.isEmpty)
        #expect(!listener.proxyProtocol)
        #expect(listener.failedKeys == FailedKeyLimit(count: 20, window: .seconds(60)))
    }

    @Test func everyKeyIsRead() throws {
        let listener = try load(
            """
            trusted_proxies: [10.0.0.0/8, "2001:db8::/32"]
            proxy_protocol: true
            failed_keys: { per_address: 5/h }
            cors: { origins: ["https://app.example.com", "http://localhost:3000"] }
            """)
        #expect(listener.trustedProxies == [IPNetwork("10.0.0.0/8"), IPNetwork("2001:db8::/32")])
        #expect(listener.proxyProtocol)
        #expect(listener.failedKeys == FailedKeyLimit(count: 5, window: .seconds(3_600)))
        #expect(listener.cors == CORSPolicy(origins: ["https://app.example.com", "http://localhost:3000"]))
        #expect(try load("failed_keys: { per_address: unlimited }").failedKeys == nil)
        #expect(try load("cors: { origins: [] }").cors == nil)
    }

    @Test(arguments: [
        ("trusted_proxies: [10.0.0.0/33]", "trusted_proxies[0]: \"10.0.0.0/33\" is no address or block"),
        ("trusted_proxies: 10.0.0.0/8", "trusted_proxies: must be a list"),
        ("proxy_protocol: true", "proxy_protocol: nobody is trusted to send it: name the load balancers"),
        ("proxy_protocol: maybe", "proxy_protocol: \"maybe\" is neither true nor false"),
        ("failed_keys: { per_address: 20 }", "failed_keys.per_address: \"20\" is not a rate: write 20/m"),
        ("failed_keys: { per_address: 0/m }", "failed_keys.per_address: \"0/m\" is out of bounds"),
        ("failed_keys: { per_key: 1/m }", "failed_keys.per_key: unknown key: known here are per_address"),
        ("cors: { origins: [app.example.com] }", "cors.origins[0]: \"app.example.com\" is no origin"),
        ("cors: { origins: [\"https://a/\"] }", "cors.origins[0]: \"https://a/\" is no origin"),
        ("tls: { certificate: c.pem }", "tls.key: is missing"),
        (
            "tls: { certificate: none.pem, key: k.pem }",
            "tls.certificate: /etc/tg/none.pem cannot be read: No such file"
        ),
        ("tls: { certificate: /dev/null, key: /dev/null }", "tls.certificate: /dev/null holds no certificate"),
        ("tls: { certificate: /none, key: k, ca: x }", "gate.yaml:2: tls.ca: unknown key"),
    ])
    func aBadValueIsNamedWithItsPlace(yaml: String, expected: String) throws {
        let found = try #require(problem(yaml))
        #expect(found.contains("/etc/tg/gate.yaml:2: ") && found.contains(expected), "\(found)")
    }
}
