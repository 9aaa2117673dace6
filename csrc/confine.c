/* confine.c - what a worker gives up before it reads an account's bytes. It promises that the
 * process gains no privileges, leaves no core, can't be traced by its own user and dies with its
 * parent. It sets no limits and no system call filter; the worker does that itself.
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
    /* A parent that died before the signal was asked for sends none. */
    return getppid() == parent ? 0 : -ESRCH;
}
