"""Keep the ledger of attempts: what the last runs came to for each account.

Snapshots tell when it went well; the ledger, when it was tried. It is for those who watch over
backups and never decides what is copied: without it, or with a broken one that was set aside, every
backup is made all the same. Of what is removed it has one word: `prune` lets nothing go of an
account whose last look found a database that is not copied.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from t3_backup.backup.result import AccountResult
from t3_backup.errors import explain
from t3_backup.records import GROWING, decode_record, parse_object
from t3_backup.system.atomic_file import replace_file
from t3_backup.text import format_time, printable
from t3_backup.worker.protocol import shorten_list

NAME = "attempts.json"
BROKEN = NAME + ".broken"
MOST = 200  # of each account
# nothing was copied: the database is still what the newest verified snapshot holds
UNCHANGED = "unchanged"
_FORMAT = 1
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True)
class Attempt:
    """What a run came to for one account."""

    JSON_KEYS = GROWING

    at: str  # RFC 3339, UTC: when the account was done
    run: str  # the run's id
    outcome: str  # one of backup.OUTCOMES, or UNCHANGED
    verdict: str | None  # of the newest snapshot that was taken; None where none was
    reason: str
    seconds: float  # from the account's turn to its end
    bytes: int  # of the newest snapshot that was taken
    wal_growth_bytes: int  # by how much the live -wal grew for it
    unsaved: str = ""  # why what is beside the database, or some of it, was not saved with it
    uncovered: tuple[str, ...] = ()  # names of databases that are not copied
    # names of databases that could not be copied, where others were
    missing: tuple[str, ...] = ()

    @property
    def when(self) -> datetime:
        """`at` as a time."""
        return datetime.fromisoformat(self.at)

    @property
    def failed(self) -> bool:
        """Whether nothing came of it."""
        return self.outcome == "failed"

    @staticmethod
    def from_json(value: Any) -> Attempt:
        """Decode what `asdict` gave; keys of a later version are passed over. Raises ValueError."""
        attempt = decode_record(Attempt, value)
        if attempt.when.tzinfo is None:
            raise ValueError(f"at {attempt.at!r} has no zone")
        return attempt


Attempts = Mapping[str, Sequence[Attempt]]  # by account, the oldest first


def make_attempt(result: AccountResult, run: str, now: datetime) -> Attempt:
    """Make the ledger's entry of a result."""
    newest = result.snapshots[0].manifest if result.snapshots else None
    return Attempt(
        at=format_time(now),
        run=run,
        outcome=result.outcome,
        verdict=newest.verdict if newest else None,
        reason=printable(result.reason),
        seconds=round(result.seconds, 3),
        bytes=newest.live.bytes if newest else 0,
        wal_growth_bytes=newest.live.wal_growth_bytes if newest else 0,
        unsaved=printable(result.unsaved or shorten_list(result.not_packed)),
        uncovered=result.uncovered,
        missing=tuple(printable(one.file) for one in newest.missing) if newest else (),
    )


def uncovered_since(attempts: Sequence[Attempt]) -> tuple[Attempt, Attempt] | None:
    """Find the first and the last attempt that found a database which is not copied.

    None once all are covered. An attempt that failed without having looked tells nothing.
    """
    found: list[Attempt] = []
    for attempt in reversed(attempts):
        if attempt.uncovered:
            found.append(attempt)
        elif not attempt.failed:
            break
    return (found[-1], found[0]) if found else None


def read(folder: int) -> dict[str, list[Attempt]]:
    """Read the ledger in the open `folder`, the store; empty where there is none.

    Raises ValueError for a broken one, and OSError.
    """
    try:
        fd = os.open(NAME, _READ, dir_fd=folder)
    except FileNotFoundError:
        return {}
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("it is no regular file")
        return from_text(file.read().decode())


def from_text(text: str) -> dict[str, list[Attempt]]:
    """Decode the text of the file. Raises ValueError."""
    value = parse_object(text)
    if value.get("format") != _FORMAT or not isinstance(value.get("accounts"), dict):
        raise ValueError(f"not a ledger of format {_FORMAT}")
    if not all(isinstance(listed, list) for listed in value["accounts"].values()):
        raise ValueError("an account of it has no list")
    return {
        user: [Attempt.from_json(entry) for entry in listed]
        for user, listed in value["accounts"].items()
    }


def to_text(attempts: Attempts) -> str:
    """Write the file's content: the newest MOST of each account, one a line."""
    accounts = []
    for user, listed in sorted(attempts.items()):
        lines = ",\n  ".join(json.dumps(asdict(attempt)) for attempt in listed[-MOST:])
        accounts.append(f" {json.dumps(user)}: [\n  {lines}]")
    return f'{{"format": {_FORMAT}, "accounts": {{\n' + ",\n".join(accounts) + "}}\n"


def _set_aside(folder: int) -> str:
    """Move a broken ledger aside, over an earlier one, and say what came of it.

    A folder of that name may be an account's, and stays.
    """
    try:
        if not stat.S_ISDIR(os.stat(NAME, dir_fd=folder, follow_symlinks=False).st_mode):
            os.rename(NAME, BROKEN, src_dir_fd=folder, dst_dir_fd=folder)
            return f"it was set aside as {BROKEN}, and a new one is begun"
    except OSError as error:
        return f"it can't be set aside: {error.strerror}"
    return "it is a folder: move it away"


class Ledger:
    """The ledger while a run, which holds the store's lock, adds to it."""

    def __init__(self, folder: int) -> None:
        """Read it in the open `folder`; a broken one is set aside, as `problem` says."""
        self._folder = folder
        self.problem = ""
        self.attempts: dict[str, list[Attempt]] = {}
        try:
            self.attempts = read(folder)
        except (ValueError, OSError) as error:
            self.problem = f"{NAME} is broken ({printable(explain(error))}); {_set_aside(folder)}"

    def add(self, user: str, attempt: Attempt) -> None:
        """Note an attempt, durably. Raises OSError, and then the file is as it was."""
        self.attempts[user] = [*self.attempts.get(user, []), attempt][-MOST:]
        replace_file(self._folder, NAME, to_text(self.attempts).encode(), 0o600)
