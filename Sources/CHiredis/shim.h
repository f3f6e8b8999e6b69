/* The reply parser of hiredis; its sockets are not used: NIO keeps those. */
#include <hiredis/read.h>
