/* confine.c - what a worker process gives up before it reads a user's data: it gains no privileges,
 * dumps no core, cannot be traced by its own user and dies with its parent.
 *
 * Resource limits and the system call filter are set by the worker's Python code.
 */
#include "copier.h"
#include "fault.h"

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

int t3_confine(int parent)
{
    if (T3_CALL(prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return -errno;
    if (T3_CALL(prctl, PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        return -errno;
    if (T3_CALL(prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
        return -errno;
    /* A parent that died before the prctl above sends no signal. */
    return getppid() == parent ? 0 : -ESRCH;
}
