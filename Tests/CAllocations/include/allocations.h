#ifndef TOLLGATE_ALLOCATIONS_H
#define TOLLGATE_ALLOCATIONS_H

// How many blocks of memory this thread has asked for so far; -1 where that cannot be counted (not glibc).
long tollgate_allocations(void);

#endif
