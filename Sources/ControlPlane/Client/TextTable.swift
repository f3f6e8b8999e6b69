/// A table for people: columns as wide as their widest cell, two spaces apart.
package struct TextTable {
    package struct Column {
        package enum Alignment: Sendable {
            case left, right
        }

        var title: String
        var alignment: Alignment

        package static func left(_ title: String) -> Column { Column(title: title, alignment: .left) }
        package static func right(_ title: String) -> Column { Column(title: title, alignment: .right) }
    }

    /// How a cell stands out, on terminals only.
    package enum Emphasis: String, Sendable {
        case plain = ""
        case heading = "\u{1B}[1m"
        case good = "\u{1B}[32m"
        case warning = "\u{1B}[33m"
        case bad = "\u{1B}[31m"
    }

    package struct Cell: ExpressibleByStringInterpolation {
        var text: String
        var emphasis: Emphasis

        package init(_ text: String, _ emphasis: Emphasis = .plain) {
            // A control character in a name must not reach the terminal.
            self.text = String(
                String.UnicodeScalarView(
                    text.unicodeScalars.map { $0.value < 0x20 || (0x7F...0x9F).contains($0.value) ? "?" : $0 }))
            self.emphasis = emphasis
        }

        package init(stringLiteral value: String) { self.init(value) }
    }

    private let columns: [Column]
    private var rows: [[Cell]] = []

    package init(_ columns: Column...) {
        self.columns = columns
    }

    /// A row shorter than the columns is filled with empty cells; cells past them are dropped.
    package mutating func add(_ cells: [Cell]) {
        rows.append((0..<columns.count).map { $0 < cells.count ? cells[$0] : "" })
    }

    /// Lines without trailing spaces, each ended by a line break.
    package func rendered(inColour: Bool) -> String {
        var widths = columns.map(\.title.count)
        for row in rows {
            for (index, cell) in row.enumerated() { widths[index] = max(widths[index], cell.text.count) }
        }
        var text = line(columns.map { Cell($0.title, .heading) }, widths: widths, inColour: inColour)
        for row in rows { text += line(row, widths: widths, inColour: inColour) }
        return text
    }

    private func line(_ cells: [Cell], widths: [Int], inColour: Bool) -> String {
        var line = ""
        // Gaps are held back until something follows them.
        var gap = 0
        for (index, cell) in cells.enumerated() {
            let padding = widths[index] - cell.text.count
            if columns[index].alignment == .right { gap += padding }
            if !cell.text.isEmpty {
                line += String(repeating: " ", count: gap)
                gap = 0
                let isPlain = !inColour || cell.emphasis == .plain
                line += isPlain ? cell.text : "\(cell.emphasis.rawValue)\(cell.text)\u{1B}[0m"
            }
            if columns[index].alignment == .left { gap += padding }
            gap += 2
        }
        return line + "\n"
    }
}
