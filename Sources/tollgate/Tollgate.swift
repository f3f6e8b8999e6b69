import ArgumentParser
import Logging
import ServiceLifecycle

@main
struct Tollgate: AsyncParsableCommand {
    mutating func run() async throws { print("tollgate") }
}
