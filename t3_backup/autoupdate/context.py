"""Hold what each command of t3-autoupdate needs: settings, accounts, snapshots."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from t3_backup import accounts
from t3_backup.autoupdate import freeze, journal
from t3_backup.autoupdate.activity import read_activity
from t3_backup.autoupdate.journal import Journals
from t3_backup.autoupdate.programs.installations import GLOBAL, Installations
from t3_backup.autoupdate.settings import Settings
from t3_backup.autoupdate.snapshots import Snapshots
from t3_backup.errors import Cancelled, Failure, SystemdUnanswered
from t3_backup.system.signals import StopRequest
from t3_backup.t3 import servers, versions
from t3_backup.t3.servers import Server
from t3_backup.text import format_time, quote, utc_now


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
    # who could not be moved and was told so: the command has not done all that it was asked for
    left_out: set[str] = field(default_factory=set, init=False, repr=False, compare=False)
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
        """List the servers of all accounts; warn of each user who does not exist.

        Raises SystemdUnanswered.
        """
        found = []
        for user in self.users():
            try:
                found.append(self.server(user))
            except SystemdUnanswered:
                raise  # else all would be passed over
            except Failure as failure:
                self.warn_once(str(failure))
        return found

    def server(self, user: str) -> Server:
        """Find the server of `user`. Raises Failure."""
        self.installations.require_folder(user)  # else all would be moved with `global`
        return servers.find_server(user, self.settings.serve, read_activity)

    def canaries(self) -> dict[str, str]:
        """Say on which version each canary is, which the others have not followed to yet.

        Raises Failure.
        """
        installations = self.installations
        default = installations.linked_version(GLOBAL)
        under_way = self.journals.load()
        journals = [*([] if under_way is None else [under_way]), *self.journals.history()]
        found = {}
        for user, moved in journal.find_canaries(journals).items():
            own = None
            with contextlib.suppress(Failure):  # that is told where the account is looked at
                own = installations.linked_version(user)
            if own in moved and default is not None and versions.is_lower(default, own):
                found[user] = own
        return found

    def why_frozen(self, user: str) -> str | None:
        """Say why an account is frozen alone; None where it isn't."""
        return freeze.read_reason(freeze.account_file(self.settings.root, user))

    def leave_out(self, user: str, why: str, *, only_tried: bool = False) -> str:
        """Go on without an account: freeze it alone, and tell why.

        Return what it was frozen with; nothing where it was `only_tried`. Raises OSError.
        """
        self.left_out.add(user)
        if only_tried:
            self.warn(f"{user}: would be left out: {why}")
            return ""
        reason = f"{format_time(utc_now())} {why}"
        freeze.freeze(freeze.account_file(self.settings.root, user), reason)
        end = f"t3-autoupdate thaw --user {quote(user)}"
        self.warn(f"{user}: left out: {why}; it alone is frozen; next: {end}")
        return reason

    def link_newcomers(self) -> bool:
        """Link each account without a link to its version; tell whether all have one.

        Who has none is on the default, and is moved with it.
        """
        whole = True
        for one in self.servers():
            try:
                self.installations.link_newcomers([one.user])
            except Failure as failure:
                self.warn_once(f"{one.user}: has no program of its own: {failure}")
                whole = False
        return whole

    def raise_if_stopped(self, left: str) -> None:
        """Raise Cancelled once somebody wants an end; `left` tells of the rest."""
        if self.stopping.is_set():
            raise Cancelled(f"stopped; {left}")
