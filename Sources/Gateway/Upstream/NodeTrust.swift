import NIOSSL

/// Whom to believe that a node is who its URL says: the authorities of a PEM bundle, or the system's.
///
/// Holds the one TLS context of all connections, loops and probes that trust the same; equal where the authorities are,
/// so that a reload with an unchanged bundle keeps the connections that there are. Certificates are checked in full, the
/// name or address of the URL too; TLS 1.2 and later.
package struct NodeTrust: Hashable, Sendable {
    /// A node that does not answer a close is not waited for: its work must end when the client leaves.
    static let shutdownMilliseconds: Int64 = 50
    package static let pemBytesMax = 1 << 20

    /// The bundle's text; nil where the system's authorities are trusted.
    private let pem: [UInt8]?
    let context: NIOSSLContext

    /// - Throws: What is wrong with the bundle, in words that follow its name.
    package init(pem: [UInt8]?) throws(UnitFailure) {
        var configuration = TLSConfiguration.makeClientConfiguration()
        configuration.minimumTLSVersion = .tlsv12
        configuration.certificateVerification = .fullVerification
        configuration.shutdownTimeout = .milliseconds(Self.shutdownMilliseconds)
        if let pem {
            let certificates: [NIOSSLCertificate]
            do {
                certificates = try NIOSSLCertificate.fromPEMBytes(pem)
            } catch {
                throw UnitFailure("holds no certificate in PEM format")
            }
            guard !certificates.isEmpty else { throw UnitFailure("holds no certificate in PEM format") }
            configuration.trustRoots = .certificates(certificates)
        }
        do {
            context = try NIOSSLContext(configuration: configuration)
        } catch {
            throw UnitFailure(pem == nil ? "needs the system's authorities, which cannot be read" : "cannot be used")
        }
        self.pem = pem
    }

    package static func == (left: Self, right: Self) -> Bool { left.pem == right.pem }
    package func hash(into hasher: inout Hasher) { hasher.combine(pem) }
}

/// TLS to one node: whom to trust, and what its certificate has to say.
package struct NodeTLS: Hashable, Sendable {
    package let trust: NodeTrust
    /// For SNI and the check of the certificate; nil for an IP literal, whose address is checked instead.
    package let serverName: String?

    package init(trust: NodeTrust, host: String) {
        self.trust = trust
        serverName = HostResolver.literal(host) == nil ? host : nil
    }

    /// - Throws: Where the name cannot stand in a TLS greeting.
    func makeHandler() throws -> NIOSSLClientHandler {
        try NIOSSLClientHandler(context: trust.context, serverHostname: serverName)
    }
}

extension NodeConfiguration {
    /// nil where the node speaks plain HTTP.
    package var tls: NodeTLS? { trust.map { NodeTLS(trust: $0, host: url.host) } }
}

/// Why TLS with a node did not come about. A closed set: it is logged by these words.
package enum UpstreamTLSFailure: String, Hashable, Sendable, CaseIterable {
    case untrusted = "its certificate is signed by nobody who is trusted, or has expired"
    case wrongName = "its certificate is for another name"
    case notTLS = "it does not speak TLS there"
    case closed = "it closed the connection during the TLS handshake"
    case failed = "the TLS handshake failed"

    /// nil where the error is none of TLS.
    init?(_ error: any Error) {
        switch error {
        case let error as NIOSSLExtraError:
            let isName = error == .failedToValidateHostname || error == .serverHostnameImpossibleToMatch
            self = isName ? .wrongName : .failed
        case NIOSSLError.unableToValidateCertificate, NIOSSLError.noCertificateToValidate: self = .untrusted
        case NIOSSLError.handshakeFailed(let cause): self.init(cause: cause)
        case NIOSSLError.uncleanShutdown: self = .closed
        case is NIOSSLError, is BoringSSLError: self = .failed
        default: return nil
        }
    }

    /// BoringSSL's reasons are known by their names alone.
    private init(cause: BoringSSLError) {
        let text = String(describing: cause)
        if text.contains("CERTIFICATE_VERIFY_FAILED") {
            self = .untrusted
        } else if ["WRONG_VERSION_NUMBER", "HTTP_REQUEST", "INVALID_RECORD"].contains(where: text.contains) {
            self = .notTLS
        } else {
            self = text.contains("EOF during handshake") ? .closed : .failed
        }
    }
}
