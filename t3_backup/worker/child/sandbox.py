"""What a worker gives up for good, after its imports and before it reads one byte of the user's.

The order is the point. A process that changed to the user and was exec'd afterwards can be opened
by every other process of that user (pidfd_getfd, ptrace, /proc/PID/fd), and with it the descriptor
of the new snapshot. So the worker is exec'd as root, and changes here: from then on it is not
dumpable, has no children, execs nothing and can pass no descriptor on.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource

import seccomp

from t3_backup.system import native
from t3_backup.worker.protocol import copy_limit

# Refused with EPERM. Each is a way to hand the descriptor to another process, to allocate blocks
# that RLIMIT_FSIZE doesn't see (fallocate, and the ioctls that do the same), to have memory that no
# limit of a process counts (memfd_create, shmget), to get round this filter (io_uring), or to
# become traceable again (prctl).
_REFUSED = (
    "execve", "execveat", "fork", "vfork", "clone", "clone3",
    "sendmsg", "sendmmsg", "socket", "socketpair", "connect", "bind", "pidfd_getfd",
    "fallocate", "ioctl", "io_uring_setup", "io_uring_enter", "io_uring_register",
    "prctl", "ptrace", "process_vm_readv", "process_vm_writev",
    "perf_event_open", "bpf", "userfaultfd",
    "memfd_create", "shmget", "shmat",
    "unshare", "setns", "mount", "umount2", "pivot_root", "chroot",
    "keyctl", "add_key", "request_key",
    "setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setgroups",
    "linkat", "link",
)  # fmt: skip

_FICLONE = 0x40049409  # ioctl_ficlonerange(2), as linux/fs.h has it
_DATA_LIMIT = 512 << 20  # bytes of heap and private memory
_OPEN_FILES = 128  # of a database four: itself, -wal, -shm, and its copy
# Address space beside the map of a database: Python, its libraries, and what RLIMIT_DATA allows.
_SELF_BYTES = 1 << 30


def become_user(uid: int, gid: int, groups: tuple[int, ...]) -> None:
    """Change to the user, with no way back.

    Raises OSError, and RuntimeError if a way back is left.
    """
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    for call, value in ((os.setuid, 0), (os.setgid, 0)):
        with contextlib.suppress(PermissionError):
            call(value)
            raise RuntimeError("root's rights could be regained after they were dropped")


def confine_process(parent: int) -> None:
    """Take new privileges and tracing away, die with the parent, set small limits.

    Raises OSError.
    """
    native.confine(parent)
    os.umask(0o077)
    for what, limit in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_DATA, _DATA_LIMIT),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
    ):
        lower_limit(what, limit)


def lower_limit(what: int, limit: int) -> None:
    """Set a limit (soft and hard), never above the hard one in force."""
    _, hard = resource.getrlimit(what)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(what, (limit, limit))


def limit_file_size(source_bytes: int) -> None:
    """Let no file grow past what the copy of a source of that size can need."""
    lower_limit(resource.RLIMIT_FSIZE, copy_limit(source_bytes))


def limit_memory(mapped_bytes: int) -> None:
    """Let the process have that much address space beside its own."""
    lower_limit(resource.RLIMIT_AS, _SELF_BYTES + mapped_bytes)


def filter_calls(*, clones: bool = False) -> None:
    """Let the system calls of `_REFUSED` answer EPERM from now on.

    It is the last step, and holds for each thread. Raises OSError. `clones`: one file may be made
    to share the extents of another (FICLONE), which allocates nothing.
    """
    calls = seccomp.SyscallFilter(seccomp.ALLOW)
    calls.set_attr(seccomp.Attr.CTL_TSYNC, 1)
    for name in _REFUSED:
        arguments = [seccomp.Arg(1, seccomp.NE, _FICLONE)] if clones and name == "ioctl" else []
        calls.add_rule(seccomp.ERRNO(errno.EPERM), name, *arguments)
    calls.load()
