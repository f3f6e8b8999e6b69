/// What the router noted of a request in flight: for those who explain or judge its decisions.
extension Router {
    /// nil once the request is over.
    package func attempt(_ assignment: Assignment) -> Attempt? { inflight.entry(assignment.ticket)?.attempt }
}
