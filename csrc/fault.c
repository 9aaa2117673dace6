/* fault.c - the table of faults that a test has chosen (fault.h). Each fault happens once. The
 * table is not thread safe, and a normal build does not contain it.
 */
#include "fault.h"

#include <errno.h>
#include <string.h>

enum { MAX_FAULTS = 16 };

static struct {
    const char *call; /* NULL: a free entry */
    int remaining;    /* calls until it happens; 0: it happens now; negative: it has happened */
    int result;
} table[MAX_FAULTS];

void t3_fault_set(const char *call, int nth, int result)
{
    for (int i = 0; i < MAX_FAULTS; i++) {
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

    for (int i = 0; i < MAX_FAULTS; i++)
        unused += table[i].call && table[i].remaining >= 0;
    memset(table, 0, sizeof table);
    return unused;
}

int t3_fault_replaces(const char *call)
{
    int replaced = 0;

    for (int i = 0; i < MAX_FAULTS; i++) {
        if (!table[i].call || table[i].remaining < 0 || strcmp(table[i].call, call) != 0)
            continue;
        table[i].remaining--;
        if (table[i].remaining == 0 && table[i].result < 0) {
            table[i].remaining = -1;
            errno = table[i].result == T3_FAULT_SUCCESS ? 0 : -table[i].result;
            replaced = 1;
        }
    }
    return replaced;
}

size_t t3_fault_limit(const char *call, size_t bytes)
{
    for (int i = 0; i < MAX_FAULTS; i++) {
        if (!table[i].call || table[i].remaining != 0 || strcmp(table[i].call, call) != 0)
            continue;
        table[i].remaining = -1;
        if ((size_t)table[i].result < bytes)
            bytes = (size_t)table[i].result;
    }
    return bytes;
}
