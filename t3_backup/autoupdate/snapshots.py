"""Take, list and restore snapshots.

They are listed from the store itself. What changes something is a process of `t3-backup-state`,
called with --json (docs/interface/json.md): it ends by itself, whatever becomes of this one.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from t3_backup.accounts import folder_name
from t3_backup.autoupdate.faults import AccountFault
from t3_backup.autoupdate.programs.installations import About
from t3_backup.errors import Failure, LockHeld, StoreError, explain
from t3_backup.restore.finish import describe_remains
from t3_backup.store import lock
from t3_backup.store.census import Census, comparable_content, comparable_logins
from t3_backup.store.faults import SOUND, Unsound, find_unsound
from t3_backup.store.identity import check_identity
from t3_backup.store.known_stores import KnownStores
from t3_backup.store.manifest import Manifest
from t3_backup.store.names import UNWANTED
from t3_backup.store.store import Store
from t3_backup.system.process import run_in_own_group
from t3_backup.t3 import content, databases
from t3_backup.text import quote

COMMAND = (sys.executable, "-I", "-m", "t3_backup.cli.main")
_POLL_S = 1.0
LEFT = "prerollback-"  # begins the label of what a rollback has left


def is_good(snapshot: Manifest) -> bool:
    """Tell whether a snapshot is verified, and its version was not turned back."""
    label = snapshot.label or ""
    return snapshot.is_good and label not in UNWANTED and not label.startswith(LEFT)


def why_unfit(snapshot: Manifest, program: About) -> str:
    """Say why a version can't work with the live database of a snapshot; empty: it can."""
    live = snapshot.live
    return program.why_unfit(live.file, live.t3_level, live.ledger or live.census.ledger)


def describe_loss(before: Census, after: Census) -> str:
    """Say what a person would miss in `after`, and logins, such as '3 events, 1 messages'."""
    then, now = comparable_content(before, after) or ({}, {})
    logins = comparable_logins(before, after)
    changes = content.changes(then | logins[0], now | logins[1])
    return (
        ", ".join(f"{-count} {word}" for word, count in changes.items() if count < 0) or "nothing"
    )


