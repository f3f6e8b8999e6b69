extension ContiguousArray {
    /// Makes it so long, with `fresh` for nodes that are new or, `renewed`, another's now.
    mutating func fit(count: Int, renewed: [Int] = [], _ fresh: Element) {
        if self.count > count { removeLast(self.count - count) }
        while self.count < count { append(fresh) }
        for node in renewed { self[node] = fresh }
    }
}
