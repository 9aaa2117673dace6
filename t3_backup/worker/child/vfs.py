"""Write and read the copy through the C VFS over an inherited descriptor."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import apsw

from t3_backup.system import native
from t3_backup.system.native import check_result, ffi, lib

_WHAT = "the new snapshot"  # what a destination's failures are about, for people


@dataclass(frozen=True, slots=True)
class Counters:
    """What went through a destination since its last reset, in bytes.

    `error` is a positive errno, 0 if all is well.
    """

    written: int
    synced: int
    read: int
    error: int


def register_vfs(connection: apsw.Connection | None = None) -> None:
    """Register the VFS `t3copy` in the SQLite that apsw carries; again is harmless.

    It stays for the life of the process. Raises `apsw.Error` where that SQLite refuses extensions,
    or where another SQLite of this process has the VFS.
    """
    if connection is not None:
        native.register_vfs(connection)
        return
    with closing(apsw.Connection(":memory:")) as carrier:
        native.register_vfs(carrier)


class Destination:
    """A private file in which SQLite writes and proves a copy.

    It does so through the VFS `t3copy` (see `register_vfs`). One thread at a time may use it. The
    copy may be believed only after `finish` returned: SQLite ignores what closing a file says.
    Connections to it need `temp_store=MEMORY` if nothing may be written elsewhere.
    """

    def __init__(self, fd: int, progress_fd: int = -1) -> None:
        """Take `fd`, open for reading and writing.

        Progress lines (JSON) go to `progress_fd` every half second. A pipe for progress should not
        block. Raises `OSError`: ENOMEM, or EEXIST if `fd` is a destination already.
        """
        pointer = lib.t3_destination_new(fd, progress_fd)
        if not pointer:
            raise OSError(ffi.errno, os.strerror(ffi.errno))
        self._pointer: Any = pointer
        self._fd = fd

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def fd(self) -> int:
        """Return the descriptor that it was made of."""
        return self._fd

    @property
    def _open(self) -> Any:
        if self._pointer is None:
            raise ValueError("the destination is closed")
        return self._pointer

    def uri(self, **parameters: str | int) -> str:
        """Return what to open, or to VACUUM INTO.

        `parameters` are SQLite's own, as `mode="ro"`; nothing in them is escaped.
        """
        words = [f"{name}={value}" for name, value in parameters.items()]
        return f"file:t3copy-{self._fd}?{'&'.join(['vfs=t3copy', *words])}"

    @property
    def sealed_uri(self) -> str:
        """Return what to open to prove the copy.

        Read-only and immutable, so without sidecars whatever its header says.
        """
        return self.uri(mode="ro", immutable=1)

    @property
    def counters(self) -> Counters:
        """Return what happened up to now. `error` is the first failure and stays."""
        now = lib.t3_destination_counters(self._open)
        return Counters(written=now.written, synced=now.synced, read=now.read, error=-now.error)

    def reset(self) -> None:
        """Empty the file; forget counters, error and cancellation.

        No connection may have it open. Raises `OSError` if the file can't be truncated.
        """
        check_result(lib.t3_destination_reset(self._open), _WHAT)

    def finish(self) -> None:
        """Write what is still gathered, and wait until the disk has it all.

        It is no fsync. Raises `OSError`: the first failure of any write since the last reset;
        ECANCELED.
        """
        check_result(lib.t3_destination_finish(self._open), _WHAT)

    def close(self) -> None:
        """Forget the destination; the descriptor stays open. Again is harmless.

        No connection may have it open.
        """
        if self._pointer is not None:
            lib.t3_destination_free(self._pointer)
            self._pointer = None
