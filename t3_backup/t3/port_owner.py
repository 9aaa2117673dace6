"""Find out who listens on a port, since any user may take one that is free."""

from __future__ import annotations

import contextlib
import os
import pwd
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from t3_backup.t3.members import describe_process

_TABLES = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))  # proc_net_tcp(5)
_LISTEN = "0A"


def _as_kernel_writes(packed: bytes) -> str:
    """Write an address as the kernel does there, in words of its own byte order."""
    words = (packed[at : at + 4] for at in range(0, len(packed), 4))
    return "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words)


_LOOPBACK = (
    _as_kernel_writes(socket.inet_aton("127.0.0.1")),
    _as_kernel_writes(socket.inet_pton(socket.AF_INET6, "::ffff:127.0.0.1")),
)
_ANY = (_as_kernel_writes(bytes(4)), _as_kernel_writes(bytes(16)))


def listener_uids(port: int) -> list[int]:
    """List the uids that listen on this port of 127.0.0.1.

    Raises OSError where the kernel does not say.
    """
    return [one.uid for one in _find_listeners(port)]


def describe_other(port: int, owner: int) -> str:
    """Name who else than `owner` or root listens on this port of 127.0.0.1; empty for nobody.

    Such as `mallory (uid 1005), nc (pid 4711)`; the process is left out where /proc does not show
    it. Raises OSError.
    """
    others = [one for one in _find_listeners(port) if one.uid not in (owner, 0)]
    if not others:
        return ""
    who = f"uid {others[0].uid}"
    with contextlib.suppress(KeyError):
        who = f"{pwd.getpwuid(others[0].uid).pw_name} ({who})"
    process = _find_process(others[0].inode)
    return f"{who}, {describe_process(process)}" if process else who


class _Listener(NamedTuple):
    address: str  # as the kernel writes it
    uid: int
    inode: int  # of its socket


def _find_listeners(port: int) -> list[_Listener]:
    found = list(_listeners(port))
    # Who has taken the very address is asked before who has taken all of them.
    here = [one for one in found if one.address in _LOOPBACK]
    return here or [one for one in found if one.address in _ANY]


def _find_process(inode: int) -> int:
    """Find a process that has this socket open; 0 where none is to be seen."""
    link = f"socket:[{inode}]"
    for process in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        folder = f"/proc/{process}/fd"
        with contextlib.suppress(OSError):
            for name in os.listdir(folder):
                with contextlib.suppress(OSError):
                    if os.readlink(f"{folder}/{name}") == link:  # a text, and nothing is followed
                        return process
    return 0


def _listeners(port: int) -> Iterator[_Listener]:
    """Give each listener on this port."""
    for table in _TABLES:
        if table.name == "tcp6" and not table.exists():
            continue  # a kernel without IPv6
        for line in table.read_text(encoding="ascii").splitlines()[1:]:
            # 0: ADDRESS:PORT ADDRESS:PORT STATE QUEUES TIMER RETRANSMITS UID TIMEOUT INODE ...
            words = line.split()
            address, _, number = words[1].rpartition(":")
            if words[3] == _LISTEN and int(number, 16) == port:
                yield _Listener(address, int(words[7]), int(words[9]))
