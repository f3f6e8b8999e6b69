// swift-tools-version: 6.2
import PackageDescription

/// `make fuzz` builds with it: our targets instrumented for libFuzzer, and the executable that runs it.
let isFuzzing = Context.environment["TOLLGATE_FUZZ"] != nil
let instrumented: [SwiftSetting] = isFuzzing ? [.unsafeFlags(["-sanitize=fuzzer"])] : []

let strict: [SwiftSetting] =
    [
        .swiftLanguageMode(.v6),
        .enableUpcomingFeature("ExistentialAny"),
        .treatAllWarnings(as: .error),
    ] + instrumented

let nio: [Target.Dependency] = [
    .product(name: "NIOCore", package: "swift-nio"),
    .product(name: "NIOPosix", package: "swift-nio"),
]
let nioHTTP1: Target.Dependency = .product(name: "NIOHTTP1", package: "swift-nio")
// TLS on both sides and HTTP/2: of the data plane and its tests only.
let nioSecure: [Target.Dependency] = [
    .product(name: "NIOTLS", package: "swift-nio"),
    .product(name: "NIOSSL", package: "swift-nio-ssl"),
    .product(name: "NIOHTTP2", package: "swift-nio-http2"),
    .product(name: "NIOHPACK", package: "swift-nio-http2"),
]
let nioEmbedded: Target.Dependency = .product(name: "NIOEmbedded", package: "swift-nio")
let logging: Target.Dependency = .product(name: "Logging", package: "swift-log")
let lifecycle: Target.Dependency = .product(name: "ServiceLifecycle", package: "swift-service-lifecycle")

