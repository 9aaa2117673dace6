"""Runs in the machine as the service does, in its place, and tells in JSON what it could do.
Standard library alone."""

import ctypes
import errno
import json
import os
import shutil
import socket
import stat
import subprocess
import sys

LIBC = ctypes.CDLL(None, use_errno=True)
_ENOUGH = 100  # what the journal takes in one line is bounded
_PTRACE_SEIZE = 0x4206
_CLONE_NEWUSER = 0x10000000


def attempt(what, *arguments):
    """The name of the error, or "done"."""
    try:
        what(*arguments)
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error.errno))
    return "done"


def call(name, *arguments):
    if getattr(LIBC, name)(*arguments) == -1:
        raise OSError(ctypes.get_errno(), "")


def make_file(folder):
    path = os.path.join(folder, ".probe")
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    os.unlink(path)


def open_to_write(path):
    os.close(os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK))


def writable():
    """Every folder in which a file can be made, and every file elsewhere that can be opened to be
    written; nothing is changed."""
    folders, files, unlistable = [], [], []
    for folder, names, others in os.walk(
        "/", onerror=lambda error: unlistable.append(error.filename)
    ):
        if folder == "/proc":
            names[:] = [name for name in names if not name.isdigit() and name != "self"]
        if attempt(make_file, folder) == "done":
            folders.append(folder)
            continue
        for name in others:
            path = os.path.join(folder, name)
            try:
                mode = os.lstat(path).st_mode
            except OSError:
                continue
            if stat.S_ISREG(mode) and attempt(open_to_write, path) == "done":
                files.append(path)
    folders += [folder for folder in unlistable if attempt(make_file, folder) == "done"]
    return {
        "folders": folders[:_ENOUGH],
        "files": files[:_ENOUGH],
        "unlistable": unlistable[:_ENOUGH],
    }


def execute(folder):
    """Run a program from there: the one that lies there, or a copy."""
    path = os.path.join(folder, "program")
    if not os.path.exists(path) and os.access(folder, os.W_OK):
        shutil.copy("/usr/bin/true", path)
    subprocess.run([path], check=True)


def sockets():
    families = {
        "AF_INET": socket.AF_INET,
        "AF_INET6": socket.AF_INET6,
        "AF_NETLINK": socket.AF_NETLINK,
        "AF_UNIX": socket.AF_UNIX,
    }
    return {
        name: attempt(socket.socket, family, socket.SOCK_DGRAM) for name, family in families.items()
    }


def main(execute_from):
    with open("/proc/self/status") as lines:
        status = dict(line.split(":", 1) for line in lines)
    report = {
        "writable": writable(),
        "execute": {folder: attempt(execute, folder) for folder in execute_from},
        "sockets": sockets(),
        "capabilities": {
            name: int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")
        },
        "no_new_privileges": status["NoNewPrivs"].strip(),
        "mount": attempt(call, "mount", b"none", b"/mnt", b"tmpfs", 0, 0),
        "ptrace": attempt(call, "ptrace", _PTRACE_SEIZE, 1, 0, 0),
        # which needs no capability
        "affinity": attempt(os.sched_setaffinity, 0, os.sched_getaffinity(0)),
        "namespace": attempt(call, "unshare", _CLONE_NEWUSER),
        "setuid": attempt(os.seteuid, 65534),
    }
    print(json.dumps(report))


main(sys.argv[1:])
