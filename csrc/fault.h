/* fault.h - lets a test make system calls fail: it owns the macros through which the extension
 * makes them.
 *
 * Every system call that can fail goes through one of these macros, and so does every allocation.
 * (getppid can't fail; what SQLite and the C library do inside their own functions is theirs.) In a
 * normal build each macro is the plain call and nothing else.
 */
#ifndef T3_FAULT_H
#define T3_FAULT_H

#include <stddef.h>

#ifdef T3_FAULTS

#include <errno.h>
#include <stdint.h>

enum { T3_FAULT_SUCCESS = -0x10000 };

/* Choose what happens at the `nth` call of `call` from now on (1: the next). `result` negative: it
 * is not made and fails with errno -result. T3_FAULT_SUCCESS: it is not made and returns 0. Else:
 * it is made, for at most `result` bytes. */
void t3_fault_set(const char *call, int nth, int result);

/* Forget every fault. Returns how many had not happened. */
int t3_fault_clear(void);

/* Count one call. Returns 1 if a fault replaces it: errno then says how it failed, 0 that it did
 * not. */
int t3_fault_replaces(const char *call);

/* How many of `bytes` the call that was just counted may ask for. */
size_t t3_fault_limit(const char *call, size_t bytes);

#define T3_CALL(call, ...)                                                                \
    (t3_fault_replaces(#call) ? (__typeof__(call(__VA_ARGS__)))(intptr_t)(errno ? -1 : 0) \
                              : call(__VA_ARGS__))
/* On Linux a close that fails has closed all the same (close(2)), so the call is always made. */
#define T3_CLOSE(fd) (close(fd) < 0 || t3_fault_replaces("close") ? -1 : 0)
#define T3_ALLOCATE(call, ...) (t3_fault_replaces(#call) ? NULL : call(__VA_ARGS__))
#define T3_LIMIT(call, bytes) t3_fault_limit(#call, bytes)

#else

#define T3_CALL(call, ...) call(__VA_ARGS__)
#define T3_CLOSE(fd) close(fd)
#define T3_ALLOCATE(call, ...) call(__VA_ARGS__)
#define T3_LIMIT(call, bytes) (bytes)

#endif
#endif
