"""The store: a private folder of one's own, with one folder for each account.

Private means: one's own, mode 0700, and no symlink. What is not so is refused with the line that
mends it, and left alone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from t3_backup.accounts import folder_name, is_user_name, user_of_folder
from t3_backup.errors import StoreError
from t3_backup.store import catalog_file, lock
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.catalog import Catalog, Entry
from t3_backup.store.private_folder import (
    check_private,
    explain_refusal,
    open_own_folder,
    sync_folder,
)
from t3_backup.system import native
from t3_backup.text import quote

# The name of an account folder has no plus: no account can have a folder of such a name.
_ASIDE = "+old"
_LEFTOVER = "+leftover"


@dataclass(frozen=True)
class Store:
    """The folder of all accounts' folders, open."""

    path: Path
    fd: int

    @staticmethod
    def open(path: Path, *, create: bool = False) -> Store:
        """Open the store at `path`, and make it, where asked, if it is not there.

        Raises StoreError where it is not a folder of one's own with mode 0700. An empty folder is
        made private; one with something in it is left as it is, since it may be /tmp.
        """
        if create:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.mkdir(mode=0o700)
                sync_folder(path.parent)
            except FileExistsError:
                pass
            except PermissionError as error:
                raise StoreError(explain_refusal(path, error)) from None
        fd = open_own_folder(path, path)
        try:
            check_private(fd, path, mend=create and not os.listdir(fd))
        except BaseException:
            os.close(fd)
            raise
        return Store(path, fd)

    def lock(self, *, shared: bool = False, wait: float, urgent: bool = False) -> None:
        """Hold the store for this run; an `urgent` one has a proof pause. Raises LockHeld."""
        lock.acquire(self.fd, self.path, shared=shared, wait=wait, urgent=urgent)

    @contextlib.contextmanager
    def locked(self, *, shared: bool = False, wait: float) -> Iterator[None]:
        """Hold the store for a while. Raises LockHeld."""
        self.lock(shared=shared, wait=wait)
        try:
            yield
        finally:
            lock.release(self.fd)

    def users(self) -> list[str]:
        """Return the users who have a folder, sorted."""
        os.lseek(self.fd, 0, os.SEEK_SET)  # btrfs lists what was there when it was last rewound
        with os.scandir(self.fd) as entries:
            folders = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        return sorted(filter(None, map(user_of_folder, folders)))

    def users_with_catalog(self) -> list[str]:
        """Return the users who have, or had, snapshots, as their catalogs say, sorted."""
        return catalog_file.users_with_catalog(self.fd)

    def read_catalog(self, user: str) -> Catalog:
        """Read what is known of a user's snapshots, whether their folder is there or not."""
        return catalog_file.read_catalog(self.fd, user)

    def change_catalog(
        self, user: str, change: Callable[[Mapping[str, Entry]], Iterable[Entry]]
    ) -> None:
        """Write the entries that `change` makes of those of a user, durably. Raises OSError."""
        catalog_file.change_catalog(self.fd, user, change)

    def account_dir(self, user: str, *, create: bool = False) -> AccountDir | None:
        """Open the folder of `user`; None where there is none.

        Raises StoreError where it is not one's own and private.
        """
        if not is_user_name(user):
            return None
        name = folder_name(user)
        path = self.path / name
        if create:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=self.fd)
            # always: whoever made it may have died before this
            native.sync_directory(self.fd, str(self.path))
        # looked at first: opening it may take a right that we don't have
        if self.is_given_away(user, _uid_of(user)):
            raise StoreError(
                f"{path} is {user}'s own, as an earlier script left it: "
                f"t3-backup-state import-legacy {quote(user)} takes it over"
            )
        try:
            fd = open_own_folder(name, path, self.fd)
        except FileNotFoundError:
            return None
        try:
            check_private(fd, path, mend=False)
            # a description of its own: the lock goes with that of the store
            store_fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.fd)
        except BaseException:
            os.close(fd)
            raise
        return AccountDir(user, path, fd, store_fd)

    def is_given_away(self, user: str, uid: int) -> bool:
        """Tell whether the folder is the user's own, as an earlier script made them."""
        try:
            status = os.stat(folder_name(user), dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return stat.S_ISDIR(status.st_mode) and status.st_uid == uid != os.geteuid()

    def set_aside(self, user: str) -> None:
        """Move an account's folder out of the way, for its user to work in.

        Raises OSError.
        """
        self._rename(folder_name(user), folder_name(user) + _ASIDE)

    def list_set_aside(self, user: str) -> list[str]:
        """List the folders of a user that were set aside, and not yet looked through."""
        return self._list_numbered(folder_name(user) + _ASIDE)

    def list_leftovers(self, user: str) -> list[str]:
        """List those that were looked through, and hold what could not be taken over."""
        return self._list_numbered(folder_name(user) + _LEFTOVER)

    def open_set_aside(self, name: str, uid: int) -> int:
        """Open a folder of the user's own (O_PATH), for them to work with.

        Raises StoreError and OSError.
        """
        fd = os.open(
            name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.fd
        )
        if os.fstat(fd).st_uid != uid:
            os.close(fd)
            raise StoreError(f"{self.path / name} does not belong to its user")
        return fd

    def remove_set_aside(self, user: str, name: str) -> Path | None:
        """Remove a folder that was set aside.

        Where something is still in it, name it a leftover and return its path.
        """
        try:
            os.rmdir(name, dir_fd=self.fd)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            return self.path / self._rename(name, folder_name(user) + _LEFTOVER)
        return None

    def _list_numbered(self, name: str) -> list[str]:
        os.lseek(self.fd, 0, os.SEEK_SET)
        return sorted(
            found
            for found in os.listdir(self.fd)
            if re.fullmatch(re.escape(name) + r"(\.\d+)?", found)
        )

    def _rename(self, old: str, new: str) -> str:
        """Give `old` the name `new`, or `new.2` and so on where that is taken."""
        name, again = new, 1
        while True:
            try:
                native.rename_noreplace(self.fd, old, name)
            except FileExistsError:
                again += 1
                name = f"{new}.{again}"
            else:
                native.sync_directory(self.fd, str(self.path))
                return name

    def free_bytes(self) -> int:
        """Return the bytes that may still be written to the store's file system."""
        status = os.fstatvfs(self.fd)
        return status.f_bavail * status.f_frsize

    def total_bytes(self) -> int:
        """Return the bytes that the store's file system holds, free or not."""
        status = os.fstatvfs(self.fd)
        return status.f_blocks * status.f_frsize

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)


def _uid_of(user: str) -> int:
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return os.geteuid()
