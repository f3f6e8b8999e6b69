import Domain

/// The keys of ``ListenerConfiguration``.
struct ListenerSections {
    private typealias Units = ConfigurationUnits

    let root: ConfigurationSection
    let findings: ConfigurationFindings

    func read() -> ListenerConfiguration {
        let trusted = root.values("trusted_proxies", countMax: ListenerConfiguration.trustedProxiesMax) {
            text throws(UnitFailure) in
            guard let network = IPNetwork(text) else {
                throw UnitFailure("is no address or block of addresses: write 10.0.0.0/8 or 2001:db8::/32")
            }
            return network
        }
        let proxyProtocol = root.value("proxy_protocol", Units.boolean) ?? false
        if proxyProtocol, trusted.isEmpty {
            root.problem(
                "proxy_protocol", "nobody is trusted to send it: name the load balancers in trusted_proxies")
        }
        return ListenerConfiguration(
            tls: readTLS(), trustedProxies: trusted, proxyProtocol: proxyProtocol, failedKeys: readFailedKeys(),
            cors: readCORS())
    }

    private func readTLS() -> TLSIdentity? {
        let section = root.section("tls")
        guard root.has("tls") else { return nil }
        defer { section.finish() }
        guard let certificate = section.required("certificate", path), let key = section.required("key", path) else {
            return nil
        }
        do throws(TLSIdentity.Failure) {
            let identity = try TLSIdentity(certificateFile: certificate, keyFile: key)
            if identity.validUntilSeconds < WallTime.now().milliseconds / 1_000 {
                section.warning("certificate", "has expired: clients will refuse it; renew it")
            }
            return identity
        } catch {
            section.problem(error.isKey ? "key" : "certificate", "\(error.isKey ? key : certificate) \(error.message)")
            return nil
        }
    }

    /// Relative to the folder of the configuration file.
    private func path(_ text: String) throws(UnitFailure) -> String {
        Units.path(try Units.text(text), beside: findings.file)
    }

    private func readFailedKeys() -> FailedKeyLimit? {
        let section = root.section("failed_keys")
        defer { section.finish() }
        let limit: FailedKeyLimit?? = section.value("per_address") { text throws(UnitFailure) in
            text == "unlimited" ? nil : try Self.limit(text)
        }
        return limit ?? .standard
    }

    /// `20/m`: so many a second, minute or hour.
    private static func limit(_ text: String) throws(UnitFailure) -> FailedKeyLimit {
        let halves = text.split(separator: "/", omittingEmptySubsequences: false)
        let windows: [Substring: Duration] = ["s": .seconds(1), "m": .seconds(60), "h": .seconds(3_600)]
        guard halves.count == 2, let window = windows[halves[1]] else {
            throw UnitFailure("is not a rate: write 20/m (or /s, /h), or unlimited")
        }
        return FailedKeyLimit(
            count: try Units.integer(in: 1...FailedKeyLimit.countMax)(String(halves[0])), window: window)
    }

    private func readCORS() -> CORSPolicy? {
        let section = root.section("cors")
        defer { section.finish() }
        let origins = section.values("origins", countMax: CORSPolicy.originsMax) { text throws(UnitFailure) in
            guard text == "*" || Self.isOrigin(text) else {
                throw UnitFailure(
                    "is no origin: write https://app.example.com as browsers send it, lower case and without a path, or *"
                )
            }
            return text
        }
        return origins.isEmpty ? nil : CORSPolicy(origins: origins)
    }

    private static func isOrigin(_ text: String) -> Bool {
        guard let scheme = text.firstRange(of: "://"), text.utf8.count <= 512 else { return false }
        let host = text[scheme.upperBound...]
        return !host.isEmpty && scheme.lowerBound > text.startIndex
            && text.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7F && !(UInt8(ascii: "A")...UInt8(ascii: "Z")).contains($0) }
            && !host.contains { "/?#@,".contains($0) }
    }
}
