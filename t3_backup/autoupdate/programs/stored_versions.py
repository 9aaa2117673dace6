"""List the versions on the disk with who needs each, and remove what nobody can go back to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from t3_backup.autoupdate import journal
from t3_backup.autoupdate.context import Context
from t3_backup.autoupdate.journal import Journal
from t3_backup.autoupdate.programs.installations import GLOBAL
from t3_backup.autoupdate.programs.package_tree import measure_tree
from t3_backup.autoupdate.rollback_plan import find_before, find_undone
from t3_backup.errors import Failure
from t3_backup.text import format_size


@dataclass(frozen=True)
class Need:
    """Who needs a version."""

    is_default: bool
    users: tuple[str, ...]  # who are on it
    back: tuple[str, ...]  # who were on it before, and can go back to it
    under_way: tuple[str, ...]  # whom a bump or rollback that has not ended moves from or to it

    def __str__(self) -> str:
        """Say it; empty where nobody does."""
        said = [] if not self.is_default else ["the default"]
        for users, what in (
            (self.users, "on it"),
            (self.back, "can go back to it"),
            (self.under_way, "in a move that has not ended"),
        ):
            said += [f"{', '.join(users)} {what}"] if users else []
        return "; ".join(said)


@dataclass(frozen=True)
class StoredVersion:
    """A version on the disk; the keys of `versions --json`."""

    version: str
    bytes: int  # that it takes on the disk
    level: int | None  # of the database that it makes
    origin: str
    needed: Need

    def line(self) -> str:
        """Say it to a person."""
        level = "level unknown" if self.level is None else f"level {self.level}"
        why = str(self.needed) or f"nobody needs it: t3-autoupdate versions --remove {self.version}"
        return f"{self.version}: {format_size(self.bytes)}, {level}, {self.origin}; {why}"


def find_need(
    version: str,
    programs: Mapping[str, str],
    default: str | None,
    moves: Sequence[Journal],
    under_way: Journal | None,
) -> Need:
    """Find who needs a version. Pure.

    `programs` has the version of each account, and `moves` what has ended, the newest first.
    """
    before: dict[str, set[str]] = {}
    for one in moves:
        for move in one.moves:
            if move.phase == journal.DONE:
                before.setdefault(move.user, {move.before})
    for user, known in before.items():
        if (undone := find_undone(moves, user)) is not None:
            known.add(undone[1].before)
    for user, program in programs.items():
        if (lower := find_before(moves, user, program)) is not None:
            before.setdefault(user, set()).add(lower)
    left = () if under_way is None else under_way.moves
    return Need(
        is_default=version == default,
        users=tuple(user for user, program in programs.items() if program == version),
        back=tuple(user for user, known in before.items() if version in known and user in programs),
        under_way=tuple(move.user for move in left if version in (move.before, move.program)),
    )


def read_versions(context: Context) -> list[StoredVersion]:
    """List the versions on the disk, the oldest first. Raises Failure and OSError."""
    installations, found = context.installations, []
    default = installations.linked_version(GLOBAL)
    # of those, too, whom the system doesn't know: it may not reach who would tell it
    programs = {user: installations.version_of(user) for user in installations.linked_users()}
    if default is not None:
        programs |= {user: default for user in context.users() if user not in programs}
    history, under_way = context.journals.history(), context.journals.load()
    for version in installations.installed_versions():
        about = installations.about(version)
        size = measure_tree(installations.prefix(version))
        need = find_need(version, programs, default, history, under_way)
        found.append(StoredVersion(version, size, about.level, about.origin, need))
    return found


def remove_versions(context: Context, wanted: Sequence[str]) -> None:
    """Remove these versions, or all that nobody needs, where none is named.

    Raises Failure where one that is named is needed, or is not there: then nothing is removed.
    """
    there = {one.version: one for one in read_versions(context)}
    for version in wanted:
        if version not in there:
            raise Failure(f"T3 {version} is not in {context.installations.prefix(version).parent}")
        if why := str(there[version].needed):
            raise Failure(f"T3 {version} is needed: {why}; nothing was removed")
    names = wanted or [one.version for one in there.values() if not str(one.needed)]
    for version in dict.fromkeys(names):
        context.installations.remove_version(version)
        context.say(f"T3 {version} was removed, {format_size(there[version].bytes)}")
    if not names:
        context.say("there is no version that nobody needs")
