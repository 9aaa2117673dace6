"""What every command stands on: settings, accounts, programs, journal, store; and who hears of what is done."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from t3_backup import accounts
from t3_backup.autoupdate import adopt, freeze, journal, transition
from t3_backup.autoupdate.account_steps import LiveSteps
from t3_backup.autoupdate.gate import sandbox
from t3_backup.autoupdate.installations import GLOBAL, Programs
from t3_backup.autoupdate.journal import Journal, Journals, Move
from t3_backup.autoupdate.settings import Settings
from t3_backup.autoupdate.snapshots import Backups, lost
from t3_backup.errors import Cancelled, Failure
from t3_backup.store import lock
from t3_backup.system.signals import StopRequest
from t3_backup.t3 import servers, versions
from t3_backup.t3.files import state_database
from t3_backup.t3.servers import Server

_LOCK = ".lock"  # no user's name begins so
_WAIT_S = 5.0
_STORE_WAIT_S = 60.0  # for a run of the backup that holds the store while a server is about to be stopped
_INTERRUPTED_WAIT_S = 900.0  # where one may be down already: for what a bump that was killed has left, which ends by itself


@dataclass(frozen=True)
class Context:
    """One command's."""

    settings: Settings
    user_map: Path
    textfiles: Path | None  # where the metrics go
    backups: Backups
    say: Callable[[str], None]
    warn: Callable[[str], None]
    stopping: StopRequest
    _told: set[str] = field(default_factory=set, init=False, repr=False, compare=False)

    @property
    def programs(self) -> Programs:
        """What is installed."""
        return Programs(self.settings.root)

    @property
    def journals(self) -> Journals:
        """What is under way, and what was."""
        return Journals(self.settings.root)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One command at a time; what one that died has left in the gate goes. Raises LockHeld and OSError."""
        self.settings.root.mkdir(mode=0o755, parents=True, exist_ok=True)
        # All may open the folder of the programs, and who can open it can hold it: for ever, and with it each account that is down.
        folder = self.settings.root / _LOCK
        folder.mkdir(mode=0o700, exist_ok=True)
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            lock.acquire(fd, folder, wait=_WAIT_S)
            sandbox.sweep()
            yield
        finally:
            os.close(fd)

    def users(self) -> list[str]:
        """Who has, or may have, a T3 server. A line of the map that makes no sense is a warning."""
        found = accounts.read_map(self.user_map)
        for warning in found.warnings:
            self.warn_once(warning)
        return list(found.users)

    def warn_once(self, text: str) -> None:
        """What is found out again and again in one command."""
        if text not in self._told:
            self._told.add(text)
            self.warn(text)

    def instances(self) -> list[Server]:
        """The servers of all accounts; a user who doesn't exist is a warning."""
        found = []
        for user in self.users():
            try:
                found.append(self.instance(user))
            except Failure as failure:
                self.warn_once(str(failure))
        return found

    def instance(self, user: str) -> Server:
        """That of `user`. Raises Failure."""
        return servers.find_server(user, self.settings.serve)

    def why_gone(self, one: Server) -> str:
        """What to do where an account without a database had one, as on an unmounted disk, or has another; else empty."""
        if not (known := self.backups.list(one.user)):
            return self.backups.uncovered(one.user)
        back = f"bring it back first (t3-backup-state restore {one.user})"
        return f"{state_database(one.account.home)} is gone, and there are {len(known)} snapshots of it: {back}"

    def adopt(self) -> str:
        """Have all accounts run by our links; the version of whoever has none. Raises Failure and OSError."""
        users = [one.user for one in self.instances()]
        return adopt.adopt(self.programs, self.settings.bin, users, self.say)

    def settle_newcomers(self) -> None:
        """Whoever has no link of his own yet gets one to the version that he is on, and stays there. Raises Failure and OSError."""
        for one in self.instances():
            if self.programs.program_of(one.user) is None:
                self.programs.link(one.user, self.program_of(one.user))

    def program_of(self, user: str) -> str:
        """The version that an account is on. Raises Failure."""
        found = self.programs.program_of(user) or self.programs.program_of(GLOBAL)
        if found is None:
            raise Failure("T3 is not taken over yet: t3-autoupdate adopt")
        return found

    def program(self, user: str) -> Path:
        """What mints for an account: always its own. Raises Failure."""
        self.program_of(user)
        own = self.programs.root / user / "current"
        return (own if own.is_symlink() else self.programs.root / GLOBAL / "current") / "bin" / "t3"

    def carry(self, plan: Journal, wanted: Move, how: Callable[[LiveSteps, Move, transition.Save], Move]) -> Journal:
        """Do one move, or go on with it, with the store held from before the stop to the end; the journal since."""
        latest = plan

        def save(state: Move) -> None:
            nonlocal latest
            latest = latest.with_move(state)
            self.journals.save(latest)

        ground = LiveSteps(self.instance(wanted.user), self.programs, self.backups, self.settings, self.warn)
        with self.backups.held(_INTERRUPTED_WAIT_S if wanted.phase in journal.UNDER_WAY else _STORE_WAIT_S):
            done = how(ground, wanted, save)
        self.tell(done, ground.away)
        return latest

    def tell(self, done: Move, away: Mapping[str, float]) -> None:
        """Say what became of a move; `away`: the seconds without a server, by step."""
        without = f", {sum(away.values()):.1f} s without a server" if away and done.ran else ""
        if done.phase == journal.DONE:
            how = f"login by {done.endpoint}{without}" if done.endpoint else done.reason
            self.say(f"{done.user}: on {done.program}, before on {done.before} ({how})")
        elif done.phase == journal.REVERTED:
            steps = ", ".join(f"{step} {seconds:.1f}" for step, seconds in away.items())
            without += f" ({steps})" if without else ""
            self.warn(
                f"{done.user}: {done.program} failed: {done.reason}; back on {done.before} with the data of {done.kept}{without}"
            )
            self._tell_of_loss(done)
        elif done.phase == journal.WAITING:
            self.warn(f"{done.user}: nothing was changed, still on {done.before}: {done.reason}{without}")
        else:
            where = "IS DOWN, and held" if self.programs.is_held(done.user) else f"is on {done.before}, and not well"
            self.warn(f"{done.user}: {where}: {done.reason}; mend that, then: t3-autoupdate resume")

    def _tell_of_loss(self, done: Move) -> None:
        if not done.wrote:
            return
        known = {one.name: one for one in self.backups.list(done.user)}
        kept, failed = known.get(done.kept or ""), known.get(done.failed or "")
        if kept is None or failed is None:
            self.warn(f"{done.user}: what was written on {done.program} is in the newest snapshot with the label prerestore")
            return
        self.warn(
            f"{done.user}: written on {done.program} and no longer there: {lost(failed.rows, kept.rows)}; it is in {failed.name}"
        )

    def is_frozen(self) -> bool:
        """Whether nothing is to be done by itself, which is said then."""
        if (why := freeze.reason(self.settings.freeze)) is not None:
            self.say(f"frozen, nothing is done: {why}")
        return why is not None

    def must_go_on(self, left: str) -> None:
        """Raises Cancelled once somebody wants an end; `left` says what becomes of the rest."""
        if self.stopping.is_set():
            raise Cancelled(f"stopped; {left}")

    def must_not_be_frozen(self) -> None:
        """Raises Failure."""
        if (why := freeze.reason(self.settings.freeze)) is not None:
            raise Failure(f"frozen ({self.settings.freeze}): {why}; once that is mended: t3-autoupdate thaw")

    def end(self, plan: Journal, result: str, when: str) -> None:
        """It has ended, whatever it came to, and goes to the history."""
        if plan.kind != "bump":
            self.follow()
        self.journals.end(replace(plan, result=result, ended=when))

    def follow(self) -> None:
        """The program of whoever has none of his own is never above that of any account."""
        found = [self.program_of(user) for user in self.programs.linked()]
        lowest = min(found, key=versions.version_key, default=None)
        if lowest is not None and self.programs.program_of(GLOBAL) != lowest:
            self.programs.link(GLOBAL, lowest)
