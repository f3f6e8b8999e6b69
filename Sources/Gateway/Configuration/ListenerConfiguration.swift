import Domain
import NIOCore
import NIOSSL

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// How the data plane meets its clients: encryption, proxies in between, web pages, and guesses at keys.
package struct ListenerConfiguration: Sendable {
    package static let trustedProxiesMax = 1_024

    /// nil: plain HTTP/1.1.
    package var tls: TLSIdentity?
    /// Who may say for whom a connection or request comes.
    package var trustedProxies: [IPNetwork]
    /// Connections from trusted proxies begin with a PROXY header.
    package var proxyProtocol: Bool
    /// nil: unlimited.
    package var failedKeys: FailedKeyLimit?
    /// nil: pages of other origins may not read answers.
    package var cors: CORSPolicy?

    package init(
        tls: TLSIdentity? = nil, trustedProxies: [IPNetwork] = [], proxyProtocol: Bool = false,
        failedKeys: FailedKeyLimit? = .standard, cors: CORSPolicy? = nil
    ) {
        self.tls = tls
        self.trustedProxies = trustedProxies
        self.proxyProtocol = proxyProtocol
        self.failedKeys = failedKeys
        self.cors = cors
    }
}

/// A certificate with its key, read, matched and ready to serve with. A reload makes a new one; connections keep theirs.
package struct TLSIdentity: Sendable {
    package static let fileBytesMax = 1 << 20
    /// How long a peer has to say goodbye before its connection is closed all the same.
    static let shutdownTimeout = TimeAmount.seconds(1)
    /// Of TLS 1.2; those of 1.3 are all sound. Forward secrecy and authenticated encryption, as HTTP/2 demands.
    static let ciphers: [NIOTLSCipher] = [
        .TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, .TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        .TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, .TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        .TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, .TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    ]

    package let certificateFile: String
    package let keyFile: String
    /// When the certificate ends, in Unix seconds.
    package let validUntilSeconds: Int64
    let context: NIOSSLContext

    /// What is wrong, with which of the two files.
    package struct Failure: Error {
        package let isKey: Bool
        package let message: String
    }

    /// - Parameters: Paths of PEM files; the certificate's own first, then those between it and its root.
    package init(certificateFile: String, keyFile: String) throws(Failure) {
        self.certificateFile = certificateFile
        self.keyFile = keyFile
        func failure(_ message: String, isKey: Bool) -> Failure { Failure(isKey: isKey, message: message) }
        let certificateBytes: [UInt8]
        let keyBytes: [UInt8]
        do throws(ConfigurationLoader.FileFailure) {
            certificateBytes = try ConfigurationLoader.contents(of: certificateFile, bytesMax: Self.fileBytesMax)
        } catch {
            throw failure(error.message, isKey: false)
        }
        do throws(ConfigurationLoader.FileFailure) {
            keyBytes = try ConfigurationLoader.contents(of: keyFile, bytesMax: Self.fileBytesMax)
        } catch {
            throw failure(error.message, isKey: true)
        }
        guard let chain = try? NIOSSLCertificate.fromPEMBytes(certificateBytes), let own = chain.first else {
            throw failure("holds no certificate in PEM form", isKey: false)
        }
        guard let key = try? NIOSSLPrivateKey(bytes: keyBytes, format: .pem) else {
            throw failure("holds no private key in PEM form without a passphrase", isKey: true)
        }
        validUntilSeconds = Int64(own.notValidAfter)
        var configuration = TLSConfiguration.makeServerConfiguration(
            certificateChain: chain.map { .certificate($0) }, privateKey: .privateKey(key))
        configuration.minimumTLSVersion = .tlsv12
        configuration.cipherSuiteValues = Self.ciphers
        configuration.applicationProtocols = [ApplicationProtocol.http2, ApplicationProtocol.http11]
        configuration.shutdownTimeout = Self.shutdownTimeout
        do {
            context = try NIOSSLContext(configuration: configuration)
        } catch {
            throw failure("does not belong to the certificate in \(certificateFile)", isKey: true)
        }
    }
}

/// What ALPN calls the protocols that the listener speaks.
enum ApplicationProtocol {
    static let http2 = "h2"
    static let http11 = "http/1.1"
}
