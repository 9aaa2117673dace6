"""Try, as a worker that has given up its rights, to get something back or to hand something on.

Usage: PACKAGE UID GID FOLDER HOME all|nothing. It begins as root, with a descriptor of an unnamed
file in FOLDER, and becomes the user; `all` gives up besides what a worker gives up. Prints a JSON
object: each thing that it tried, and `done` or the name of the error.
"""

import ctypes
import errno
import fcntl
import json
import os
import socket
import sys
import threading
from collections.abc import Callable

_PR_SET_DUMPABLE, _KEEP_SIZE, _FICLONE = 4, 1, 0x40049409
_EXECVEAT, _IO_URING_SETUP, _CLONE3 = 322, 425, 435
_AT_FDCWD, _AT_EMPTY_PATH, _AT_SYMLINK_FOLLOW = -100, 0x1000, 0x400

_libc = ctypes.CDLL(None, use_errno=True)
_got: dict[str, str] = {}


def _attempt(name: str, step: Callable[[], object]) -> None:
    try:
        step()
        _got[name] = "done"
    except OSError as error:
        _got[name] = errno.errorcode[error.errno or 0]
    except MemoryError:
        _got[name] = "ENOMEM"


def _call(name: str, result: int) -> None:
    _got[name] = errno.errorcode[ctypes.get_errno()] if result < 0 else "done"


def _fork() -> None:
    if (pid := os.fork()) == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def _try_what_the_filter_refuses(fd: int, ours: socket.socket) -> None:
    call = _libc.syscall
    room = ctypes.create_string_buffer(256)
    _attempt("fork", _fork)
    _attempt("execve", lambda: os.execv("/nonexistent", ["x"]))
    _call("execveat", call(_EXECVEAT, -1, b"/nonexistent", None, None, 0))
    _call("clone3", call(_CLONE3, None, 0))
    _attempt("pass the descriptor on", lambda: socket.send_fds(ours, [b"x"], [fd]))
    _attempt("a new socket", lambda: socket.socket(socket.AF_UNIX).close())
    size = ctypes.c_long(1 << 20)
    _call("fallocate", _libc.fallocate(fd, _KEEP_SIZE, ctypes.c_long(0), size))
    _attempt("ioctl", lambda: fcntl.ioctl(fd, _FICLONE, fd))
    _call("io_uring_setup", call(_IO_URING_SETUP, 1, room))
    _call("become dumpable", _libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0))
    _call("ptrace", _libc.ptrace(0, 0, None, None))


def _try_in_a_thread(begun: threading.Event) -> None:
    """Try it in a thread that was there before anything was given up."""
    begun.wait()
    _attempt("a new socket, in a thread", lambda: socket.socket(socket.AF_UNIX).close())
    _attempt("setuid, in a thread", lambda: os.setuid(0))


def _try_what_more_than_the_filter_refuses(fd: int, ids: tuple[int, int], folder: str) -> None:
    home = sys.argv[5]
    name, link = f"{home}/mine".encode(), f"/proc/self/fd/{fd}".encode()
    linkat = _libc.linkat
    _call("name the file", linkat(fd, b"", _AT_FDCWD, name, _AT_EMPTY_PATH))
    followed = linkat(_AT_FDCWD, link, _AT_FDCWD, name, _AT_SYMLINK_FOLLOW)
    _call("name the file by way of /proc", followed)
    _call("name the link in /proc", _libc.link(link, name))
    _attempt("setuid", lambda: os.setuid(0))
    _attempt("setgroups", lambda: os.setgroups([0]))
    _attempt("open the file again", lambda: os.open(link, os.O_RDWR))
    _attempt("chmod the file", lambda: os.fchmod(fd, 0o666))
    _attempt("chown the file", lambda: os.fchown(fd, *ids))
    _attempt("reach the store", lambda: os.listdir(folder))


def main() -> None:
    package, uid, gid, folder, _, gives_up = sys.argv[1:]
    sys.path.insert(0, package)
    from t3_backup.worker.child import sandbox, vfs  # noqa: PLC0415 - it is found by now

    ids = int(uid), int(gid)
    fd = os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o400)
    ours, _theirs = socket.socketpair()
    begun = threading.Event()
    watch = threading.Thread(target=_try_in_a_thread, args=(begun,))
    watch.start()
    sandbox.become_user(*ids, ())
    if gives_up == "all":
        vfs.register_vfs()
        sandbox.confine_process(os.getppid())
        sandbox.filter_calls()
    begun.set()
    watch.join()
    _try_what_the_filter_refuses(fd, ours)
    _try_what_more_than_the_filter_refuses(fd, ids, folder)
    _attempt("a gigabyte of memory", lambda: bytearray(1 << 30))
    _attempt("write", lambda: os.pwrite(fd, b"still mine", 0))
    print(json.dumps(_got))


if __name__ == "__main__":
    main()
