import Support

extension GatewayUnderTest {
    /// What the gateway itself says that it answers.
    func contract() async throws -> AnswerContract {
        try AnswerContract(yaml: try await ask(.get("/openapi.yaml")).text)
    }
}

extension Answer {
    var asSent: AnswerContract.Answer { AnswerContract.Answer(status: status, headers: headers, body: body) }
}
