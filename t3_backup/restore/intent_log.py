"""Write down what a restore is about to do: what the next command needs to know.

It lies in the store, which is root's, as USER+restore.json; no account folder can have such a
name. It is gone when the restore has ended, whichever way.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from typing import Any

from t3_backup.accounts import folder_name, user_of_folder
from t3_backup.errors import StoreError
from t3_backup.records import MORE, decode_record, parse_object
from t3_backup.store.replacement import Replacement
from t3_backup.store.store import Store
from t3_backup.system import native
from t3_backup.system.atomic_file import replace_file
from t3_backup.t3.files import DATABASE_NAME

_ENDING = "+restore.json"
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
    # marks (of the worker's) of what that takes the place of; all else stays
    sealed: dict[str, str] = field(default_factory=dict)

    @property
    def staged_files(self) -> str:
        """Name of what the files beside the databases are staged by."""
        return DATABASE_NAME + self.aside

    def save(self, store: Store) -> None:
        """Write it; durable when this returns. Raises OSError."""
        text = json.dumps({"format": _FORMAT} | asdict(self), indent=1) + "\n"
        temporary = f"{_PARTIAL}{os.urandom(8).hex()}"
        replace_file(store.fd, _file_name(self.user), text.encode(), 0o600, temporary=temporary)

    def remove(self, store: Store) -> None:
        """Remove it, durably: the restore has ended. Raises OSError."""
        os.unlink(_file_name(self.user), dir_fd=store.fd)
        native.sync_directory(store.fd, str(store.path))


def _file_name(user: str) -> str:
    return folder_name(user) + _ENDING


def users_with_intent(store: Store) -> list[str]:
    """List the users of whom a restore has not ended: it runs, or was interrupted."""
    os.lseek(store.fd, 0, os.SEEK_SET)
    names = (name.removesuffix(_ENDING) for name in os.listdir(store.fd) if name.endswith(_ENDING))
    return sorted(filter(None, map(user_of_folder, names)))


def load_intent(store: Store, user: str) -> Intent | None:
    """Load the intent of `user`, or None. Raises StoreError where it can't be read."""
    path = store.path / _file_name(user)
    try:
        fd = os.open(_file_name(user), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=store.fd)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from None
    try:
        with open(fd, encoding="utf-8") as file:
            value = parse_object(file.read())
        if value.get("format") not in (_OF_ONE, _FORMAT) or value.get("user") != user:
            raise ValueError("not one of ours")
        if value["format"] == _OF_ONE:
            value = _of_one(value)
        value.setdefault("tried", False)  # earlier versions did not say so
        return decode_record(Intent, value)
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


def clear_intent(store: Store) -> None:
    """Remove what was being written when a command died.

    Only under the store's lock. Raises OSError.
    """
    os.lseek(store.fd, 0, os.SEEK_SET)
    for name in os.listdir(store.fd):
        if name.startswith(_PARTIAL):
            os.unlink(name, dir_fd=store.fd)
