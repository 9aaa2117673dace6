"""Hold what each command of t3-autoupdate needs: settings, accounts, snapshots."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from t3_backup import accounts
from t3_backup.autoupdate import freeze
from t3_backup.autoupdate.activity import read_activity
from t3_backup.autoupdate.installations import Installations
from t3_backup.autoupdate.journal import Journals
from t3_backup.autoupdate.settings import Settings
from t3_backup.autoupdate.snapshots import Snapshots
from t3_backup.errors import Cancelled, Failure
from t3_backup.system.signals import StopRequest
from t3_backup.t3 import servers
from t3_backup.t3.servers import Server


@dataclass(frozen=True)
class Context:
    """The values of one command."""

    settings: Settings
    user_map: Path
    textfiles: Path | None  # where the metrics go
    snapshots: Snapshots
    say: Callable[[str], None]
    warn: Callable[[str], None]
    stopping: StopRequest
    _warned: set[str] = field(default_factory=set, init=False, repr=False, compare=False)

    @property
    def installations(self) -> Installations:
        """Give what is installed."""
        return Installations(self.settings.root)

    @property
    def journals(self) -> Journals:
        """Give what is under way, and what was."""
        return Journals(self.settings.root)

    def users(self) -> list[str]:
        """List who may have a T3 server; warn of each line of the map that makes no sense."""
        found = accounts.read_map(self.user_map)
        for warning in found.warnings:
            self.warn_once(warning)
        return list(found.users)

    def warn_once(self, text: str) -> None:
        """Warn of what is found out again and again in one command."""
        if text not in self._warned:
            self._warned.add(text)
            self.warn(text)

    def servers(self) -> list[Server]:
        """List the servers of all accounts; warn of each user who does not exist."""
        found = []
        for user in self.users():
            try:
                found.append(self.server(user))
            except Failure as failure:
                self.warn_once(str(failure))
        return found

    def server(self, user: str) -> Server:
        """Find the server of `user`. Raises Failure."""
        return servers.find_server(user, self.settings.serve, read_activity)

    def why_frozen(self, user: str) -> str | None:
        """Say why an account is frozen alone; None where it isn't."""
        return freeze.read_reason(freeze.account_file(self.settings.root, user))

    def raise_if_stopped(self, left: str) -> None:
        """Raise Cancelled once somebody wants an end; `left` tells of the rest."""
        if self.stopping.is_set():
            raise Cancelled(f"stopped; {left}")
