"""What a move stands on, on a real machine: an account's link, its snapshots, its unit."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from t3_backup.autoupdate.installations import Programs
from t3_backup.autoupdate.settings import Settings
from t3_backup.autoupdate.snapshots import Backups
from t3_backup.errors import Failure
from t3_backup.t3.servers import Server

_POLL_S = 0.2


@dataclass
class LiveSteps:
    """One account's; the caller holds the store, so that no other run comes between stop and start."""

    instance: Server
    programs: Programs
    backups: Backups
    settings: Settings
    warn: Callable[[str], None]  # of what somebody should know
    away: dict[str, float] = field(default_factory=dict, init=False)  # seconds since the stop, up to the last login, by step
    _mark: float | None = field(default=None, init=False)  # time.monotonic() of the last that is in it

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
        self._mark = self._mark or time.monotonic()
        self.instance.stop()
        self._count("stop")

    def start(self) -> None:
        """Start the server."""
        self.instance.start()

    def keep(self, label: str, *, proven: bool) -> str:
        """Seal a snapshot of what is there now; its name."""
        name = self.backups.take(self.instance.user, label, proven=proven, at_rest=True).name
        self._count("copies")
        return name

    def link(self, version: str) -> None:
        """Let the program be this one."""
        self.programs.link(self.instance.user, version)

    def put_back(self, snapshot: str) -> None:
        """Let the data be what a snapshot holds."""
        for told in self.backups.put_back(self.instance.user, snapshot):
            self.warn(f"{self.instance.user}: {told}")
        self._count("copies")

    def check(self) -> str:
        """Log in to the running server as a browser does, and see that it stays up; the endpoint that served it."""
        try:
            self.instance.must_have_port()
            self.instance.await_port(self.settings.patience)
            before = self.instance.steadiness()
            endpoint = self.instance.pair(self.programs.root / self.instance.user / "current/bin/t3", self.settings.patience)
            self._count("start")
            self._stay_up(before)
        except Failure:
            self._count("trial")
            raise
        return endpoint

    def _stay_up(self, before: tuple[str, str, str]) -> None:
        until = time.monotonic() + self.settings.settle
        while time.monotonic() < until:
            time.sleep(_POLL_S)
            if (now := self.instance.steadiness()) != before:
                raise Failure(
                    f"{self.instance.user}: the server did not stay up after a login (it is {now[0]}, restarted {now[2]} times)"
                )

    def _count(self, step: str) -> None:
        """All since the last count was of this step. Nothing is counted where this process has stopped no server."""
        if self._mark is not None:
            now = time.monotonic()
            self.away[step] = self.away.get(step, 0) + now - self._mark
            self._mark = now
