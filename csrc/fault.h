/* fault.h - system calls that a test can make fail. It owns the two macros through which the
 * extension makes every system call, and promises that a normal build contains the plain call and
 * nothing else. It chooses no failures: the test sets them, one by one.
 */
#ifndef T3_FAULT_H
#define T3_FAULT_H

#include <stddef.h>

#ifdef T3_FAULTS

#include <errno.h>
#include <stdint.h>

enum { T3_FAULT_SUCCESS = -0x10000 };

/* The `nth` call of `call` from now on (1: the next) fails with errno -result where `result` is
 * negative, returns 0 unmade where it is T3_FAULT_SUCCESS, or else is asked for at most `result`
 * bytes. */
void t3_fault_set(const char *call, int nth, int result);

/* Forget every entry. Returns how many had not fired. */
int t3_fault_clear(void);

/* Count one call; 1 if it is not to be made. Then errno says how it failed, 0 that it didn't. */
int t3_fault_skips(const char *call);

/* How many of `bytes` the call just counted may ask for. */
size_t t3_fault_cut(const char *call, size_t bytes);

#define T3_CALL(call, ...) \
    (t3_fault_skips(#call) ? (__typeof__(call(__VA_ARGS__)))(intptr_t)(errno ? -1 : 0) \
                           : call(__VA_ARGS__))
#define T3_ALLOCATE(call, ...) (t3_fault_skips(#call) ? NULL : call(__VA_ARGS__))
#define T3_CUT(call, bytes) t3_fault_cut(#call, bytes)

#else

#define T3_CALL(call, ...) call(__VA_ARGS__)
#define T3_ALLOCATE(call, ...) call(__VA_ARGS__)
#define T3_CUT(call, bytes) (bytes)

#endif
#endif
