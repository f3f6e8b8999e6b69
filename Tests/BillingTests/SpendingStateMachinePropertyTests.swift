import Domain
import Testing

@testable import Billing
