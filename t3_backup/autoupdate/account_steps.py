"""Take the steps of a move: change an account's link, its snapshots and its unit."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from t3_backup.autoupdate.installations import Installations
from t3_backup.autoupdate.settings import Settings
from t3_backup.autoupdate.snapshots import Snapshots
from t3_backup.autoupdate.stale import put_stale_aside
from t3_backup.errors import Failure
from t3_backup.t3.servers import Server

_POLL_S = 0.2


@dataclass
class LiveSteps:
    """Take the steps of one account, while the caller holds the store."""

    server: Server
    installations: Installations
    snapshots: Snapshots
    settings: Settings
    warn: Callable[[str], None]  # of what somebody should know
    # seconds since the stop, up to the last login, by step
    downtime: dict[str, float] = field(default_factory=dict, init=False)
    _mark: float | None = field(default=None, init=False)  # what is counted ends at this time

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
        if own != next_one and (said := put_stale_aside(self.server, own)):
            self.warn(f"{self.server.user}: {said}")

    def link_version(self, version: str) -> None:
        """Make `version` the account's program."""
        self.installations.link_version(self.server.user, version)

    def restore_snapshot(self, snapshot: str, *, kept: str | None) -> None:
        """Put the data of a snapshot back; `kept` may hold what is there now."""
        for told in self.snapshots.restore_snapshot(self.server.user, snapshot, kept=kept):
            self.warn(f"{self.server.user}: {told}")
        self._count_downtime("copies")

    def check_login(self) -> str:
        """Log in to the server, see that it stays up, and return the login's endpoint."""
        patience = self.settings.patience
        try:
            self.server.await_answer(patience)
            before = self.server.run_state()
            program = self.installations.program_of(self.server.user)
            endpoint = self.server.log_in(program, patience, self.warn)
            self._count_downtime("start")
            self._stay_up(before)
            if left := self.server.end_logins(program, patience):
                self.warn(f"{self.server.user}: left behind: {left}")
        except Failure:
            self._count_downtime("trial")
            raise
        return endpoint

    def _stay_up(self, before: tuple[str, str, str]) -> None:
        until = time.monotonic() + self.settings.settle
        while time.monotonic() < until:
            time.sleep(_POLL_S)
            if (now := self.server.run_state()) != before:
                state = f"it is {now[0]}, restarted {now[2]} times"
                why = f"the server did not stay up after a login ({state})"
                raise Failure(f"{self.server.user}: {why}")

    def _count_downtime(self, step: str) -> None:
        """Count the time since the last count for this step, once the server was stopped."""
        if self._mark is not None:
            now = time.monotonic()
            self.downtime[step] = self.downtime.get(step, 0) + now - self._mark
            self._mark = now
