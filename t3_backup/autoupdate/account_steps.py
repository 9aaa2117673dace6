"""Take the steps of a move: change an account's link, its snapshots and its unit.

What is the account's own fault is told apart from a failure of the program: a stop, a snapshot, a
port that somebody else has taken, a home that is full.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from t3_backup.autoupdate.faults import AccountFault
from t3_backup.autoupdate.preflight import describe_taker
from t3_backup.autoupdate.programs.installations import Installations
from t3_backup.autoupdate.settings import Settings
from t3_backup.autoupdate.snapshots import Snapshots
from t3_backup.autoupdate.stale import put_stale_aside
from t3_backup.errors import Failure, SystemdUnanswered
from t3_backup.t3.servers import Server

_POLL_S = 0.2
_LEAST_BYTES = 16 << 20  # that a server needs in its home to write anything


@dataclass
class LiveSteps:
    """Take the steps of one account, while the caller holds the store."""

    server: Server
    installations: Installations
    snapshots: Snapshots
    settings: Settings
    warn: Callable[[str], None]  # of what somebody should know
    # seconds from the stop up to where a server answers again, by step
    downtime: dict[str, float] = field(default_factory=dict, init=False)
    login_seconds: float = field(default=0.0, init=False)  # of the last check, while it answers
    _mark: float | None = field(default=None, init=False)  # what is counted ends at this time

    @property
    def has_stopped(self) -> bool:
        """Tell whether it is these steps that have stopped the server."""
        return "stop" in self.downtime

    def hold(self) -> None:
        """Let nothing of the account's start from now on."""
        self.installations.hold(self.server.user)

    def release(self) -> None:
        """End the hold."""
        self.installations.release(self.server.user)

    def server_runs(self) -> bool:
        """Tell whether the server runs, or is about to."""
        return self.server.runs()

    def stop_server(self) -> None:
        """Stop the server, and prove it gone."""
        self._mark = self._mark or time.monotonic()
        with _own_fault(self.server.user):
            self.server.stop()
        self._count_downtime("stop")

    def start_server(self) -> None:
        """Start the server."""
        self.server.start()

    def keep_snapshot(self, label: str, *, proven: bool) -> str:
        """Seal a snapshot of what is there now, and return its name."""
        user = self.server.user
        made = self.snapshots.take_snapshot(user, label, proven=proven, at_rest=True)
        self._count_downtime("copies")
        return made.name

    def put_aside_stale(self, before: str, program: str) -> None:
        """Put a database aside that a newer T3 has made beside that of the version `before`.

        Only where `program` works with such a one, and would go on with it. It is kept, and told.
        """
        own, next_one = (self.installations.about(one).database for one in (before, program))
        if own == next_one:
            return
        with _own_fault(self.server.user):
            said = put_stale_aside(self.server, own)
        if said:
            self.warn(f"{self.server.user}: {said}")

    def link_version(self, version: str) -> None:
        """Make `version` the account's program."""
        self.installations.link_version(self.server.user, version)

    def restore_snapshot(self, snapshot: str, *, kept: str | None) -> None:
        """Put the data of a snapshot back; `kept` may hold what is there now."""
        user = self.server.user
        try:
            for told in self.snapshots.restore_snapshot(user, snapshot, kept=kept):
                self.warn(f"{user}: {told}")
        except Failure as failure:
            raise self._blame(failure) from failure
        self._count_downtime("copies")

    def check_login(self) -> str:
        """Log in to the server, see that it stays up, and return the login's endpoint."""
        patience = self.settings.patience
        try:
            self.server.await_answer(patience)
            answered = time.monotonic()
            before = self.server.run_state()
            program = self.installations.program_of(self.server.user)
            endpoint = self.server.log_in(program, patience, self.warn)
            self.login_seconds = time.monotonic() - answered
            self._count_downtime("start", answered)
            self._stay_up(before)
            if left := self.server.end_logins(program, patience):
                self.warn(f"{self.server.user}: left behind: {left}")
        except SystemdUnanswered:
            raise
        except Failure as failure:
            self._count_downtime("trial")
            raise self._blame(failure) from failure
        return endpoint

    def _stay_up(self, before: tuple[str, str, str]) -> None:
        until = time.monotonic() + self.settings.settle
        while time.monotonic() < until:
            time.sleep(_POLL_S)
            if (now := self.server.run_state()) != before:
                state = f"it is {now[0]}, restarted {now[2]} times"
                why = f"the server did not stay up after a login ({state})"
                raise Failure(f"{self.server.user}: {why}")

    def _blame(self, failure: Failure) -> Failure:
        """Return the failure, as the account's own where what it has brought about explains it."""
        why = describe_taker(self.server)
        if not why:
            try:
                live = self.server.read_activity()
            except Failure:
                return failure  # the program may have left it so
            if live is None or live.free_bytes >= _LEAST_BYTES:
                return failure
            free = f"{live.free_bytes >> 20} MiB are free there"
            why = f"{self.server.account.home}: {free}: make room"
        return AccountFault(f"{why} ({str(failure).removeprefix(f'{self.server.user}: ')})")

    def _count_downtime(self, step: str, until: float | None = None) -> None:
        """Count the time since the last count for this step, once the server was stopped."""
        if self._mark is not None:
            now = until or time.monotonic()
            self.downtime[step] = self.downtime.get(step, 0) + now - self._mark
            self._mark = now


@contextmanager
def _own_fault(user: str) -> Iterator[None]:
    """Take a failure for the account's own: nothing of a new program runs yet."""
    try:
        yield
    except SystemdUnanswered:
        raise
    except Failure as failure:
        raise AccountFault(str(failure).removeprefix(f"{user}: ")) from failure
