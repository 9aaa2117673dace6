"""Keep on the disk what a bump or a rollback is about to do, before it does it.

What earlier ones came to is kept, too. One file, there whole or not at all, holds all accounts, so
that after a power cut the next command knows how far each of them got. When all have ended it moves
to the history.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from t3_backup.errors import Failure
from t3_backup.records import GROWING, decode_record, one_of, parse_object
from t3_backup.system.atomic_file import remove_path, replace_path

NAME = "journal.json"
HISTORY = "history.json"
_KEPT = 100  # entries of the history
_FORMAT = 1

WAITING = "waiting"  # nothing was touched
DEFERRED = "deferred"  # nothing was touched, since somebody works with it
STOPPING = "stopping"  # held; the server is being stopped, and what it leaves is kept
SWITCHING = "switching"  # `kept` is sealed; program and data are being changed; nothing runs
STARTING = "starting"  # program and data are the new ones; the new program runs, or did
DONE = "done"  # it was logged in to on the new program
REVERTING = "reverting"  # program and data are being put back
RETURNING = "returning"  # program and data are the old ones again; the old program runs, or did
REVERTED = "reverted"  # it was logged in to on the old program, with the old data
PHASES = (WAITING, DEFERRED, STOPPING, SWITCHING, STARTING, DONE, REVERTING, RETURNING, REVERTED)
UNDER_WAY = (STOPPING, SWITCHING, STARTING, REVERTING, RETURNING)


@dataclass(frozen=True)
class Move:
    """Where one account is on its way from one program to another."""

    JSON_KEYS = GROWING

    user: str
    before: str  # the version it is on
    program: str  # the version it is to be on
    label: str  # of the snapshot of what it leaves
    data: str | None = None  # the snapshot that is put back; None: the data stays as it is
    phase: Annotated[str, one_of(PHASES)] = WAITING
    ran: bool = False  # whether the server ran before
    kept: str | None = None  # the snapshot of what it left
    wrote: bool = False  # whether the new program may have written
    failed: str | None = None  # the snapshot of what the new program wrote before it failed
    reason: str = ""  # why it is where it is
    endpoint: str = ""  # which served the login
    left_out: bool = False  # by what is its own fault, or its freeze: the others go on
    froze: str = ""  # what it is frozen with alone, where that was done for this
    seconds: float | None = None  # without a server, where it was done in one go


@dataclass(frozen=True)
class Journal:
    """One bump or rollback; the keys of `status --json`, too. Times are RFC 3339, UTC."""

    JSON_KEYS = GROWING

    kind: str  # bump or rollback
    version: str  # of the program that accounts are to be on
    began: str
    moves: tuple[Move, ...]
    ended: str = ""
    result: str = ""  # done, failed or stopped
    prebump: dict[str, str] = field(default_factory=dict)  # user: snapshot of the running server
    canary: bool = False  # the default stays as it is, and so does who is not among the moves
    froze: str = ""  # what all are frozen with, where that was done for this

    def with_move(self, move: Move) -> Journal:
        """Return the same, with another state of an account's move."""
        moves = tuple(move if one.user == move.user else one for one in self.moves)
        return replace(self, moves=moves)

    def users(self, *phases: str) -> list[str]:
        """List those whose move is in one of these phases."""
        return [move.user for move in self.moves if move.phase in phases]

    def waiting(self) -> list[str]:
        """List those who are to be moved still."""
        return [one.user for one in self.moves if one.phase == WAITING and not one.left_out]

    def failed(self) -> list[str]:
        """List those whose move has failed by what is not their own fault."""
        over = (REVERTED, *UNDER_WAY)
        return [one.user for one in self.moves if one.phase in over and not one.left_out]

    def move_of(self, user: str) -> Move:
        """Find the move of an account, which must have one."""
        [found] = [move for move in self.moves if move.user == user]
        return found


@dataclass(frozen=True)
class Journals:
    """The journals beneath a folder of root's, whose lock the caller holds."""

    root: Path

    def load(self) -> Journal | None:
        """Read the one that has not ended; None where there is none. Raises Failure."""
        value = self._read(NAME)
        return None if value is None else _decode_journal(value, self.root / NAME)

    def save(self, journal: Journal) -> None:
        """Write the one that has not ended; durable when this returns. Raises OSError."""
        self._write(NAME, {"format": _FORMAT} | asdict(journal))

    def history(self) -> list[Journal]:
        """Read those that have ended, the newest first. Raises Failure."""
        value = self._read(HISTORY)
        entries = [] if value is None else value.get("entries", [])
        if not isinstance(entries, list):
            raise Failure(f"{self.root / HISTORY} can't be read: it holds no list")
        return [_decode_journal(entry, self.root / HISTORY) for entry in entries]

    def end(self, journal: Journal) -> None:
        """Move one that has ended to the history.

        After a crash in between it is in both: the caller ends it again.
        """
        entries = [one for one in self.history() if one.began != journal.began]
        documents = [{"format": _FORMAT} | asdict(one) for one in [journal, *entries][:_KEPT]]
        self._write(HISTORY, {"entries": documents})
        remove_path(self.root / NAME)

    def _read(self, name: str) -> dict[str, Any] | None:
        path = self.root / name
        try:
            return parse_object(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise Failure(f"{path} can't be read: {error}") from None

    def _write(self, name: str, document: dict[str, Any]) -> None:
        replace_path(self.root / name, (json.dumps(document, indent=1) + "\n").encode(), 0o600)


def _decode_journal(value: Any, path: Path) -> Journal:
    try:
        if not isinstance(value, dict) or value.get("format") != _FORMAT:
            raise ValueError("another format")
        return decode_record(Journal, value)
    except ValueError as error:
        raise Failure(f"{path} can't be read: it is not one of ours ({error})") from None


def last_seconds(journals: Sequence[Journal], user: str) -> float | None:
    """Say how long an account was without a server the last time; None: not known. Pure."""
    moves = (move for entry in journals for move in entry.moves if move.user == user)
    return next((move.seconds for move in moves if move.seconds is not None), None)


def find_canaries(journals: Sequence[Journal]) -> dict[str, set[str]]:
    """Say to which versions each account was moved as a canary. Pure."""
    found: dict[str, set[str]] = {}
    for entry in journals:
        for user in entry.users(DONE) if entry.canary else ():
            found.setdefault(user, set()).add(entry.version)
    return found


def is_mended(history: Sequence[Journal], froze: str) -> bool:
    """Tell whether all are frozen with this by a rollback that failed, and was done since.

    `history` has the newest first. Whom it has failed must have been moved since. Pure.
    """
    done = set[str]()
    for entry in history:
        if entry.kind != "bump" and entry.froze == froze:
            return set(entry.failed()) <= done
        done |= set(entry.users(DONE))
    return False


def find_moves(history: Sequence[Journal], user: str) -> list[Move]:
    """List the moves of an account by rollbacks and their undoing, the newest first. Pure."""
    found = [entry for entry in history if entry.kind != "bump"]
    return [move for entry in found for move in entry.moves if move.user == user]


def summarize_moves(moves: Sequence[Move]) -> str:
    """Say in one line how many moves are in which phase."""
    counts = {phase: sum(move.phase == phase for move in moves) for phase in PHASES}
    return ", ".join(f"{count} {phase}" for phase, count in counts.items() if count)
