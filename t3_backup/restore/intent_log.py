"""Write down what a restore is about to do: what the next command needs to know.

It lies in the store, which is root's, as USER+restore.json; no account folder can have such a
name. Where the store takes nothing more (it is full, or read-only), it lies outside of it, and who
looks for one looks in both places. It is gone when the restore has ended, whichever way.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from t3_backup.accounts import folder_name, user_of_folder
from t3_backup.errors import LockHeld, StoreError, explain
from t3_backup.records import MORE, decode_record, parse_object
from t3_backup.store import outside
from t3_backup.store.replacement import Replacement
from t3_backup.store.store import Store
from t3_backup.system import native
from t3_backup.system.atomic_file import replace_file
from t3_backup.t3.files import DATABASE_NAME

_ENDING = "+restore.json"
_ENDED = "+ended"
_FOLDER = "restores"  # outside of the store
_PARTIAL = ".partial-"
_FORMAT = 2
_OF_ONE = 1  # of one database, whose keys are among the others


@dataclass(frozen=True)
class Intent:
    """What one restore is about to do."""

    JSON_KEYS = MORE

    user: str
    snapshot: str  # name of what is put back
    began: str  # RFC 3339
    aside: str  # ending of the names of what is staged beside the live databases
    base_dir: str | None = None  # of the databases; None: the usual one
    unit: str | None = None  # of the server that is kept from starting
    ran: bool = False  # whether it ran before
    masked: bool = False  # whether it was masked for this
    marked: bool = False  # whether the snapshot's manifest says that it was put back
    begun: bool = False  # whether the exchange may have begun
    # what becomes of each, in the order of the exchange; none: databases stay as they are
    databases: tuple[Replacement, ...] = ()
    files: bool = False  # whether what is beside them is put back
    tried: bool = False  # whether that was tried in vain
    store: str = ""  # path of the store that it is of, where it lies outside of it
    # marks (of the worker's) of what that takes the place of; all else stays
    sealed: dict[str, str] = field(default_factory=dict)

    @property
    def staged_files(self) -> str:
        """Name of what the files beside the databases are staged by."""
        return DATABASE_NAME + self.aside

    def save(self, store: Store) -> None:
        """Write it; durable when this returns. Raises OSError.

        A store that takes nothing more has it lie outside.
        """
        try:
            _write(store.fd, replace(self, store=""))
        except OSError as error:
            if error.errno not in outside.TAKES_NOTHING:
                raise
            try:
                with outside.opened(_FOLDER, create=True) as folder:
                    assert folder is not None
                    _write(folder, replace(self, store=str(store.path.absolute())))
            except (StoreError, OSError) as another:
                places = f"{store.path} ({error.strerror}) nor to {outside.state_folder()}"
                raise OSError(
                    error.errno,
                    "what a restore is about to do can be written neither to "
                    f"{places} ({explain(another)}); next: make room in one of them",
                ) from None
        else:
            _remove_outside(self.user)

    def remove(self, store: Store) -> None:
        """Remove it, durably: the restore has ended. Raises OSError.

        Where it is in a store that takes no change any more, it is said outside that it has ended.
        One of another restore, in another store than its own, stays.
        """
        inside = _load(store.fd, store.path, self.user)
        try:
            if inside is not None and inside.aside == self.aside:
                _remove(store.fd, self.user)
        except OSError as error:
            if error.errno not in outside.TAKES_NOTHING:
                raise
            with outside.opened(_FOLDER, create=True) as folder:
                assert folder is not None
                replace_file(folder, self._ended, b"", 0o600)
        _remove_outside(self.user)

    @property
    def _ended(self) -> str:
        """The name that says outside of the store that it has ended."""
        return folder_name(self.user) + self.aside + _ENDED


def _write(folder: int, intent: Intent) -> None:
    text = json.dumps({"format": _FORMAT} | asdict(intent), indent=1) + "\n"
    temporary = f"{_PARTIAL}{os.urandom(8).hex()}"
    replace_file(folder, _file_name(intent.user), text.encode(), 0o600, temporary=temporary)


def _remove_outside(user: str) -> None:
    with outside.opened(_FOLDER) as folder:
        if folder is not None:
            _remove(folder, user)


def _remove(folder: int, user: str) -> None:
    """Remove an intent, durably; where there is none, the disk is not written to."""
    os.lseek(folder, 0, os.SEEK_SET)
    if _file_name(user) in os.listdir(folder):
        os.unlink(_file_name(user), dir_fd=folder)
        native.sync_directory(folder)


def _file_name(user: str) -> str:
    return folder_name(user) + _ENDING


def users_with_intent(store: Store) -> list[str]:
    """List the users of whom a restore has not ended: it runs, or was interrupted."""
    os.lseek(store.fd, 0, os.SEEK_SET)
    with outside.opened(_FOLDER) as folder:
        names = set(os.listdir(store.fd)) | set(os.listdir(folder) if folder is not None else ())
    users = (user_of_folder(name.removesuffix(_ENDING)) for name in names if name.endswith(_ENDING))
    return sorted(filter(None, users))


def load_intent(store: Store, user: str) -> Intent | None:
    """Load the intent of `user`, or None. Raises StoreError where it can't be read.

    One that lies outside of the store is the newer one.
    """
    with outside.opened(_FOLDER) as folder:
        if folder is not None:
            if found := _load(folder, outside.state_folder() / _FOLDER, user):
                return found
            inside = _load(store.fd, store.path, user)
            ended = inside is not None and inside._ended in os.listdir(folder)
            return None if ended else inside
    return _load(store.fd, store.path, user)


def _load(folder: int, path: Path, user: str) -> Intent | None:
    """Load that which lies in the open `folder` at `path`. Raises StoreError."""
    path = path / _file_name(user)
    try:
        fd = os.open(_file_name(user), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from None
    try:
        with open(fd, encoding="utf-8") as file:
            if os.fstat(fd).st_uid != os.geteuid():
                raise ValueError("it is somebody else's")
            value = parse_object(file.read())
        if value.get("format") not in (_OF_ONE, _FORMAT) or value.get("user") != user:
            raise ValueError("not one of ours")
        if value["format"] == _OF_ONE:
            value = _of_one(value)
        # earlier versions did not say so
        return decode_record(Intent, {"tried": False, "store": ""} | value)
    except (OSError, ValueError) as error:
        what = f"{path}, of a restore that was interrupted, can't be read ({error})"
        raise StoreError(f"{what}; look at it, then remove it") from None


def _of_one(value: dict[str, Any]) -> dict[str, Any]:
    """Make one of format 1 into what it is today. Raises ValueError."""
    # 0.1.0 had this in its place: what was sealed is not known, and so all of it stays
    if "keep_files" in value:
        value.setdefault("sealed", {})
    one = {"file": DATABASE_NAME}
    for key in ("old", "staged", "beside", "keep", "database"):
        if key not in value:
            raise ValueError(f"there is no {key}")
        one[key] = value.pop(key)
    aside = value.get("aside")
    if not isinstance(aside, str) or not aside.startswith(DATABASE_NAME):
        raise ValueError("aside: it is another name")
    return value | {
        "base_dir": None,
        "aside": aside.removeprefix(DATABASE_NAME),
        "databases": [one] if one.pop("database") else [],
    }


@contextlib.contextmanager
def held_store(intent: Intent, store: Store) -> Iterator[Store | None]:
    """Hold the store that an intent is of, beside the locked `store`; None where another has it.

    An intent that lies outside may be of another one. Of one that is not there any more nobody
    restores.
    """
    with contextlib.ExitStack() as held:
        try:
            if not intent.store:
                raise StoreError("it is in this one")
            other = held.enter_context(Store.open(Path(intent.store)))
        except StoreError:
            yield store
            return
        if os.path.samestat(os.fstat(other.fd), os.fstat(store.fd)):
            yield store
            return
        try:
            other.lock(wait=0)
        except LockHeld:
            yield None
        else:
            yield other


def clear_intent(store: Store) -> None:
    """Remove what was being written when a command died, and what is said to have ended.

    Only under the store's lock. Raises OSError.
    """
    with outside.opened(_FOLDER) as folder:
        for place in (store.fd, folder):
            if place is not None:
                os.lseek(place, 0, os.SEEK_SET)
                for name in os.listdir(place):
                    if name.startswith(_PARTIAL):
                        os.unlink(name, dir_fd=place)
        for name in os.listdir(folder) if folder is not None else ():
            if name.endswith(_ENDED):
                _clear_ended(store, folder, name)


def _clear_ended(store: Store, folder: int | None, name: str) -> None:
    """Remove an intent of this store that has ended, where it takes changes again."""
    user = user_of_folder(name.rpartition(".replaced-")[0])
    with contextlib.suppress(StoreError, OSError):
        inside = _load(store.fd, store.path, user) if user else None
        if inside is not None and inside._ended == name:
            _remove(store.fd, inside.user)
            os.unlink(name, dir_fd=folder)
