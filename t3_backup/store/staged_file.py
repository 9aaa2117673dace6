"""A new file in the store before it has a name: nobody else can write to it, and it is on the disk.

The order protects against a worker that lies and a disk that fails. The reading descriptor is
opened before the first write, because the kernel tells of a lost write-back once for each open
file: one opened later can sync "successfully" over data that was never written. The lease is
granted only when no process anywhere can write to the file any more.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import stat
import time
from dataclasses import dataclass, field
from typing import Self

from t3_backup.errors import StoreError, WorkerLost
from t3_backup.system import native
from t3_backup.system.deadline import Deadline

# another account's child may hold a copy of the descriptor between fork and exec
_LEASE_SECONDS = 10
_LEASE_POLL_S = 0.005


@dataclass
class StagedFile:
    """An unnamed file, or one with a partial name where there is no such thing."""

    folder: int  # descriptor of the folder it is in
    writer: int  # -1 once it is settled
    reader: int
    partial: str | None
    _named: bool = field(default=False)

    @staticmethod
    def create(folder: int, partial: str) -> StagedFile:
        """Make a new one in `folder`, mode 0400.

        `partial` is its name where it must have one. Raises OSError.
        """
        named: str | None = None
        try:
            writer = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o400, dir_fd=folder)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT):
                raise
            named = partial
            writer = os.open(
                partial, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o400, dir_fd=folder
            )
        try:
            reader = os.open(f"/proc/self/fd/{writer}", os.O_RDONLY | os.O_CLOEXEC)
        except BaseException:
            os.close(writer)
            raise
        return StagedFile(folder, writer, reader, named)

    def settle(self) -> None:
        """End all writing, for everybody, and bring the bytes to the disk.

        Nobody can write to it until it is closed. Raises WorkerLost where somebody can still write
        to it or has given it a name, StoreError where the file system has no leases, and OSError
        where the disk failed.
        """
        if self.writer >= 0:
            os.close(self.writer)
            self.writer = -1
        self._take_lease()
        status = os.fstat(self.reader)
        if (
            status.st_uid != os.geteuid()
            or stat.S_IMODE(status.st_mode) != 0o400
            or not stat.S_ISREG(status.st_mode)
            or status.st_nlink != (0 if self.partial is None else 1)
        ):
            raise WorkerLost(
                "the new snapshot has another owner, mode or name than it was given; "
                "it is thrown away"
            )
        native.sync_file(self.reader, "the new snapshot")

    def open(self) -> int:
        """Open it read-only once more, to be given away.

        Nothing done with that reaches the lease. Raises OSError.
        """
        return os.open(f"/proc/self/fd/{self.reader}", os.O_RDONLY | os.O_CLOEXEC)

    def _take_lease(self) -> None:
        deadline = Deadline.after(_LEASE_SECONDS)
        # Who opens it for writing makes the kernel signal us. SIGIO, the usual one, would end the
        # run; SIGURG is passed over.
        fcntl.fcntl(self.reader, fcntl.F_SETSIG, signal.SIGURG)
        while True:
            try:
                fcntl.fcntl(self.reader, fcntl.F_SETLEASE, fcntl.F_RDLCK)
                return
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise StoreError(
                        f"the store's file system grants no leases ({error.strerror}); "
                        "use ext4, xfs or btrfs"
                    ) from None
            if deadline.passed():
                raise WorkerLost(
                    "a process can still write to the new snapshot after its worker's end; "
                    "it is thrown away"
                )
            time.sleep(_LEASE_POLL_S)

    def name_as(self, name: str) -> None:
        """Give it its name, never over another. Raises OSError."""
        if self.partial is None:
            native.link_unnamed(self.reader, self.folder, name)
        else:
            native.rename_noreplace(self.folder, self.partial, name)
        self._named = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._named:
            # The proof and the hash wanted it in memory; from now on its pages would only push out
            # those of the users' servers.
            with contextlib.suppress(OSError):
                os.posix_fadvise(self.reader, 0, 0, os.POSIX_FADV_DONTNEED)
        elif self.partial is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.partial, dir_fd=self.folder)
        if self.writer >= 0:
            os.close(self.writer)
        os.close(self.reader)
