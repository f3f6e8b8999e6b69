import NIOCore

/// `openapi/openapi.yaml` as it was when this binary was built.
package enum OpenAPIDocument {
    package static let bytes = ByteBuffer(bytes: PackageResources.openapi_yaml)
}
