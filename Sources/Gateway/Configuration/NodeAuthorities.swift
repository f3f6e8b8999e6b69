import Routing

/// The certificate bundles that nodes name, each read once for one reading of the configuration.
final class NodeAuthorities {
    private var read: [String?: Result<NodeTrust, UnitFailure>] = [:]

    /// The bundles that were read.
    var files: [String] { read.keys.compactMap(\.self).sorted() }

    /// - Parameter file: The bundle's path; nil for the system's authorities.
    func trust(_ file: String?) throws(UnitFailure) -> NodeTrust {
        if let known = read[file] { return try known.get() }
        let result = Result { () throws(UnitFailure) in
            guard let file else { return try NodeTrust(pem: nil) }
            let pem: [UInt8]
            do throws(ConfigurationLoader.FileFailure) {
                pem = try ConfigurationLoader.contents(of: file, bytesMax: NodeTrust.pemBytesMax)
            } catch {
                throw UnitFailure(error.message)
            }
            return try NodeTrust(pem: pem)
        }
        read[file] = result
        return try result.get()
    }
}

extension FleetSections {
    private typealias Units = ConfigurationUnits

    /// Whom to trust at the node's URL; nil where it is `http://`, or where there is a problem.
    func readTrust(_ section: ConfigurationSection, url: NodeURL?) -> NodeTrust? {
        let name = section.value("ca", Units.text)
        guard let url else { return nil }
        guard url.isSecure else {
            if section.has("ca") { section.problem("ca", "is for nodes at https://: remove it, or change the url") }
            return nil
        }
        guard !section.has("ca") || name != nil else { return nil }
        do throws(UnitFailure) {
            return try authorities.trust(name.map { Units.path($0, beside: file) })
        } catch {
            section.problem(name == nil ? "url" : "ca", name.map { "\"\($0)\" \(error.message)" } ?? error.message)
            return nil
        }
    }
}
