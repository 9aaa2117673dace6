"""What a move stands on, on a real machine: an account's link, its snapshots, its unit."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from t3_backup.bump.backups import Backups
from t3_backup.bump.instances import Instance
from t3_backup.bump.programs import Programs
from t3_backup.bump.settings import Settings
from t3_backup.errors import Failure

_PAIR_S = 60
_POLL_S = 0.2


@dataclass
class Live:
    """One account's; the caller holds the store, so that no other run comes between stop and start."""

    instance: Instance
    programs: Programs
    backups: Backups
    settings: Settings
    away_seconds: float | None = None  # from the stop until it was logged in to again
    _stopped: float | None = field(default=None, init=False)  # time.monotonic()

    def hold(self) -> None:
        """Nothing of the account's starts from now on."""
        self.programs.hold(self.instance.user)

    def release(self) -> None:
        """End the hold."""
        self.programs.release(self.instance.user)

    def runs(self) -> bool:
        """Whether the server runs, or is to."""
        return self.instance.runs()

    def stop(self) -> None:
        """Stop the server, and prove it gone."""
        self._stopped = self._stopped or time.monotonic()
        self.instance.stop()

    def start(self) -> None:
        """Start the server."""
        self.instance.start()

    def keep(self, label: str, *, proven: bool) -> str:
        """Seal a snapshot of what is there now; its name."""
        return self.backups.take(self.instance.user, label, proven=proven, at_rest=True).name

    def link(self, version: str) -> None:
        """Let the program be this one."""
        self.programs.link(self.instance.user, version)

    def put_back(self, snapshot: str) -> None:
        """Let the data be what a snapshot holds."""
        self.backups.put_back(self.instance.user, snapshot)

    def check(self) -> str:
        """Log in to the running server as a browser does, and see that it stays up; the endpoint that served it."""
        self.instance.must_have_port()
        self.instance.await_port(self.settings.patience)
        before = self.instance.steadiness()
        endpoint = self.instance.pair(self.programs.root / self.instance.user / "current/bin/t3", _PAIR_S)
        self.away_seconds = None if self._stopped is None else time.monotonic() - self._stopped
        until = time.monotonic() + self.settings.settle
        while time.monotonic() < until:
            time.sleep(_POLL_S)
            if (now := self.instance.steadiness()) != before:
                raise Failure(
                    f"{self.instance.user}: the server did not stay up after a login (it is {now[0]}, restarted {now[2]} times)"
                )
        return endpoint
