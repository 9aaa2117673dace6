"""Know a store again: by a mark in it, whose identity is remembered outside of it.

A disk that is not mounted leaves an empty folder, and another disk another store. A run that began
anew there would call all well, with every snapshot out of sight. Who only reads needs no mark.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from t3_backup.errors import StoreError
from t3_backup.records import parse_object
from t3_backup.store.known_stores import KnownStores
from t3_backup.store.names import MANIFEST
from t3_backup.store.store import Store
from t3_backup.system.atomic_file import replace_file
from t3_backup.text import quote

MARK = "+store"  # no account folder can have such a name
_FORMAT = 1
_NOTHING = {"lost+found"}  # what a new disk has
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True)
class IdentityCheck:
    """Which store is in a place, and which one should be."""

    found: str | None  # None: it has no mark, or is not there
    remembered: str | None
    problem: str = ""  # why no backup may be made there, and what to type
    is_empty: bool = False  # it is not there, or there is nothing in it

    @property
    def is_known(self) -> bool:
        """Tell whether it is the one that is remembered."""
        return self.found is not None and self.found == self.remembered


def check_identity(path: Path, known: KnownStores, users: Iterable[str] = ()) -> IdentityCheck:
    """Check which store is at `path`; nothing is written.

    With `users`, a new store is a problem, too, where another one is known that holds snapshots of
    theirs: then its name may be a slip.
    """
    remembered, found = known.identity_of(path), None
    try:
        fd = os.open(path, _FOLDER)
    except FileNotFoundError:
        names = set[str]()
    except OSError:  # whoever opens it says why they can't
        return IdentityCheck(None, remembered)
    else:
        try:
            names = set(os.listdir(fd)) - _NOTHING
            with contextlib.suppress(OSError):  # one that can't be read is none
                found = read_mark(fd)
        except OSError:
            return IdentityCheck(None, remembered)
        finally:
            os.close(fd)
    problem = judge_identity(path, found, remembered, is_empty=not names)
    if not problem and remembered is None and found is None and not _find_backed_up(path):
        problem = _find_slip(path, known, set(users))
    return IdentityCheck(found, remembered, problem, is_empty=not names)


def judge_identity(path: Path, found: str | None, remembered: str | None, *, is_empty: bool) -> str:
    """Judge whether the store at `path` may be used for backups: empty, or why not. Pure."""
    if remembered in (None, found):
        return ""
    adopt = f"t3-backup-state init --adopt --dest {quote(str(path))}"
    if is_empty:
        return (
            f"no store at {path}, where there was one: is its disk mounted? next: mount it, or, to "
            f"begin a new store there: {adopt}"
        )
    what = (
        "has no mark that can be read"
        if found is None
        else "is another store than the one that is remembered"
    )
    return f"{path} {what}: is the right disk mounted? if it is the right store: {adopt}"


def settle_identity(
    store: Store, known: KnownStores, *, remember: bool, is_configured: bool
) -> None:
    """Mark a locked store that has no mark, and remember it, where asked.

    `is_configured`: the settings name it, and no `--dest`. Raises StoreError where it is not the
    one that is remembered. What can't be written now is written by the next command.
    """
    if problem := check_identity(store.path, known).problem:
        raise StoreError(problem)
    with contextlib.suppress(OSError):
        identity = mark_store(store)
        if remember and known.identity_of(store.path) is None:
            known.remember(store.path, identity, is_configured=is_configured)


def mark_store(store: Store) -> str:
    """Return the identity of a locked store, and give it one where it has none. Raises OSError."""
    identity = read_mark(store.fd)
    if identity is None:
        identity = str(uuid.uuid4())
        text = json.dumps({"format": _FORMAT, "id": identity}) + "\n"
        temporary = f".partial-{os.urandom(8).hex()}"
        replace_file(store.fd, MARK, text.encode(), 0o600, temporary=temporary)
    return identity


def read_mark(folder: int) -> str | None:
    """Read the identity of the open store; None where it has none that can be read.

    Raises OSError.
    """
    try:
        fd = os.open(MARK, _FILE, dir_fd=folder)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ELOOP):
            raise
        return None
    with open(fd, "rb") as file:
        data = file.read(4096)
    try:
        return str(uuid.UUID(parse_object(data).get("id")))
    except (ValueError, TypeError, AttributeError):
        return None


def open_store(path: Path) -> Store:
    """Open the store at `path`, for who works with what is there.

    Raises StoreError; also for an empty place where there was one. Any other needs no mark.
    """
    check = check_identity(path, KnownStores.own())
    try:
        store = Store.open(path)
    except StoreError as error:
        raise StoreError(check.problem or str(error)) from None
    if check.is_empty and check.problem:
        os.close(store.fd)
        raise StoreError(check.problem)
    return store


def _find_slip(path: Path, known: KnownStores, users: set[str]) -> str:
    for other, identity in known.configured():
        for user in sorted(users.intersection(_find_backed_up(other, identity))):
            return (
                f"{path} is new, and the snapshots of {user} are in {other}: is T3_BACKUP_DEST "
                f"right? to begin another store: t3-backup-state init --dest "
                f"{quote(str(path))}"
            )
    return ""


def _find_backed_up(path: Path, identity: str | None = None) -> set[str]:
    """Find the users who have snapshots in the store at `path`, where it is that one."""
    found = set[str]()
    with contextlib.suppress(StoreError, OSError), Store.open(path) as store:
        if read_mark(store.fd) != identity:
            return found
        for user in store.users():
            with contextlib.suppress(StoreError, OSError):
                if (account_dir := store.account_dir(user)) is not None:
                    with account_dir:
                        if any(name.endswith(MANIFEST) for name in account_dir.read_names()):
                            found.add(user)
    return found
