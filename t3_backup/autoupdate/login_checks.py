"""Check whether people can log in to T3, and leave what it came to for t3-backup."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from t3_backup import accounts
from t3_backup.autoupdate import journal
from t3_backup.autoupdate.context import Context
from t3_backup.autoupdate.journal import Move
from t3_backup.autoupdate.programs.own_program import why_left_alone
from t3_backup.autoupdate.status import read_account
from t3_backup.errors import Failure, SystemdUnanswered
from t3_backup.t3 import login_report
from t3_backup.t3.login_report import Login
from t3_backup.t3.servers import Server
from t3_backup.t3.unit import unit_name
from t3_backup.text import format_time, quote, utc_now


@dataclass(frozen=True)
class AccountLogin:
    """What a check of one account came to."""

    user: str
    paired: bool | None  # None: not tried
    endpoint: str = ""  # that took the credential
    reason: str = ""  # why nobody can log in, or why it was not tried
    next_step: str = ""
    trouble: str = ""  # what else is not well with the account, and what to do
    left: str = ""  # of the logins of checks, which are ended; and why
    required: bool = False  # whether it is wrong that it was not tried

    @property
    def is_wrong(self) -> bool:
        """Tell whether the login wants a look."""
        return not self.paired and (self.required or self.paired is False)

    @property
    def is_well(self) -> bool:
        """Tell whether nothing wants a look."""
        return not self.is_wrong and not self.trouble

    def lines(self) -> list[tuple[bool, str]]:
        """Say it to a person, line by line; true where it wants a look."""
        if self.paired:
            told = f"login by {self.endpoint}"
        else:
            untried = "" if self.paired is False else "not tried: "
            following = f"; next: {self.next_step}" if self.next_step else ""
            told = f"{untried}{self.reason.removeprefix(f'{self.user}: ')}{following}"
        lines = [(self.is_wrong, f"{self.user}: {told}")]
        left = f"left behind: {self.left}" if self.left else ""
        return lines + [(True, f"{self.user}: {more}") for more in (left, self.trouble) if more]

    def as_json(self) -> dict[str, Any]:
        """Write it as the interface has it."""
        key, value = ("endpoint", self.endpoint) if self.paired else ("reason", self.reason)
        found = {"paired": self.paired, key: value}
        more = {"left": self.left, "trouble": self.trouble}
        return found | {key: value for key, value in more.items() if value}


def check_logins(context: Context, users: Sequence[str], *, required: bool) -> list[AccountLogin]:
    """Log in to the server of each user as a browser does, and say what it came to.

    `required`: each must have a running server. Raises Failure and Cancelled.
    """
    plan, found = context.journals.load(), []
    for user in users:
        context.raise_if_stopped("not every server was checked")
        one = _check_account(context, user, required=required)
        about = read_account(context, user, plan)
        if about.is_touched:
            one = replace(one, trouble=about.trouble)
        for wants_a_look, line in one.lines():
            (context.warn if wants_a_look else context.say)(line)
        found.append(one)
    return found


def note_move(context: Context, done: Move) -> None:
    """Leave what the login at the end of a move came to, where there was one."""
    if done.phase in journal.UNDER_WAY:
        _note(context, done.user, paired=False, reason=done.reason)
    elif done.endpoint and done.ran:
        _note(context, done.user, paired=True, reason="")


def _check_account(context: Context, user: str, *, required: bool) -> AccountLogin:
    if not accounts.exists(user):
        why, mend = f"{user}: no such user on this system", f"mend {context.user_map}"
        return AccountLogin(user, False, reason=why, next_step=mend)
    try:
        found = _try_login(context, context.server(user), required=required)
    except SystemdUnanswered as failure:
        again = f"t3-autoupdate check --user {quote(user)}"
        found = AccountLogin(user, None, reason=str(failure), next_step=again, required=True)
    except Failure as failure:
        look = f"journalctl -u {quote(unit_name(user))}"
        found = AccountLogin(user, False, reason=str(failure), next_step=look)
    _note(context, user, found.paired, found.reason)
    return found


def _try_login(context: Context, server: Server, *, required: bool) -> AccountLogin:
    """Log in, where a login is to be tried. Raises Failure where nobody can."""
    user = server.user
    if why := _why_not_tried(context, server):
        return AccountLogin(user, None, reason=why[0], next_step=why[1], required=required)
    program, patience = context.installations.program_of(user), context.settings.patience
    endpoint = server.log_in(program, patience, context.warn)
    return AccountLogin(user, True, endpoint, left=server.end_logins(program, patience))


def _why_not_tried(context: Context, server: Server) -> tuple[str, str] | None:
    """Say why no login is tried, and what to do; None where one is. Raises Failure."""
    unit = unit_name(server.user)
    if context.installations.is_held(server.user):
        # a mint would change data that is being exchanged
        return "it is held: its move has not ended", "t3-autoupdate status"
    if server.service is None:
        return f"there is no unit {unit}", f"systemctl status {quote(unit)}"
    if not server.runs():
        return "no server runs", f"systemctl start {unit}"
    # a mint by the program that is linked could migrate what their own one works on
    if alone := why_left_alone(server, context.installations):
        why, _, following = alone.partition("; next: ")
        return why, following
    return None


def _note(context: Context, user: str, paired: bool | None, reason: str) -> None:
    """Leave what a login came to; only warn where that can't be done."""
    installations, at = context.installations, format_time(utc_now())
    try:
        version = installations.version_of(user)
    except Failure:
        return  # it has no program, which was told
    login = Login(paired, version, at, since=at, reason=reason.removeprefix(f"{user}: "))
    try:
        login_report.write_login(installations.root, user, login)
    except OSError as error:
        context.warn(f"{user}: what the login came to could not be noted: {error}")