let package = Package(
    name: "tollgate",
    platforms: [.macOS(.v26)],
    products: [.executable(name: "tollgate", targets: ["tollgate"])],
    dependencies: [
        .package(url: "https://github.com/apple/swift-nio.git", from: "2.101.2"),
        .package(url: "https://github.com/apple/swift-nio-ssl.git", from: "2.37.6"),
        .package(url: "https://github.com/apple/swift-nio-http2.git", from: "1.46.0"),
        .package(url: "https://github.com/apple/swift-log.git", from: "1.16.2"),
        .package(url: "https://github.com/apple/swift-argument-parser.git", from: "1.8.2"),
        .package(url: "https://github.com/hummingbird-project/hummingbird.git", from: "2.28.1", traits: []),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle.git", from: "2.13.0"),
        .package(url: "https://github.com/jpsim/Yams.git", from: "6.2.2"),
    ],
    targets: [
        // Pure: no NIO, no Foundation.
        .target(name: "Domain", swiftSettings: strict),
        .target(name: "JSON", dependencies: ["Domain"], swiftSettings: strict),
        .target(name: "OpenAIProtocol", dependencies: ["Domain", "JSON"], swiftSettings: strict),
        .target(name: "Tokenization", dependencies: ["Domain", "JSON", "CPrefetch"], swiftSettings: strict),
        .target(name: "Routing", dependencies: ["Domain", "CPrefetch"], swiftSettings: strict),
        .target(name: "Billing", dependencies: ["Domain"], swiftSettings: strict),

        // System libraries: a module map and a shim header each.
        .systemLibrary(name: "CPrefetch"),
        .systemLibrary(name: "CHiredis", pkgConfig: "hiredis", providers: [.apt(["libhiredis-dev"])]),
        .systemLibrary(name: "CCurl", pkgConfig: "libcurl", providers: [.apt(["libcurl4-openssl-dev"])]),
        .systemLibrary(name: "COpenSSL", pkgConfig: "libcrypto", providers: [.apt(["libssl-dev"])]),

        // Shells.
        .target(name: "Redis", dependencies: ["Domain", "CHiredis"] + nio, swiftSettings: strict),
        .target(
            name: "Gateway",
            dependencies: [
                "Domain", "JSON", "OpenAIProtocol", "Tokenization", "Routing", "Billing", "Redis", "COpenSSL", nioHTTP1,
                logging,
                .product(name: "Yams", package: "Yams"),
            ] + nio + nioSecure,
            resources: [.embedInCode("Stores/Scripts"), .embedInCode("OpenAPI/openapi.yaml")],
            swiftSettings: strict
        ),
        .target(
            name: "ControlPlane",
            dependencies: [
                "Domain", "Gateway", "Billing", "CCurl", logging, lifecycle,
                .product(name: "Hummingbird", package: "hummingbird"),
            ] + nio,
            swiftSettings: strict
        ),
        .target(
            name: "Simulator",
            dependencies: ["Domain", "JSON", "OpenAIProtocol", "Routing", nioHTTP1] + nio,
            swiftSettings: strict
        ),
        .executableTarget(
            name: "tollgate",
            dependencies: [
                "Domain", "JSON", "ControlPlane", "Gateway", "Routing", "Simulator", "Tokenization", "CCurl", logging,
                lifecycle,
                .product(name: "UnixSignals", package: "swift-service-lifecycle"),
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            swiftSettings: strict
        ),

        // Tests.
        .target(name: "CAllocations", path: "Tests/CAllocations"),
        .target(
            name: "Support",
            dependencies: ["Domain", "Billing", "JSON", .product(name: "Yams", package: "Yams")],
            path: "Tests/Support",
            swiftSettings: strict
        ),
        .testTarget(name: "DomainTests", dependencies: ["Domain"], swiftSettings: strict),
        .testTarget(name: "JSONTests", dependencies: ["JSON", "Support"], swiftSettings: strict),
        .testTarget(name: "OpenAIProtocolTests", dependencies: ["OpenAIProtocol", "Support"], swiftSettings: strict),
        .testTarget(name: "TokenizationTests", dependencies: ["Tokenization", "Support"], swiftSettings: strict),
        .testTarget(
            name: "RoutingTests", dependencies: ["Routing", "Support", "CAllocations"], swiftSettings: strict),
        .testTarget(name: "BillingTests", dependencies: ["Billing", "Support"], swiftSettings: strict),
        .testTarget(name: "RedisTests", dependencies: ["Redis", "Support", nioEmbedded], swiftSettings: strict),
        .testTarget(
            name: "GatewayTests",
            dependencies: [
                "Gateway", "Support", nioEmbedded, nioHTTP1, .product(name: "Yams", package: "Yams"),
            ] + nioSecure,
            swiftSettings: strict
        ),
        .testTarget(name: "SimulatorTests", dependencies: ["Simulator", "Routing", "Support"], swiftSettings: strict),
        .testTarget(
            name: "ControlPlaneTests",
            dependencies: ["ControlPlane", "Support", logging, lifecycle],
            swiftSettings: strict
        ),
        .testTarget(
            name: "EndToEndTests",
            dependencies: ["Domain", "JSON", "Simulator", "Support", "FuzzTargets"] + nio + nioSecure,
            swiftSettings: strict
        ),
        .testTarget(name: "ArchitectureTests", swiftSettings: strict),

        // Fuzzing: the targets run in the tests, too; libFuzzer only in `make fuzz`.
        .target(
            name: "FuzzTargets",
            dependencies: ["Domain", "JSON", "OpenAIProtocol", "Tokenization", "Gateway", nioEmbedded, nioHTTP1],
            path: "Tests/FuzzTargets",
            swiftSettings: strict
        ),
        .testTarget(name: "FuzzTests", dependencies: ["FuzzTargets", "Support"], swiftSettings: strict),
    ]
)

if isFuzzing {
    package.targets += [
        .systemLibrary(name: "CFuzzer", path: "Tests/CFuzzer"),
        .executableTarget(
            name: "Fuzz",
            dependencies: ["FuzzTargets", "CFuzzer"],
            path: "Tests/Fuzz",
            exclude: ["Corpus", "Dictionaries"],
            swiftSettings: strict,
            linkerSettings: [.unsafeFlags(["-sanitize=fuzzer"])]
        ),
    ]
}
