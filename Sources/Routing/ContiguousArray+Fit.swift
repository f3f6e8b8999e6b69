extension ContiguousArray {
    /// Makes it `count` long, with `fresh` for elements that are new or, `renewed`, another node's now.
    mutating func fit(count: Int, renewed: [Int] = [], _ fresh: Element) {
        if self.count > count { removeLast(self.count - count) }
        while self.count < count { append(fresh) }
        for node in renewed { self[node] = fresh }
    }
}
