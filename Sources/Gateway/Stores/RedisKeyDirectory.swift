import Billing
import Domain
import NIOCore
import Redis

/// Looks keys up by their public id. Bound to the client's loop.
package final class RedisKeyDirectory {
    /// How long an answer is awaited before the key counts as unverifiable (503).
    package static let timeout = Duration.seconds(2)

    private let client: RedisClient

    package init(client: RedisClient) {
        self.client = client
    }

    package var eventLoop: any EventLoop { client.eventLoop }

    /// - Parameter completion: nil where the directory has no such key. Called exactly once.
    package func lookup(
        _ id: KeyID, completion: @escaping (Result<KeyRecord?, LedgerTransportFailure>) -> Void
    ) {
        client.send(
            ["HMGET", .string(StoreKeys.directory(id)), "org", "digest", "pepper", "last4", "status"],
            timeout: Self.timeout
        ) { result in
            switch result {
            case .success(.array(let fields)) where fields.count == 5:
                guard let record = Self.record(id, fields) else { return completion(.success(nil)) }
                self.addRights(to: record, completion: completion)
            case .success:
                completion(.failure(.refused("the reply is no directory entry")))
            case .failure(let error):
                completion(.failure(Self.failure(error)))
            }
        }
    }

    /// The org's own slot says whether it is suspended, which models the key may use, and where: two questions on their way at
    /// once, answered in order.
    private func addRights(
        to record: KeyRecord, completion: @escaping (Result<KeyRecord?, LedgerTransportFailure>) -> Void
    ) {
        var rights = KeyRecord.Rights()
        var failed: LedgerTransportFailure?
        client.send(["HMGET", .string(StoreKeys.account(record.org)), "status", "region"], timeout: Self.timeout) {
            result in
            switch result {
            case .success(.array(let fields)) where fields.count == 2:
                rights.isOrgSuspended = fields[0].string == AccountStatus.suspended.rawValue
                rights.orgRegion = fields[1].string
            case .success: failed = .refused("the reply is no org's record")
            case .failure(let error): failed = Self.failure(error)
            }
        }
        client.send(
            ["HMGET", .string(StoreKeys.key(record.id, org: record.org)), "status", "models", "region"],
            timeout: Self.timeout
        ) { result in
            switch result {
            case .success(.array(let fields)) where fields.count == 3:
                if let failed { return completion(.failure(failed)) }
                // Without its record a key could do anything, and the ledger admits nothing of it.
                guard fields[0].string != nil else { return completion(.success(nil)) }
                rights.models = fields[1].string.map(KeyModels.parse)
                rights.keyRegion = fields[2].string
                completion(.success(record.granted(rights)))
            case .success: completion(.failure(.refused("the reply is no key's record")))
            case .failure(let error): completion(.failure(Self.failure(error)))
            }
        }
    }

    private static func failure(_ error: RedisError) -> LedgerTransportFailure {
        if case .server(let code, let message) = error { return .refused("\(code) \(message)") }
        return .unreachable
    }

    private static func record(_ id: KeyID, _ fields: [RESPValue]) -> KeyRecord? {
        guard let org = fields[0].string, let digest = fields[1].bytes, let pepper = fields[2].string,
            let lastFour = fields[3].string, let status = fields[4].string
        else { return nil }
        return KeyRecord(
            id: id, org: OrgID(unchecked: org), digest: digest, pepperID: pepper, lastFour: lastFour,
            isActive: status == AccountStatus.active.rawValue)
    }
}
