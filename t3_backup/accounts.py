"""Find whose databases there are: in the user map, and among the users.

The map has lines `authentik=os_user[:cwd]`; `#` begins a comment. A line that makes no sense is a
warning with its number and never stops the others. Nothing beneath a home is looked at here: that
happens as its owner.
"""

from __future__ import annotations

import os
import pwd
import re
from dataclasses import dataclass
from pathlib import Path

from t3_backup.errors import Failure, UsageError

# A user's name becomes the name of a folder: no slash, no leading dot or dash.
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}")


@dataclass(frozen=True)
class Account:
    """A user of the system who has, or may have, a T3 server."""

    user: str
    uid: int
    gid: int
    groups: tuple[int, ...]  # supplementary, the primary one among them
    home: Path
    base_dir: Path | None = None  # where its T3 keeps its state; None: in the usual place
    server_pid: int = 0  # of its server, as systemd knows it; 0: none is known to run


@dataclass(frozen=True)
class UserMap:
    """What the map says: users in order, each once, and what could not be understood."""

    users: tuple[str, ...]
    warnings: tuple[str, ...]


def parse_map(text: str, name: str) -> UserMap:
    """Parse the text of a map; `name` is what warnings call it."""
    users: set[str] = set()
    warnings: list[str] = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = re.sub(r"(^|\s)#.*", "", raw).strip()
        if not line:
            continue
        alias, _, right = line.partition("=")
        user = right.partition(":")[0].strip()
        if not alias.strip() or not _USER.fullmatch(user):
            wanted = "not a line of the form authentik=os_user[:cwd]"
            warnings.append(f"{name}:{number}: {wanted}: {raw.strip()!r}")
        else:
            users.add(user)
    return UserMap(tuple(sorted(users)), tuple(warnings))


def read_map(path: Path) -> UserMap:
    """Read the map at `path`. Raises UsageError where that can't be."""
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        what = f"user map {path}: {error.strerror}"
        raise UsageError(f"{what}; name another by --map or T3_BACKUP_MAP") from None
    return parse_map(text, str(path))


def is_user_name(text: str) -> bool:
    """Tell whether `text` may be a user's name, and so the name of an account folder."""
    return _USER.fullmatch(text) is not None


def find(user: str) -> Account:
    """Look up the account of a user of the system.

    Raises Failure where there is none, and for uid 0: root has no T3 server.
    """
    try:
        if not is_user_name(user):
            raise KeyError(user)
        entry = pwd.getpwnam(user)
    except KeyError:
        raise Failure(f"{user}: no such user on this system") from None
    if entry.pw_uid == 0:
        raise Failure(f"{user}: uid 0 is refused: a T3 server of root's is not backed up")
    groups = tuple(sorted(set(os.getgrouplist(user, entry.pw_gid))))
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, groups, Path(entry.pw_dir))


def exists(user: str) -> bool:
    """Tell whether the system has a user of this name."""
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def own() -> Account:
    """Look up the account of whoever runs this; Failure for a uid without a name."""
    try:
        return find(pwd.getpwuid(os.geteuid()).pw_name)
    except KeyError:
        raise Failure(f"uid {os.geteuid()} has no entry in the user database") from None
