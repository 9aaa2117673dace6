"""The live database, found as its owner: where it lies, and that it is what it claims to be.

Descriptors of the database, its -wal or its -shm are opened by SQLite alone: closing any other one
in this process would drop the locks that SQLite holds (POSIX locks belong to the process, not to
the descriptor). Only O_PATH and stat are used beside it.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
import time
from dataclasses import dataclass

from t3_backup.errors import SourceAbsent, SourceError, SourceRefused
from t3_backup.system import native
from t3_backup.system.sqlite import SIDECARS
from t3_backup.t3.databases import KNOWN, name_problem
from t3_backup.t3.files import (
    DATABASE_NAME,
    IMPORT_COPY,
    IMPORT_FOLDER,
    NO_DATABASE,
    STATE_FOLDER,
)
from t3_backup.worker.child.own_processes import read_descriptor

_MOST_IMPORTS = 64  # leftovers that are looked into


@dataclass(frozen=True)
class LiveDatabase:
    """A database found beneath a home: regular, owned by the user, with one name that counts."""

    folder: int  # O_PATH descriptor of the folder that holds it
    path: str  # canonical
    size: int  # bytes of the main file when it was found
    inode: int = 0  # as fdinfo has it; 0: it isn't known

    @property
    def name(self) -> str:
        """Return its name in its folder."""
        return os.path.basename(self.path)

    def wal_bytes(self) -> int:
        """Return the size of the -wal now; 0 where there is none."""
        try:
            return os.stat(self.name + "-wal", dir_fd=self.folder, follow_symlinks=False).st_size
        except FileNotFoundError:
            return 0

    def read_version(self) -> int:
        """Read from its header which format a reader must know; 0 where it is no database.

        No connection to it may be open: closing the file drops its locks. Raises OSError.
        """
        file = native.open_beneath(self.folder, self.name, os.O_RDONLY | os.O_NONBLOCK)
        try:
            header = os.pread(file, 20, 0)
        finally:
            os.close(file)
        return header[19] if header.startswith(b"SQLite format 3\0") and len(header) == 20 else 0

    def journal_state(self) -> tuple[int, int] | None:
        """Return size and time (ns since 1970) of a rollback journal; None: none is there.

        It is another one as soon as a writer is about to change something.
        """
        try:
            status = os.stat(self.name + "-journal", dir_fd=self.folder, follow_symlinks=False)
        except FileNotFoundError:
            return None
        return (status.st_size, status.st_mtime_ns) if status.st_size else None

    def has_journal(self) -> bool:
        """Tell whether a rollback journal is there that holds something.

        Then a writer has changed something, and not yet committed it. In journal_mode=persist one
        stays that is done with: its header is zeroed (sqlite.org/pragma.html).
        """
        if self.journal_state() is None:
            return False
        try:
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW
            file = native.open_beneath(self.folder, self.name + "-journal", flags)
        except FileNotFoundError:
            return False
        except OSError:  # it may hold something
            return True
        try:
            return os.pread(file, 1, 0) not in (b"", b"\0")
        finally:
            os.close(file)  # SQLite has no lock on it

    def holds_nothing(self) -> bool:
        """Tell whether it is an empty file of a name that is none of T3's."""
        return self.size == 0 and self.name not in KNOWN and not self.wal_bytes()

    def changed_ns(self) -> int:
        """Say when it or its -wal changed last, in nanoseconds since 1970.

        An empty -wal is what a reader has made, and says nothing.
        """
        found = 0
        for name in (self.name, self.name + "-wal"):
            with contextlib.suppress(OSError):
                status = os.stat(name, dir_fd=self.folder, follow_symlinks=False)
                if status.st_size:
                    found = max(found, status.st_mtime_ns)
        return found

    def is_quiet(self, seconds: float) -> bool:
        """Tell whether nobody has committed, or is about to, for so many seconds."""
        changed = os.stat(self.name, dir_fd=self.folder, follow_symlinks=False).st_mtime_ns
        if (journal := self.journal_state()) is not None:
            changed = max(changed, journal[1])
        return time.time() - changed / 1e9 >= seconds and not self.has_journal()


def find_database(
    home: str, uid: int, name: str = DATABASE_NAME, state_folder: str = STATE_FOLDER
) -> LiveDatabase:
    """Find a database beneath `home`, following no symlink on the way from there.

    Raises SourceAbsent where there is none, SourceRefused where it is a symlink or lies behind one,
    has a second name, is no regular file or belongs to somebody other than `uid`, and SourceError
    where it is empty.
    """
    folder = find_folder(home, state_folder)
    try:
        return find_in_folder(folder, os.path.join(home, state_folder), uid, name)
    except BaseException:
        os.close(folder)
        raise


