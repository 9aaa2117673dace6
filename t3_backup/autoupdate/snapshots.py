"""Snapshots, by the command that makes them and puts them back: `t3-backup-state`, called with --json (docs/interface/json.md)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t3_backup.errors import Failure, LockHeld
from t3_backup.restore.recovery import lies_at
from t3_backup.store import lock
from t3_backup.store.names import UNWANTED
from t3_backup.store.store import Store

COMMAND = (sys.executable, "-I", "-m", "t3_backup.cli.main")
_POLL_S = 1.0
_LOCK_HELD = LockHeld.exit_code
LEFT = "prerollback-"  # begins the label of what a rollback has left
# What a user would call his history.
CONTENT = {
    "projection_projects": "projects",
    "projection_threads": "threads",
    "projection_thread_messages": "messages",
    "orchestration_events": "events",
    "auth_sessions": "sessions",
}


@dataclass(frozen=True)
class Snapshot:
    """What is needed of a snapshot."""

    user: str
    name: str
    label: str | None
    verdict: str
    taken_at: str
    bytes: int
    t3_level: int | None
    rows: Mapping[str, int]  # of each table

    @staticmethod
    def from_json(value: Any) -> Snapshot:
        """Of a SNAPSHOT. Raises KeyError, TypeError."""
        return Snapshot(
            value["user"],
            value["name"],
            value["label"],
            value["verdict"],
            value["taken_at"],
            value["bytes"],
            value["t3_level"],
            value["census"]["rows"],
        )


def is_good(snapshot: Snapshot) -> bool:
    """Whether it is verified, and not what a newer version has made of a database: one that failed, or that was rolled back."""
    label = snapshot.label or ""
    return snapshot.verdict == "verified" and label not in UNWANTED and not label.startswith(LEFT)


def lost(before: Mapping[str, int], after: Mapping[str, int]) -> str:
    """What is in the tables of `before` and no longer in those of `after`, by number of rows: '3 events, 1 messages'."""
    fewer = {word: before.get(table, 0) - after.get(table, 0) for table, word in CONTENT.items()}
    return ", ".join(f"{count} {word}" for word, count in fewer.items() if count > 0) or "nothing"


class Backups:
    """The store, used by calling its command."""

    def __init__(self, store: Path, *, patience: float = 900) -> None:
        """`store` is where it is; `patience`: seconds to wait for a run that holds it."""
        self._store = store
        self._patience = patience
        self._held: int | None = None

    @contextmanager
    def held(self, patience: float) -> Iterator[None]:
        """Hold the store: no other run comes in between. Raises LockHeld after so many seconds, and StoreError."""
        with Store.open(self._store, create=True) as store:
            store.lock(wait=patience)
            self._held = store.fd
            try:
                yield
            finally:
                self._held = None

    def take(self, user: str, label: str | None, *, proven: bool = True, at_rest: bool = False) -> Snapshot:
        """A snapshot of an account's database. `proven`: raises Failure where it is not verified, or not all that there is.

        `at_rest`: his server is down and waits for this; what can be done later, is.
        """
        environ = {"T3_BACKUP_COMPACT": "off"} if at_rest else {}
        code, document, said = self._call("run", "--user", user, *(["--label", label] if label else []), environ=environ)
        for account in (document or {}).get("accounts", []):
            if proven and account.get("uncovered"):
                raise Failure(f"{user}: {account['reason']}")
            if account["user"] == user and account["snapshots"]:
                made = Snapshot.from_json(account["snapshots"][0])
                if proven and made.verdict != "verified":
                    raise Failure(f"{user}: the snapshot {made.name} is {made.verdict}: t3-backup-state list {user} says why")
                return made
        reasons = [account["reason"] for account in (document or {}).get("accounts", []) if account.get("reason")]
        raise Failure(f"{user}: no snapshot could be taken: {'; '.join(reasons) or said or f'exit status {code}'}")

    def uncovered(self, user: str) -> str:
        """Why an account has data that no snapshot holds; empty where it has none, or that can't be told. Takes no lock."""
        _, document, _ = self._call("run", "--user", user, "--dry-run")
        return next((str(one["reason"]) for one in (document or {}).get("accounts", []) if one.get("uncovered")), "")

    def put_back(self, user: str, name: str) -> list[str]:
        """Restore one; the server must not run. What somebody should know of it, and what lies aside since. Raises Failure."""
        code, document, said = self._call("restore", user, "--at", name, "--yes", "--no-service")
        if document is None or document["action"] != "restored":
            raise Failure(f"{user}: {name} could not be put back: {said or f'exit status {code}'}")
        return [*document["warnings"], *map(lies_at, document["kept"])]

    def write(self, user: str, path: Path) -> bool:
        """Write the newest verified one to a new file; False where there is none."""
        newest = next(filter(is_good, self.list(user)), None)
        if newest is None:
            return False
        code, _, said = self._call("restore", user, "--at", newest.name, "--to", str(path))
        if code != 0:
            raise Failure(f"{user}: no copy of the newest snapshot could be made: {said or f'exit status {code}'}")
        return True

    def list(self, user: str) -> list[Snapshot]:
        """All of an account, the newest first; none where he has no shelf."""
        code, document, said = self._call("list", user)
        if document is None:
            if not (self._store / user).is_dir():
                return []
            raise Failure(f"{user}: the snapshots can't be listed: {said or f'exit status {code}'}")
        return [Snapshot.from_json(one) for account in document["accounts"] for one in account["snapshots"]]

    def newest_for(self, user: str, level: int) -> tuple[Snapshot, Mapping[str, int] | None]:
        """The newest good one that a program of this level can open, and the rows of the live database. Raises Failure."""
        code, document, said = self._call("restore", user, "--schema", str(level), "--dry-run")
        if document is None or code != 0:
            raise Failure(f"{user}: {said or f'exit status {code}'}")
        live = document["live"]
        return Snapshot.from_json(document["snapshot"]), None if live is None else live["rows"]

    def _call(self, *words: str, environ: Mapping[str, str] | None = None) -> tuple[int, dict[str, Any] | None, str]:
        """Exit code, document and last line of what it said. Waits while another run holds the store."""
        until = time.monotonic() + self._patience
        while True:
            code, out, said = self._run([*COMMAND, *words, "--json"], environ or {})
            if code != _LOCK_HELD or self._held is not None or time.monotonic() >= until:
                break
            time.sleep(_POLL_S)
        try:
            document = json.loads(out) if out else None
        except ValueError:
            raise Failure(f"t3-backup-state {words[0]} gave no JSON; it said: {said}") from None
        return code, document, said

    def _run(self, line: Sequence[str], environ: Mapping[str, str]) -> tuple[int, str, str]:
        whole = dict(os.environ) | dict(environ) | {"T3_BACKUP_DEST": str(self._store)}
        passed: tuple[int, ...] = ()
        if self._held is not None:
            whole[lock.INHERITED] = str(self._held)
            passed = (self._held,)
        # In a group of its own: a Ctrl-C is ours to hear.
        done = subprocess.run(
            line, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env=whole, pass_fds=passed, process_group=0
        )
        lines = done.stderr.strip().splitlines()
        return done.returncode, done.stdout, (lines[-1] if lines else "").removeprefix("t3-backup-state: ")
