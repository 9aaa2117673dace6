"""Where snapshots lie: a private folder of one's own, with one shelf an account.

Private means: one's own, mode 0700, and no symlink. What is not so is refused with the line that mends it, and left alone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from t3_backup import copier, lock
from t3_backup.accounts import is_user_name
from t3_backup.errors import StoreError
from t3_backup.shelf import Shelf

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Store:
    """The folder of all shelves, open."""

    path: Path
    fd: int

    @staticmethod
    def open(path: Path, *, create: bool = False) -> Store:
        """The store at `path`; made, where asked, if it is not there.

        Raises StoreError where it is not a folder of one's own with mode 0700. An empty folder is made private; one with
        something in it is left as it is, since it may be /tmp.
        """
        if create:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.mkdir(mode=0o700)
                _sync_folder(path.parent)
            except FileExistsError:
                pass
            except PermissionError as error:
                raise StoreError(_why_not_open(path, error)) from None
        try:
            fd = os.open(path, _FOLDER)
        except OSError as error:
            raise StoreError(_why_not_open(path, error)) from None
        try:
            _must_be_private(fd, path, mend=create and not os.listdir(fd))
        except BaseException:
            os.close(fd)
            raise
        return Store(path, fd)

    def lock(self, *, shared: bool = False, wait: float) -> None:
        """Hold the store for this run. Raises LockHeld."""
        lock.acquire(self.fd, self.path, shared=shared, wait=wait)

    @contextlib.contextmanager
    def locked(self, *, shared: bool = False, wait: float) -> Iterator[None]:
        """Hold the store for a while. Raises LockHeld."""
        self.lock(shared=shared, wait=wait)
        try:
            yield
        finally:
            lock.release(self.fd)

    def users(self) -> list[str]:
        """Who has a shelf."""
        os.lseek(self.fd, 0, os.SEEK_SET)  # btrfs lists what was there when it was last rewound
        with os.scandir(self.fd) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False) and is_user_name(entry.name))

    def shelf(self, user: str, *, create: bool = False) -> Shelf | None:
        """The shelf of `user`; None where there is none. Raises StoreError where it is not one's own and private."""
        if not is_user_name(user):
            return None
        path = self.path / user
        if create:
            with contextlib.suppress(FileExistsError):
                os.mkdir(user, 0o700, dir_fd=self.fd)
            copier.sync_directory(self.fd, str(self.path))  # always: whoever made it may have died before this
        try:
            fd = os.open(user, _FOLDER, dir_fd=self.fd)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(_why_not_open(path, error)) from None
        try:
            _must_be_private(fd, path, mend=False)
        except BaseException:
            os.close(fd)
            raise
        return Shelf(user, path, fd)

    def free_bytes(self) -> int:
        """Bytes that may still be written to the store's file system."""
        status = os.fstatvfs(self.fd)
        return status.f_bavail * status.f_frsize

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)


def _sync_folder(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        copier.sync_directory(fd, str(path))
    finally:
        os.close(fd)


def _why_not_open(path: Path, error: OSError) -> str:
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        return f"{path} is a symlink or no folder; it is not followed: remove it, or name another store by --dest"
    if error.errno == errno.ENOENT:
        return f"no store at {path}; the first run makes it (or name another by --dest or T3_BACKUP_DEST)"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{path} is not yours to open; name a store of your own by --dest"
    return f"{path}: {error.strerror}"


def _must_be_private(fd: int, path: Path, *, mend: bool) -> None:
    status = os.fstat(fd)
    me = os.geteuid()
    if status.st_uid != me:
        raise StoreError(
            f"{path} belongs to uid {status.st_uid}, not to uid {me}: what its owner can change is no backup; "
            f"move it out of the way (mv {path} {path.parent}.{path.name}.old), or, if you have just copied it here "
            f"yourself, make it yours (chown -R)"
        )
    if stat.S_IMODE(status.st_mode) & 0o077:
        if not mend:
            raise StoreError(
                f"{path} is open to others (mode {stat.S_IMODE(status.st_mode):04o}); if it is the store: chmod 0700 {path}"
            )
        os.fchmod(fd, 0o700)
