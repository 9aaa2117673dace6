/* fault.c - the fault table of the test build: which call is to fail, and how. Each entry fires
 * once. It is not thread safe, and no part of a normal build.
 */
#include "fault.h"

#include <errno.h>
#include <string.h>

enum { ENTRIES = 16 };

static struct {
    const char *call; /* NULL: free */
    int remaining;    /* calls until it fires; 0: fires now; negative: fired */
    int result;
} table[ENTRIES];

void t3_fault_set(const char *call, int nth, int result)
{
    for (int i = 0; i < ENTRIES; i++) {
        if (!table[i].call) {
            table[i].call = call;
            table[i].remaining = nth;
            table[i].result = result;
            return;
        }
    }
}

int t3_fault_clear(void)
{
    int unused = 0;

    for (int i = 0; i < ENTRIES; i++)
        unused += table[i].call && table[i].remaining >= 0;
    memset(table, 0, sizeof table);
    return unused;
}

int t3_fault_skips(const char *call)
{
    int skipped = 0;

    for (int i = 0; i < ENTRIES; i++) {
        if (!table[i].call || table[i].remaining < 0 || strcmp(table[i].call, call) != 0)
            continue;
        table[i].remaining--;
        if (table[i].remaining == 0 && table[i].result < 0) {
            table[i].remaining = -1;
            errno = table[i].result == T3_FAULT_SUCCESS ? 0 : -table[i].result;
            skipped = 1;
        }
    }
    return skipped;
}

size_t t3_fault_cut(const char *call, size_t bytes)
{
    for (int i = 0; i < ENTRIES; i++) {
        if (!table[i].call || table[i].remaining != 0 || strcmp(table[i].call, call) != 0)
            continue;
        table[i].remaining = -1;
        if ((size_t)table[i].result < bytes)
            bytes = (size_t)table[i].result;
    }
    return bytes;
}
