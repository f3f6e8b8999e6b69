import CPrefetch

/// Begins to load the line of the cache at an address, so that a later look at it need not wait.
@inline(__always)
func prefetch(_ address: UnsafeRawPointer) { tollgate_prefetch(address) }
