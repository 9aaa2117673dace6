"""Find out who listens on a port, since any user may take one that is free."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

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
    found = list(_listeners(port))
    # Who has taken the very address is asked before who has taken all of them.
    here = [uid for address, uid in found if address in _LOOPBACK]
    return here or [uid for address, uid in found if address in _ANY]


def _listeners(port: int) -> Iterator[tuple[str, int]]:
    """Give address and uid of each listener on this port."""
    for table in _TABLES:
        if table.name == "tcp6" and not table.exists():
            continue  # a kernel without IPv6
        for line in table.read_text(encoding="ascii").splitlines()[1:]:
            # 0: ADDRESS:PORT ADDRESS:PORT STATE QUEUES TIMER RETRANSMITS UID ...
            words = line.split()
            address, _, number = words[1].rpartition(":")
            if words[3] == _LISTEN and int(number, 16) == port:
                yield address, int(words[7])
