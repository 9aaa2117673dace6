r"""Find whose databases there are: in the user map, and among the users.

The map has lines `authentik=os_user[:cwd]`; `#` begins a comment. A user may be spelled there as
the system takes it, such as ALICE for alice or a domain's `CORP\bob`; from here on they have the
system's own spelling. A line that makes no sense is a warning with its number and never stops the
others. Nothing beneath a home is looked at here: that happens as its owner.
"""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from t3_backup.errors import Failure, UsageError
from t3_backup.text import printable

# What every system takes for a name, and the name of a folder as it stands.
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}")
_KEPT = "_.@-\\"  # of what is neither a letter nor a digit, in the name of an account folder
_OURS = frozenset({"attempts.json", "attempts.json.broken"})  # files beside the account folders
_ENCODED = re.compile(rb"%([0-9A-F]{2})")
_LONGEST = 200  # bytes of a folder's name, which has to leave room for our endings


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
    mark: int = -1  # a descriptor that its workers keep open, which tells that one is there still


@dataclass(frozen=True)
class UserMap:
    """What the map says: users in order, each once, and what could not be understood."""

    users: tuple[str, ...]  # as the system spells them
    warnings: tuple[str, ...]
    passed_over: tuple[str, ...] = ()  # named by a line of the right form, and not looked after


def parse_map(text: str, name: str, spell: Callable[[str], str | None] | None = None) -> UserMap:
    """Parse the text of a map; `name` is what warnings call it.

    `spell` gives the system's spelling of a user, and None for whom it does not know.
    """
    spell = spell or find_name
    users: set[str] = set()
    warnings: list[str] = []
    passed_over: list[str] = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = re.sub(r"(^|\s)#.*", "", raw).strip()
        if not line:
            continue
        alias, _, right = line.partition("=")
        user = right.partition(":")[0].strip()
        if not alias.strip() or not user:
            wanted = "not a line of the form authentik=os_user[:cwd]"
            warnings.append(f"{name}:{number}: {wanted}: {raw.strip()!r}")
            continue
        known = spell(user)
        if known is None and _PLAIN.fullmatch(user):
            users.add(user)  # who was removed may still have snapshots
        elif known is None or (why := why_not_looked_after(known)):
            why = why if known is not None else "no such user on this system"
            warnings.append(f"{name}:{number}: {why}: {raw.strip()!r}")
            passed_over.append(user)
        else:
            users.add(known)
    return UserMap(tuple(sorted(users)), tuple(warnings), tuple(passed_over))


def read_map(path: Path) -> UserMap:
    """Read the map at `path`. Raises UsageError where that can't be."""
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        what = f"user map {path}: {error.strerror}"
        raise UsageError(f"{what}; name another by --map or T3_BACKUP_MAP") from None
    return parse_map(text, str(path))


def find_name(user: str) -> str | None:
    """Return how the system spells a user; None where it knows nobody by that name."""
    try:
        return pwd.getpwnam(user).pw_name
    except (KeyError, ValueError):  # a NUL is in no name
        return None


def spell_name(user: str) -> str:
    """Return how the system spells a user, or, where it knows nobody by that name, as given."""
    return find_name(user) or user


def is_user_name(text: str) -> bool:
    """Tell whether `text` may be the name of a user who is looked after."""
    return not why_not_looked_after(text)


def why_not_looked_after(user: str) -> str:
    """Say why nobody of this name is looked after; empty where they may be."""
    if not user.isprintable() or user.strip() != user or not user:
        return "a name with what can't be printed or told apart"
    if "/" in user or ":" in user or user.startswith("."):
        return "a name that would be a path"
    if len(os.fsencode(folder_name(user))) > _LONGEST:
        return "a name that is too long"
    return ""


def folder_name(user: str) -> str:
    r"""Name a user's folder in the store: their own name, as far as that is safe.

    Letters and digits of every script stay, and `_.@-\`. Every other byte becomes %XX: a plus,
    which is ours, a slash, what a terminal or a shell would obey, and a first `.`, `@`, `-` or
    backslash.
    """
    if user in _OURS:
        return _percent(user[0]) + user[1:]
    return "".join(
        char if char.isalnum() or char == "_" or (at and char in _KEPT) else _percent(char)
        for at, char in enumerate(user)
    )


def user_of_folder(name: str) -> str | None:
    """Return whose account folder has this name; None where it is nobody's."""
    user = os.fsdecode(_ENCODED.sub(lambda one: bytes((int(one[1], 16),)), os.fsencode(name)))
    return user if is_user_name(user) and folder_name(user) == name else None


def _percent(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in os.fsencode(char))


def find(user: str) -> Account:
    """Look up the account of a user of the system, by whichever spelling it takes.

    Raises Failure where there is none, and for uid 0: root has no T3 server.
    """
    try:
        entry = pwd.getpwnam(user)
    except (KeyError, ValueError):
        raise Failure(f"{printable(user)}: no such user on this system") from None
    if why := why_not_looked_after(entry.pw_name):
        raise Failure(f"{printable(entry.pw_name)}: {why} is not looked after")
    if entry.pw_uid == 0:
        raise Failure(f"{user}: uid 0 is refused: a T3 server of root's is not backed up")
    groups = tuple(sorted(set(os.getgrouplist(entry.pw_name, entry.pw_gid))))
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, groups, Path(entry.pw_dir))


def exists(user: str) -> bool:
    """Tell whether the system has a user of this name."""
    return find_name(user) is not None


def own() -> Account:
    """Look up the account of whoever runs this; Failure for a uid without a name."""
    try:
        return find(pwd.getpwuid(os.geteuid()).pw_name)
    except KeyError:
        raise Failure(f"uid {os.geteuid()} has no entry in the user database") from None
