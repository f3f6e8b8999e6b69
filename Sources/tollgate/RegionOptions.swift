import ArgumentParser
import ControlPlane

/// Where an org's or a key's requests must stay.
struct RegionOptions: ParsableArguments {
    @Option(help: "Only nodes of sites in this region serve it; any lets every region.")
    var region: String?

    /// nil where nothing was said.
    var value: JSONValue? { region.map { $0 == "any" ? .null : .string($0) } }
}
