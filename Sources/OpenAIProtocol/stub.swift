// OpenAIProtocol
