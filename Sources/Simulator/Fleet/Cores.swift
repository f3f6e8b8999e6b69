#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// Processors that are online, at least 1.
func coreCount() -> Int { max(1, sysconf(Int32(_SC_NPROCESSORS_ONLN))) }
