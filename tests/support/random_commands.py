"""What people, timers and servers do to the accounts of a host, at random: their work, and any
command that changes something or looks."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from random import Random

from demo.users import User
from support import programs
from support.databases import commit_row, give_database, put_database
from support.host import Answer, Host, succeeded
from support.live_database import run_as
from support.paths import DATA
from support.store_model import StoreModel

TINY = DATA / "state-0.0.24.sqlite"
CODES = (0, 1, 2, 3, 4, 75)  # of a command that ended by itself
FREEING = ("accept", "unpin")  # by these, what was to stay may go


class Play:
    """One host whose accounts are worked with."""

    def __init__(self, host: Host, users: Sequence[User], random: Random) -> None:
        self.host, self.users, self.random = host, users, random
        host.environ |= {"T3_BACKUP_COMPACT": "delta", "T3_BACKUP_KEEP": "3"}
        host.environ["T3_BACKUP_KEEP_LABELLED"] = "2"
        host.write_map(*users)
        for user in users:
            give_database(user, TINY)
        self.model = StoreModel(host, users)
        self.counts: Counter[str] = Counter()
        self._day = 0
        succeeded(host.t3("run"))
        self.model.check("the first run")

    # --- what users do

    def work(self, user: User) -> str:
        """A user changes something."""
        chosen = self.random.choices(
            (self._commit, self._settings, self._second, self._lose, self._begin_anew, self._damage,
             self._leave_legacy),
            (40, 10, 3, 4, 3, 2, 4),
        )[0]  # fmt: skip
        chosen(user)
        return chosen.__name__

    def _commit(self, user: User) -> None:
        if not user.database.exists():
            give_database(user, TINY)
        try:
            commit_row(user)
        except Exception:  # noqa: BLE001 # a damaged one; its server would begin anew
            self._begin_anew(user)

    def _settings(self, user: User) -> None:
        path = user.database.parent / "settings.json"
        path.write_text(json.dumps({"number": self.random.random()}))
        user.give(path)

    def _second(self, user: User) -> None:
        if not (user.database.parent / "notes.sqlite").exists():
            put_database(user, "notes.sqlite", "things")

    def _lose(self, user: User) -> None:
        with closing(sqlite3.connect(user.database, isolation_level=None)) as database:
            for table in ("orchestration_events", "projection_threads"):
                database.execute(f"DELETE FROM {table}")
        user.give(user.database)

    def _begin_anew(self, user: User) -> None:
        for path in user.database.parent.glob("state.sqlite*"):
            path.unlink()
        give_database(user, TINY)

    def _damage(self, user: User) -> None:
        self._begin_anew(user)
        run_as(user, programs.line("damage_index.py", str(user.database)))

    def _leave_legacy(self, user: User) -> None:
        """A snapshot of an earlier script's."""
        folder = self.host.store / f"{user.name}+old"
        if not self.host.store.exists() or not user.database.exists():
            return
        folder.mkdir(mode=0o700, exist_ok=True)
        self._day += 1
        path = folder / f"state-202601{self._day % 28 + 1:02}-0330{self._day // 28:02}.sqlite"
        shutil.copyfile(TINY, path)
        user.give(folder)
        user.give(path)

    # --- commands

    def words(self, user: User) -> list[str]:
        """A command, with its arguments."""
        name, random = user.name, self.random
        known = [one.name for one in self.model.snapshots(name)] or ["latest"]
        one = random.choice(known)
        kinds: dict[str, tuple[int, list[str]]] = {
            "run": (24, random.choice(([], ["--user", name], ["--label", f"x-{random.randrange(3)}"]))),
            "restore": (20, [name, "--yes", "--no-service", "--json", *random.choice((
                [], ["--at", one], ["--at", one], ["--label", "prerestore"],
                ["--only", "database"], ["--only", "files", "--at", one],
                ["--at", one, "--to", str(self.host.folder / "out")],
            ))]),
            "pin": (5, [name, one]),
            "unpin": (5, [name, one]),
            "accept": (8, [name]),
            "prune": (10, random.choice(([], [name], ["--keep", "2"]))),
            "verify": (5, random.choice(([], [name], [name, "--at", one]))),
            "list": (2, []),
            "du": (2, []),
            "status": (2, []),
            "doctor": (1, []),
            "import-legacy": (6, []),
        }  # fmt: skip
        [kind] = random.choices(list(kinds), [weight for weight, _ in kinds.values()])
        self.counts[kind] += 1
        return [kind, *kinds[kind][1]]

    def must_be_sound(self, words: Sequence[str], user: User, answer: Answer) -> None:
        """Whatever a command came to, it said so in its way; and what a restore gave is sealed."""
        assert answer.code in CODES, (words, answer)
        assert "Traceback" not in answer.out + answer.err, (words, answer)
        out = self.host.folder / "out"
        if words[0] != "restore" or answer.code != 0:
            assert not out.exists(), (words, answer)
            return
        given = json.loads(answer.out)["snapshot"]
        path = out if "--to" in words else user.database.with_name(given["file"])
        if "files" not in words:
            assert hashlib.sha256(path.read_bytes()).hexdigest() == given["sha256"], (words, answer)
        out.unlink(missing_ok=True)


def kept(words: Sequence[str]) -> int | None:
    """How many the policy of a command keeps, where it is one of its own."""
    return int(words[words.index("--keep") + 1]) if "--keep" in words else None
