"""Find out who is on which version, and whether the databases fit.

Nothing is changed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from t3_backup.accounts import read_map
from t3_backup.autoupdate import freeze, journal
from t3_backup.autoupdate.context import Context
from t3_backup.autoupdate.journal import Journal
from t3_backup.autoupdate.programs import adopt
from t3_backup.autoupdate.programs.installations import GLOBAL, About
from t3_backup.autoupdate.programs.own_program import why_left_alone
from t3_backup.autoupdate.stale import find_stale
from t3_backup.errors import Failure
from t3_backup.t3.databases import explain_stale
from t3_backup.t3.unit import unit_name
from t3_backup.text import quote


@dataclass(frozen=True)
class AccountStatus:
    """How one account is."""

    user: str
    version: str  # of its program; empty where T3 is not taken over
    level: int | None  # of its database
    expected: int | None  # the level that its version makes
    running: bool
    phase: str  # of a move that has not ended; or empty
    held: bool
    frozen: str | None  # why it is left out of each change
    canary: bool  # whether it is on a newer version alone, and others have not followed
    unfit: str  # why its version can't work with its database; empty: it can
    stale: str  # a database that a newer T3 has made beside it; or empty
    trouble: str  # what is not well, and what to do; empty where all is

    @property
    def is_above(self) -> bool:
        """Tell whether a newer T3 has migrated the database, beyond the account's own."""
        return bool(self.unfit)

    @property
    def is_touched(self) -> bool:
        """Tell whether a newer T3 was called on the account's data."""
        return self.is_above or bool(self.stale)


@dataclass(frozen=True)
class BumpStatus:
    """How all accounts are, and what is under way; the keys of `status --json`."""

    pin: str
    version: str  # of the default
    frozen: str | None
    journal: Journal | None
    last: Journal | None  # the newest that has ended
    accounts: tuple[AccountStatus, ...]
    warnings: tuple[str, ...]

    @property
    def is_well(self) -> bool:
        """Tell whether nothing wants a look."""
        troubled = any(one.trouble for one in self.accounts)
        return self.frozen is None and not self.warnings and not troubled

    def lines(self) -> list[tuple[bool, str]]:
        """Say it to a person, line by line; true where it wants a look."""
        version = self.version or "is not taken over yet: t3-autoupdate adopt"
        found = [(False, f"T3 {version} (pin {self.pin})")]
        if self.frozen is not None:
            found.append((True, f"frozen: {self.frozen}; t3-autoupdate thaw ends it"))
        found += [(True, warning) for warning in self.warnings]
        if (plan := self.journal) is not None:
            moves = journal.summarize_moves(plan.moves)
            found.append((False, f"a {plan.kind} to {plan.version} since {plan.began}: {moves}"))
        for one in self.accounts:
            level = "no database" if one.level is None else f"level {one.level}"
            runs = "running" if one.running else "not running"
            canary = "canary" if one.canary else ""
            what = filter(None, (one.version or "not adopted", level, runs, one.phase, canary))
            text = f"{one.user}: {', '.join(what)}"
            found.append((bool(one.trouble), f"{text}: {one.trouble}" if one.trouble else text))
        return found


def read_status(context: Context) -> BumpStatus:
    """Find out what is there now. Raises Failure and OSError."""
    plan = context.journals.load()
    history = context.journals.history()
    installations = context.installations
    version = installations.linked_version(GLOBAL) or ""
    warnings = []
    if version and os.path.realpath(context.settings.bin) != str(installations.launcher):
        text = f"{context.settings.bin} is not our launcher any more"
        why = "a call of it may migrate a database under an older server"
        warnings.append(f"{text}: {why}; t3-autoupdate adopt")
    if version and not adopt.DROP_IN.exists():
        why = "servers don't run their account's own program"
        warnings.append(f"{adopt.DROP_IN} is missing: {why}; t3-autoupdate adopt")
    known = read_map(context.user_map)
    warnings += known.warnings
    if not known.users:
        warnings.append(f"{context.user_map} names no account")
    canaries = context.canaries()
    accounts = tuple(
        replace(read_account(context, user, plan), canary=user in canaries) for user in known.users
    )
    last, frozen = history[0] if history else None, freeze.read_reason(context.settings.freeze)
    return BumpStatus(context.settings.pin, version, frozen, plan, last, accounts, tuple(warnings))


def read_account(context: Context, user: str, plan: Journal | None) -> AccountStatus:
    """Find out how one account is; `plan` is what is under way. Raises OSError."""
    installations = context.installations
    phase = next((one.phase for one in plan.moves if one.user == user), "") if plan else ""
    frozen = context.why_frozen(user)
    version, running, held, live = "", False, False, None
    trouble, another, alone = "", "", ""
    try:
        held = installations.is_held(user)
        version = installations.linked_version(user) or installations.linked_version(GLOBAL) or ""
        server = context.server(user)
        crashed = server.has_crashed()
        running = server.runs() and not crashed
        if crashed:
            trouble = f"its server has failed: journalctl -u {quote(unit_name(user))}"
        if server.service is not None:
            launcher, called = installations.launcher, context.settings.bin
            another = adopt.why_another_runs(server.service, launcher, called)
        alone = why_left_alone(server, installations).removeprefix(f"{user}: ")
        live = server.read_activity()
    except Failure as failure:
        trouble = str(failure).removeprefix(f"{user}: ")
    # of a program of their own nothing is known, and so not of the database that it made
    about = installations.about(version) if version and not alone else About("", "")
    own = None if live is None else live.of_program(about.database)
    found = AccountStatus(
        user,
        version,
        level=None if own is None else own.level,
        expected=about.level,
        running=running,
        phase=phase,
        held=held,
        frozen=frozen,
        canary=False,
        unfit="" if own is None else about.why_unfit(own.file, own.level, own.ledger),
        stale=find_stale(about.database, live),
        trouble=trouble,
    )
    if phase in journal.UNDER_WAY:
        mend = "unless one is running: t3-autoupdate resume"
        trouble = f"{'held, ' if held else ''}its move has not ended; {mend}"
    elif held:
        trouble = "held, but no move is under way: t3-autoupdate resume"
    elif alone:
        trouble = alone
    elif found.is_above:
        trouble = _explain_above(found)
    elif found.stale:
        trouble = explain_stale(user, found.stale, f"T3 {version}")
    elif version and not trouble:
        trouble = another
    if frozen is not None:
        end = f"next: t3-autoupdate thaw --user {quote(user)}"
        trouble = "; ".join(filter(None, (trouble, f"frozen: {frozen}; {end}")))
    return replace(found, trouble=trouble)


def _explain_above(one: AccountStatus) -> str:
    """Say what to do: any call of a newer T3 migrates a database."""
    is_higher = one.level is not None and one.expected is not None and one.level > one.expected
    which = f"is of level {one.level}, above {one.expected} of {one.version}"
    return (
        f"the database {which if is_higher else f'is not one of {one.version} ({one.unfit})'}: "
        "a newer t3 was called on it; nobody can log in. Put back the newest that fits: "
        f"t3-autoupdate rollback --user {quote(one.user)} --to {one.version}; "
        "or go on to the version that it is of: t3-autoupdate --to VERSION"
    )
