"""Find out which accounts a bump is to move, and which of them it can.

Nothing is changed by that, but for the freeze of those that are left out: what keeps one from being
moved keeps no other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from t3_backup.autoupdate import journal, preflight
from t3_backup.autoupdate.context import Context
from t3_backup.autoupdate.faults import find_faults
from t3_backup.autoupdate.forecast import Forecast, forecast_move
from t3_backup.autoupdate.programs.own_program import why_left_alone
from t3_backup.errors import Failure
from t3_backup.store.manifest import Manifest
from t3_backup.t3 import versions
from t3_backup.t3.servers import Activity, Server
from t3_backup.text import quote


@dataclass
class Candidates:
    """The accounts that are to be moved to a version, and what is known of them."""

    context: Context
    version: str
    asked: bool  # by hand, and not as the pin has it
    only_tried: bool  # nobody is moved, so nobody is frozen
    accounts: list[Server] = field(default_factory=list)
    # the snapshots of each, the newest first
    known: dict[str, Sequence[Manifest]] = field(default_factory=dict)
    with_data: set[str] = field(default_factory=set)  # the others have no database yet

    def choose(self, everybody: Sequence[Server], chosen: Sequence[Server]) -> None:
        """Take those of the `chosen` that are on a lower version and can be moved.

        Raises Failure where one that was asked for can't be, and no other is left.
        """
        self.accounts = list(chosen)
        self.keep(lambda one: self.context.installations.version_of(one.user))
        self._drop_others()
        self.accounts = [one for one in self.accounts if not self._is_frozen(one.user)]
        self.keep(lambda one: self._look_at(one, everybody))

    def keep(self, check: Callable[[Server], object]) -> None:
        """Keep those that pass a check, and leave the others out. Raises Failure."""
        faults = find_faults(self.accounts, check)
        for user, why in faults.items():
            self.leave_out(user, why)

    def leave_out(self, user: str, why: str) -> None:
        """Go on without one of them."""
        self.context.leave_out(user, why, only_tried=self.only_tried)
        self.drop(user)

    def forecast(self, one: Server, live: Activity) -> Forecast:
        """Forecast what the move of one takes."""
        installations = self.context.installations
        own = installations.about(installations.version_of(one.user)).database
        measured = journal.last_seconds(self.context.journals.history(), one.user)
        return forecast_move(live, own, installations.about(self.version).database, measured)

    def say_forecasts(self) -> None:
        """Say what the move of each would take."""
        for one in self.accounts:
            if (live := one.read_activity()) is not None:
                self.context.say(f"forecast: {one.user}: {self.forecast(one, live)}")

    def drop(self, user: str) -> None:
        """Let one stay as it is, which was told."""
        self.accounts = [one for one in self.accounts if one.user != user]

    def _drop_others(self) -> None:
        """Drop those who are on the version already, or above it, and tell of these.

        Raises Failure where nobody is below it, and it was asked for.
        """
        current = {
            one.user: self.context.installations.version_of(one.user) for one in self.accounts
        }
        above = [user for user, found in current.items() if versions.is_lower(self.version, found)]
        for user in [user for user, found in current.items() if found == self.version] + above:
            self.drop(user)
        canaries = self.context.canaries()
        for user in above:
            if user in canaries:
                self.context.say(f"{user}: stays on {current[user]}, as a canary")
                continue
            text = f"{user} is on {current[user]}, above {self.version}, "
            text += "which can't work with its database"
            if self.asked and not self.accounts:
                mend = f"t3-autoupdate rollback --to {self.version}"
                raise Failure(f"{text}; to go back with the data of then: {mend}")
            self.context.say(f"{text}: nothing is done{'' if self.asked else ' (T3_PIN)'}")

    def _is_frozen(self, user: str) -> bool:
        """Tell whether an account is frozen alone, and say that it stays."""
        why = self.context.why_frozen(user)
        if why is None:
            return False
        end = f"next: t3-autoupdate thaw --user {quote(user)}"
        before = self.context.installations.version_of(user)
        self.context.warn(f"{user}: stays on {before}: frozen: {why}; {end}")
        if self.asked:
            self.context.left_out.add(user)
        return True

    def _look_at(self, one: Server, everybody: Sequence[Server]) -> None:
        """Look at all that can be known of one. Raises Failure."""
        if why := why_left_alone(one, self.context.installations):
            self.context.warn(why)
            self.drop(one.user)
            return
        preflight.check_port(one, everybody)
        live = one.read_activity()
        if live is None and (why := preflight.why_no_database(one, self.context.snapshots)):
            before = self.context.installations.version_of(one.user)
            self.context.warn(f"{one.user}: stays on {before}: {why}")
            self.drop(one.user)
            return
        self.known[one.user] = self.context.snapshots.list_snapshots(one.user)
        if live is not None:
            self.with_data.add(one.user)
            preflight.check_home(one, self.forecast(one, live))
