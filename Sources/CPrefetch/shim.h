/* Begins to load the cache line at an address without waiting for it: Swift has no name for that. No effect but on time. */
static inline __attribute__((always_inline)) void tollgate_prefetch(const void *address) {
    __builtin_prefetch(address, 0, 3);
}
