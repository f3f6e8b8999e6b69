import Testing

@testable import Routing

struct RendezvousTableTests {
    private func table(_ weights: [(identity: UInt64, weight: Float)]) -> RendezvousTable {
        var table = RendezvousTable()
        table.resize(to: weights.count)
        for (node, entry) in weights.enumerated() {
            table.set(node, identity: entry.identity, weight: entry.weight)
        }
        return table
    }

    private func winners(_ table: RendezvousTable, _ nodes: [UInt64]) -> [UInt64] {
        (0..<20_000).map { session in
            let first = table.winners(session: UInt64(session)).first
            return first < 0 ? 0 : nodes[first]
        }
    }

    @Test func shareOfSessionsFollowsTheWeight() {
        let won = winners(table([(11, 1), (22, 2), (33, 5)]), [11, 22, 33])
        for (identity, share) in [(UInt64(11), 0.125), (22, 0.25), (33, 0.625)] {
            let measured = Double(won.count { $0 == identity }) / Double(won.count)
            #expect(abs(measured - share) < 0.03, "\(identity): \(measured)")
        }
    }

    @Test func gatewaysAgreeWhateverTheOrderInWhichTheyLearnedOfTheNodes() {
        let nodes: [UInt64] = [5, 6, 7, 8, 9, 10]
        let forward = table(nodes.map { ($0, Float($0)) })
        let backward = table(nodes.reversed().map { ($0, Float($0)) })
        #expect(winners(forward, nodes) == winners(backward, nodes.reversed()))
    }

    @Test func nodeThatLeavesMovesOnlyItsOwnSessions() {
        let nodes: [UInt64] = [5, 6, 7, 8]
        var table = table(nodes.map { ($0, 1) })
        let before = winners(table, nodes)
        let second = (0..<20_000).map { table.winners(session: UInt64($0)).second }
        table.set(2, identity: 0, weight: 0)
        let after = winners(table, nodes)
        for session in before.indices {
            if before[session] != 7 {
                #expect(after[session] == before[session])
            } else {
                #expect(after[session] == nodes[second[session]])
            }
        }
        table.set(2, identity: 7, weight: 1)
        #expect(winners(table, nodes) == before)
    }

    @Test func emptyFleetHasNoWinner() {
        #expect(RendezvousTable().winners(session: 1).first == -1)
        #expect(table([(1, 0)]).winners(session: 1).first == -1)
        #expect(table([(1, 1)]).winners(session: 1) == (0, -1))
    }
}