class Snapshots:
    """The snapshots of all accounts in one store."""

    def __init__(
        self, store: Path, known: KnownStores | None = None, *, patience: float = 900
    ) -> None:
        """`store` is where it is; `patience`: seconds to wait for a run that holds it.

        With `known` stores, no other than the one that is remembered there is taken.
        """
        self._store, self._known = store, known
        self._patience = patience
        self._held: int | None = None

    @contextmanager
    def hold_store(self, patience: float) -> Iterator[None]:
        """Hold the store against other runs. Raises LockHeld after so long, and StoreError."""
        if self._known and (problem := check_identity(self._store, self._known).problem):
            raise StoreError(problem)
        with Store.open(self._store, create=True) as store:
            store.lock(wait=patience)
            self._held = store.fd
            try:
                yield
            finally:
                self._held = None

    def list_snapshots(self, user: str) -> list[Manifest]:
        """List an account's snapshots, the newest first, without a lock."""
        return self._read(user)[0]

    def _list_good(self, user: str) -> Iterator[Manifest]:
        """List the good ones: not those whose last proof failed."""
        snapshots, unsound = self._read(user)
        return (one for one in snapshots if is_good(one) and one.name not in unsound)

    def _read(self, user: str) -> tuple[list[Manifest], Unsound]:
        if not (self._store / folder_name(user)).is_dir():
            return [], SOUND
        try:
            with Store.open(self._store) as store:
                if (account_dir := store.account_dir(user)) is None:
                    return [], SOUND
                with account_dir:
                    snapshots = account_dir.read_listing().snapshots
                    return list(snapshots), find_unsound(snapshots, account_dir.read_catalog())
        except (StoreError, OSError) as error:
            raise Failure(f"{user}: the snapshots can't be listed: {explain(error)}") from None

    def take_snapshot(
        self, user: str, label: str | None, *, proven: bool = True, at_rest: bool = False
    ) -> Manifest:
        """Take a snapshot of an account's database.

        `proven`: raises AccountFault where it is not verified, or where the account has data that
        it does not hold; and in any case where something of the account's keeps it from being
        taken. Raises Failure where that is the store's matter. `at_rest`: the server is down and
        waits for this, so that what can be done later is left for later.
        """
        environ = {"T3_BACKUP_COMPACT": "off"} if at_rest else {}
        words = ["--label", label] if label else []
        code, document, said = self._call("run", "--user", user, *words, environ=environ)
        accounts = (document or {}).get("accounts", [])
        for account in accounts:
            if proven and account.get("uncovered"):
                raise AccountFault(account["reason"])
            if account["user"] == user and account["snapshots"]:
                made = account["snapshots"][0]
                if proven and made["verdict"] != "verified":
                    found = f"the snapshot {made['name']} is {made['verdict']}"
                    raise AccountFault(f"{found}: t3-backup-state list {quote(user)} says why")
                if proven and (missing := made.get("missing")):
                    found = ", ".join(databases.shown_name(one["file"]) for one in missing)
                    why = f"{made['name']} lacks {found}: t3-backup-state doctor says why"
                    raise AccountFault(f"the snapshot {why}")
                return self._find_snapshot(user, made["name"])
        reasons = [account["reason"] for account in accounts if account.get("reason")]
        why = "; ".join(reasons) or said or f"exit status {code}"
        if document is None and code == LockHeld.exit_code:
            raise LockHeld(f"{user}: no snapshot could be taken: {why}")
        if accounts and all(one["own"] or one["outcome"] == "skipped" for one in accounts):
            raise AccountFault(f"no snapshot could be taken: {why}")
        raise StoreError(f"{user}: no snapshot could be taken: {why}")

    def why_uncovered(self, user: str) -> str:
        """Say why an account has data that no snapshot holds; empty where it has none."""
        _, document, _ = self._call("run", "--user", user, "--dry-run")
        accounts = (document or {}).get("accounts", [])
        return next((str(one["reason"]) for one in accounts if one.get("uncovered")), "")

    def restore_snapshot(self, user: str, name: str, *, kept: str | None = None) -> list[str]:
        """Put a snapshot back while no server runs; list what to know of it. Raises Failure.

        `kept`: one that may hold what is there now; if it does, no other is taken.
        """
        words = ["--kept", kept] if kept else []
        line = ["restore", user, "--at", name, "--yes", "--no-service", *words]
        code, document, said = self._call(*line)
        if document is None or document["action"] != "restored":
            raise Failure(f"{user}: {name} could not be put back: {said or f'exit status {code}'}")
        aside = [one["file"] for one in document["databases"] if one["action"] == "put aside"]
        old = document["prerestore"]
        where = f", and kept in {old['name']}" if old else ""
        told = f"not in {name}, so put aside{where}"
        return [
            *document["warnings"],
            *(f"{databases.shown_name(file)}: {told}" for file in aside),
            *map(describe_remains, document["kept"]),
        ]

    def write_newest(self, user: str, folder: Path, own: str | None = None) -> str:
        """Write the databases of the newest good snapshot into `folder`, and name the live one.

        `own` is the name of that which the account's program makes (None: not known): a successor
        of it is left out, which that program does not work with. Empty where there is no snapshot.
        Raises Failure.
        """
        newest = next(self._list_good(user), None)
        if newest is None:
            return ""
        files = [one.file for one in newest.databases]
        stale = databases.stale_successor(own, files)
        for file in files:
            if file != stale:
                to = ("--to", str(folder / file), f"--database={file}")
                code, _, said = self._call("restore", user, "--at", newest.name, *to)
                if code != 0:
                    why = f"no copy of {newest.name} could be made: {said or f'exit status {code}'}"
                    raise (LockHeld if code == LockHeld.exit_code else Failure)(f"{user}: {why}")
        return own if stale and own else newest.live.file

    def find_fitting(self, user: str, program: About) -> Manifest:
        """Find the newest good snapshot that a version can work with. Raises Failure."""
        fits = (one for one in self._list_good(user) if not why_unfit(one, program))
        found = next(fits, None)
        if found is None:
            count = len(self.list_snapshots(user))
            why = f"none of the {count} snapshots is a good one that T3 {program.version} opens"
            raise Failure(f"{user}: {why}; next: t3-backup-state list {quote(user)}")
        return found

    def _find_snapshot(self, user: str, name: str) -> Manifest:
        """Find what the command named. Raises Failure where it is not there any more."""
        found = next((one for one in self.list_snapshots(user) if one.name == name), None)
        if found is None:
            raise Failure(f"{user}: {name} was pruned in the meantime")
        return found

    def _call(
        self, *words: str, environ: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, Any] | None, str]:
        """Call the command, once no other run holds the store.

        Return its exit code, its document, and the last line of what it said.
        """
        until = time.monotonic() + self._patience
        while True:
            code, out, said = self._run_process([*COMMAND, *words, "--json"], environ or {})
            if code != LockHeld.exit_code or self._held is not None or time.monotonic() >= until:
                break
            time.sleep(_POLL_S)
        try:
            document = json.loads(out) if out else None
        except ValueError:
            raise Failure(f"t3-backup-state {words[0]} gave no JSON; it said: {said}") from None
        return code, document, said

    def _run_process(self, line: Sequence[str], environ: Mapping[str, str]) -> tuple[int, str, str]:
        whole = dict(os.environ) | dict(environ) | {"T3_BACKUP_DEST": str(self._store)}
        passed: tuple[int, ...] = ()
        if self._held is not None:
            whole[lock.INHERITED] = str(self._held)
            passed = (self._held,)
        done = run_in_own_group(line, env=whole, pass_fds=passed)
        said = (done.stderr.strip().splitlines() or [""])[-1].removeprefix("t3-backup-state: ")
        return done.returncode, done.stdout, said