def find_folder(home: str, state_folder: str = STATE_FOLDER) -> int:
    """Open the folder beneath `home` that holds the databases, as O_PATH.

    Raises as `find_database` does.
    """
    home_fd = open_home(home)
    try:
        return native.open_beneath(home_fd, state_folder, os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        raise _unreachable(error, os.path.join(home, state_folder)) from None
    finally:
        os.close(home_fd)


def open_home(home: str) -> int:
    """Open a home, as O_PATH. Raises SourceAbsent where there is none, and SourceError."""
    try:
        return os.open(home, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise SourceAbsent(f"no home {home}") from None
    except OSError as error:
        raise SourceError(f"{home}: {error.strerror}") from None


def find_in_folder(folder: int, where: str, uid: int, name: str) -> LiveDatabase:
    """Find the database `name` in the open `folder`, which it keeps.

    `where` that is, is for messages. Raises as `find_database` does.
    """
    path = os.path.join(where, name)
    if problem := name_problem(name):
        raise SourceRefused(f"{path}: {problem}")
    try:
        file = native.open_beneath(folder, name, os.O_PATH | os.O_NOFOLLOW)
    except OSError as error:
        raise _unreachable(error, path) from None
    status, inode = os.fstat(file), read_descriptor("self", str(file))[0]
    os.close(file)  # O_PATH: closing it drops no lock
    require_own_file(status, path, uid, folder)
    _require_files_beside(folder, name, path)
    # The name that the kernel gives has no symlink left in it, so SQLite may be told to follow
    # none.
    real = os.readlink(f"/proc/self/fd/{folder}")
    return LiveDatabase(folder, os.path.join(real, name), status.st_size, inode)


def require_own_file(status: os.stat_result, path: str, uid: int, folder: int) -> None:
    """Raise SourceRefused where `path` in the open `folder` is not one file of the user's own.

    That is: a symlink, no regular file, somebody else's, or one with a second name, unless that is
    what an import has left there.
    """
    if stat.S_ISLNK(status.st_mode):
        raise SourceRefused(f"{path} is a symlink; put the database itself there")
    if not stat.S_ISREG(status.st_mode):
        raise SourceRefused(f"{path} is not a regular file")
    if status.st_uid != uid:
        raise SourceRefused(f"{path} belongs to uid {status.st_uid}, not to uid {uid}")
    if status.st_nlink != 1 and not (
        status.st_nlink == 2 and _is_left_of_import(folder, status, uid)
    ):
        raise SourceRefused(
            f"{path} has {status.st_nlink} names (hard links); "
            "its -wal can belong to only one of them"
        )


def _require_files_beside(folder: int, name: str, path: str) -> None:
    """Raise SourceRefused where what SQLite would open beside a database is no file.

    To open a pipe would have it wait for ever.
    """
    for ending in SIDECARS:
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(name + ending, dir_fd=folder, follow_symlinks=False)
            if not stat.S_ISREG(status.st_mode):
                raise SourceRefused(f"{path}{ending} is not a regular file")


def _is_left_of_import(folder: int, status: os.stat_result, uid: int) -> bool:
    """Tell whether the file's other name is that of a copy which an import has left.

    Nobody opens it by that name: so it has no -wal, -shm or -journal of its own. Nothing is opened
    but folders.
    """
    try:
        return any(_is_copy(folder, name, status, uid) for name in _imports(folder))
    except OSError:
        return False


def _imports(folder: int) -> list[str]:
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        with os.scandir(fd) as entries:
            names = (entry.name for entry in entries if entry.name.startswith(IMPORT_FOLDER))
            return list(itertools.islice(names, _MOST_IMPORTS))
    finally:
        os.close(fd)


def _is_copy(folder: int, name: str, status: os.stat_result, uid: int) -> bool:
    try:
        fd = native.open_beneath(folder, name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:  # no folder, or one that is reached by a symlink
        return False
    try:
        if os.fstat(fd).st_uid != uid:
            return False
        copy = os.stat(IMPORT_COPY, dir_fd=fd, follow_symlinks=False)
        return os.path.samestat(copy, status) and not any(
            _has(fd, IMPORT_COPY + ending) for ending in SIDECARS
        )
    except OSError:
        return False
    finally:
        os.close(fd)


def _has(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _unreachable(error: OSError, path: str) -> SourceError:
    if error.errno == errno.ENOENT:
        return SourceAbsent(NO_DATABASE)
    if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EXDEV):
        return SourceRefused(
            f"{path}: a symlink on the way (or no folder); nothing there is followed"
        )
    return SourceError(f"{path}: {error.strerror}")
