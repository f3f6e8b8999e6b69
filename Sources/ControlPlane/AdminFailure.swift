import Billing
import Hummingbird
import Logging

/// What the control plane answers instead of what was asked: a status, a code for programs, a sentence for people.
package struct AdminFailure: Error {
    /// The closed set of `error.code`.
    package enum Code: String, CaseIterable, Sendable {
        case unauthorized
        case notFound = "not_found"
        case methodNotAllowed = "method_not_allowed"
        case bodyTooLarge = "body_too_large"
        case invalidJSON = "invalid_json"
        case invalidRequest = "invalid_request"
        case alreadyExists = "already_exists"
        case referenceReused = "reference_reused"
        case limitReached = "limit_reached"
        case storeUnavailable = "store_unavailable"
        case notReady = "not_ready"
        case internalError = "internal_error"

        var status: HTTPResponse.Status {
            switch self {
            case .unauthorized: .unauthorized
            case .notFound: .notFound
            case .methodNotAllowed: .methodNotAllowed
            case .bodyTooLarge: .contentTooLarge
            case .invalidJSON, .invalidRequest: .badRequest
            case .alreadyExists, .referenceReused, .limitReached: .conflict
            case .storeUnavailable, .notReady: .serviceUnavailable
            case .internalError: .internalServerError
            }
        }
    }

    package var code: Code
    /// What is wrong and what to change. Never a token or a key's secret.
    package var message: String
    var headers: HTTPFields

    package init(_ code: Code, _ message: String, headers: HTTPFields = [:]) {
        self.code = code
        self.message = message
        self.headers = headers
    }

    init(_ failure: OperatorFailure) {
        let code: Code =
            switch failure.code {
            case .notFound: .notFound
            case .alreadyExists: .alreadyExists
            case .referenceReused: .referenceReused
            case .invalid: .invalidRequest
            case .limitReached: .limitReached
            case .storeUnavailable: .storeUnavailable
            }
        self.init(code, failure.message)
    }

    func response() -> Response {
        var answer = AdminAnswer.json(ErrorDocument(code: code.rawValue, message: message), status: code.status)
        answer.headers.append(contentsOf: headers)
        return answer.response()
    }
}

/// Turns whatever a route throws into the one error shape. Outermost, so that nothing escapes as an empty 500.
struct FailureMiddleware: RouterMiddleware {
    let logger: Logger

    func handle(
        _ request: Request, context: AdminContext, next: (Request, AdminContext) async throws -> Response
    ) async throws -> Response {
        do {
            return try await next(request, context)
        } catch let failure as AdminFailure {
            return failure.response()
        } catch let failure as OperatorFailure {
            return AdminFailure(failure).response()
        } catch let error as HTTPError where error.status == .notFound {
            return AdminFailure(.notFound, "No such resource; see openapi/admin.yaml for those there are.").response()
        } catch is CancellationError {
            return AdminFailure(.notReady, "The control plane is stopping; try again shortly.").response()
        } catch {
            // The type alone: an unforeseen error's text might quote the request.
            logger.error("control plane request failed", metadata: ["error_type": "\(type(of: error))"])
            return AdminFailure(.internalError, "An unforeseen error; the gateway's log has its type.").response()
        }
    }
}

/// Lets nothing under `/admin` pass without the token, unknown paths included: a stranger learns no names.
struct TokenMiddleware: RouterMiddleware {
    let token: AdminToken
    /// What nodes register themselves with, and nothing else; nil where none may.
    var joinToken: AdminToken?

    func handle(
        _ request: Request, context: AdminContext, next: (Request, AdminContext) async throws -> Response
    ) async throws -> Response {
        let path = request.uri.path
        var context = context
        if !AdminRoute.isOpen(path: path), !presents(token, request) {
            if let joinToken, request.method == .post, path == AdminRoute.joinPath, presents(joinToken, request) {
                context.isJoining = true
                return try await next(request, context)
            }
            throw AdminFailure(
                .unauthorized, "Send the control plane's token as 'Authorization: Bearer <token>'.",
                headers: [.wwwAuthenticate: "Bearer"])
        }
        return try await next(request, context)
    }

    private func presents(_ token: AdminToken, _ request: Request) -> Bool {
        guard let header = request.headers[.authorization] else { return false }
        let scheme = "bearer "
        guard header.prefix(scheme.count).lowercased() == scheme,
            let presented = AdminToken(header.dropFirst(scheme.count))
        else { return false }
        return token.matches(presented)
    }
}
