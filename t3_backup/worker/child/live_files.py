"""The folder of live databases, for whoever puts others there.

Runs as its owner. No symlink is followed on the way. A descriptor of the database is opened here
only while this process has no SQLite connection to it: closing one would drop SQLite's locks.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from t3_backup.errors import Failure, InUse, SourceAbsent, SourceError, SourceRefused
from t3_backup.system import native
from t3_backup.system.access import may_access
from t3_backup.system.file_identity import FileIdentity, ProcFile
from t3_backup.system.sqlite import SIDECARS
from t3_backup.t3.files import STATE_FOLDER
from t3_backup.worker.child.own_processes import identify
from t3_backup.worker.child.source import open_home, require_own_file
from t3_backup.worker.operations import Job

_ACCESS = "system.posix_acl_access"
PROBE = ".probe"  # ending of what is made beside what is staged, to see what can be done there
_T3_MODE = 0o644  # T3's own, where there is no file to take it from


@dataclass(frozen=True)
class LiveFiles:
    """The folder of an account's databases, open."""

    folder: int
    folder_path: str  # canonical
    uid: int

    @staticmethod
    def open(
        home: str, uid: int, state_folder: str = STATE_FOLDER, *, create: bool = False
    ) -> LiveFiles:
        """Open the `state_folder` beneath `home`; folders on the way are made where asked.

        Raises SourceRefused for a symlink on the way. SourceAbsent where there is none, SourceError
        where it can't be reached.
        """
        home_fd = open_home(home)
        try:
            if create:
                _make_folders(home_fd, state_folder)
            folder = native.open_beneath(home_fd, state_folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            where = os.path.join(home, state_folder)
            if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EXDEV):
                raise SourceRefused(
                    f"{where}: a symlink on the way (or no folder); nothing there is followed"
                ) from None
            if error.errno == errno.ENOENT:
                raise SourceAbsent(f"there is no {where}") from None
            raise SourceError(f"{where}: {error.strerror}") from None
        finally:
            os.close(home_fd)
        return LiveFiles(folder, os.readlink(f"/proc/self/fd/{folder}"), uid)

    @staticmethod
    def of(job: Job, *, create: bool = False) -> LiveFiles:
        """Open the folder of whom the job is about. Raises as `open` does."""
        return LiveFiles.open(job.home, job.uid, job.state_folder, create=create)

    def path_of(self, name: str) -> str:
        """Return the path of a name in its folder."""
        return os.path.join(self.folder_path, name)

    def identity(self, name: str) -> FileIdentity | None:
        """Return what has that name; None where nothing has.

        Raises SourceRefused where it is not the user's own regular file.
        """
        try:
            status = os.stat(name, dir_fd=self.folder, follow_symlinks=False)
        except FileNotFoundError:
            return None
        require_own_file(status, self.path_of(name), self.uid, self.folder)
        return FileIdentity.of(status)

    def proc_file(self, name: str) -> ProcFile | None:
        """Return what has that name, as /proc knows it; None where that can't be told."""
        try:
            fd = native.open_beneath(self.folder, name, os.O_PATH | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            return ProcFile(*identify(fd))
        finally:
            os.close(fd)  # O_PATH: it drops no lock

    def sidecars(self, name: str) -> list[str]:
        """List the endings (of SIDECARS) of what lies beside `name`, whatever it is."""
        return [ending for ending in SIDECARS if self.has(name + ending)]

    def has(self, name: str) -> bool:
        """Tell whether there is such a name."""
        try:
            os.stat(name, dir_fd=self.folder, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def is_file(self, name: str) -> bool:
        """Tell whether a regular file has that name."""
        try:
            return stat.S_ISREG(os.stat(name, dir_fd=self.folder, follow_symlinks=False).st_mode)
        except FileNotFoundError:
            return False

    def is_writable(self, name: str) -> bool:
        """Tell whether its owner may write to what has that name."""
        return may_access(self.folder, name, os.W_OK)

    def has_content(self, name: str) -> bool:
        """Tell whether something of that name is there that is no empty file."""
        try:
            status = os.stat(name, dir_fd=self.folder, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return status.st_size > 0 or not stat.S_ISREG(status.st_mode)

    def modified_ns(self, name: str) -> int:
        """Say when what has that name was written to last, in nanoseconds since 1970.

        0 where nothing has.
        """
        try:
            status = os.stat(name, dir_fd=self.folder, follow_symlinks=False)
        except FileNotFoundError:
            return 0
        return max(0, status.st_mtime_ns)

    def is_hot(self, name: str) -> bool:
        """Tell whether a journal holds what is to be rolled back.

        One with a zeroed header (journal_mode=persist) is done with.
        """
        if not self.has_content(name):
            return False
        try:
            fd = os.open(
                name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self.folder
            )
        except OSError:
            return True
        try:
            return os.pread(fd, 1, 0) != b"\0"
        except OSError:  # a folder
            return True
        finally:
            os.close(fd)

    def drop_empty(self, name: str) -> None:
        """Remove what holds nothing beside the database `name`, which nobody may have open.

        That is a -wal or -journal that is done with, a -shm without a -wal.
        """
        wal, index, journal = (name + ending for ending in SIDECARS)
        if not self.has_content(wal):
            self.remove(wal)
        if not self.is_hot(journal):
            self.remove(journal)
        if not self.has(wal) and self.is_file(index):
            self.remove(index)

    def remove(self, name: str) -> None:
        """Remove a name; where there is none, the disk is not written to. Raises OSError."""
        if self.has(name):
            os.unlink(name, dir_fd=self.folder)

    def create(self, name: str, live: str = "", like: FileIdentity | None = None) -> int:
        """Make a new file with the owner, group, mode and access list of the database `live`.

        That one was seen as `like`; None: there is none. Raises SourceError where its group can't
        be had, OSError.
        """
        mode = _T3_MODE if like is None else like.mode & 0o777
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
        # Nobody but the owner reads it before it has its group.
        fd = os.open(name, flags, mode & 0o600, dir_fd=self.folder)
        try:
            if like is not None and os.fstat(fd).st_gid != like.gid:
                os.fchown(fd, -1, like.gid)
            os.fchmod(fd, mode)
            if like is not None:
                self._copy_access(fd, live, mode)
        except PermissionError:
            os.close(fd)
            self.remove(name)
            raise SourceError(
                f"{self.path_of(live)} has a group ({like and like.gid}) that its user is not in: "
                "chgrp it to one of theirs"
            ) from None
        except OSError as error:
            os.close(fd)
            self.remove(name)
            raise OSError(error.errno, error.strerror, self.path_of(name)) from error
        return fd

    def _copy_access(self, fd: int, name: str, mode: int) -> None:
        """Copy the access list (acl(5)), too.

        Without it, the bits of the group, which are its mask, would mean more.
        """
        try:
            live = native.open_beneath(self.folder, name, os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            return
        try:
            access = os.getxattr(live, _ACCESS)
        except OSError:  # none, or the file system has no such thing
            return
        finally:
            os.close(live)
        try:
            os.setxattr(fd, _ACCESS, access)
        except OSError:
            os.fchmod(fd, mode & ~0o070)

    def sync(self) -> None:
        """Wait until the names are on the disk. Raises OSError."""
        native.sync_directory(self.folder, self.folder_path)

    def sync_staged_files(self, name: str) -> None:
        """Wait until the folder `name` of staged files is on the disk, and those in it.

        Raises OSError.
        """
        for path in (f"{name}/new", f"{name}/old", name):
            if self.has(path):
                fd = native.open_beneath(self.folder, path, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    native.sync_directory(fd, path)
                finally:
                    os.close(fd)

    @contextlib.contextmanager
    def hold_lease(self, name: str) -> Iterator[Lease]:
        """Hold a write lease on the file of that name (fcntl(2)).

        Nobody has it open, and who opens it from now on waits. Raises InUse where somebody has it
        open, Failure where the file system knows no leases, OSError.
        """
        fd = native.open_beneath(self.folder, name, os.O_RDONLY | os.O_NONBLOCK)
        try:
            # SIGIO, the usual one, would end this process
            fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
            try:
                fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            except OSError as error:
                if error.errno in (errno.EAGAIN, errno.EACCES):
                    raise InUse(f"{self.path_of(name)} is open in another process") from None
                raise Failure(
                    f"{self.folder_path}: its file system grants no leases ({error.strerror}), so "
                    "whether it is open is unknown"
                ) from None
            yield Lease(fd, self.path_of(name))
        finally:
            os.close(fd)


@dataclass(frozen=True)
class Lease:
    """A write lease that is held."""

    fd: int
    path: str

    def holds(self) -> bool:
        """Tell whether nobody has tried to open the file since.

        Whoever does waits, and has what is swapped.
        """
        return fcntl.fcntl(self.fd, fcntl.F_GETLEASE) == fcntl.F_WRLCK

    def require_held(self) -> None:
        """Raise InUse where somebody has tried to open it."""
        if not self.holds():
            raise InUse(f"{self.path} was opened by another process in between")

    def require_same(self, expected: FileIdentity) -> None:
        """Raise InUse where anything was done to the file since `expected` was seen."""
        if FileIdentity.of(os.fstat(self.fd)) != expected:
            raise InUse(f"{self.path} was changed by another process in between")


def _make_folders(home: int, state_folder: str) -> None:
    at = home
    for name in state_folder.split("/"):
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o755, dir_fd=at)
        below = native.open_beneath(at, name, os.O_PATH | os.O_DIRECTORY)
        if at != home:
            os.close(at)
        at = below
    os.close(at)
