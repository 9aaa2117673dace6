"""Find the snapshot that a person means: `latest`, a name, a time, a date, or an age such as `3d`.

Pure; all times are UTC.
"""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from datetime import UTC, datetime, timedelta

from t3_backup.errors import Failure, UsageError
from t3_backup.store.manifest import Manifest
from t3_backup.store.names import DATA, DELTA, PRERESTORE, UNWANTED

_SPAN = re.compile(r"(\d{1,6})([smhdw])")
_UNIT = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def select_snapshot(snapshots: Sequence[Manifest], when: str, now: datetime) -> Manifest:
    """Select the snapshot that `when` means.

    By name, or the newest one taken at that time or before. A date means its end. Raises UsageError
    for a text that is none of these, Failure where no snapshot is that old.
    """
    newest_first = sorted(snapshots, key=lambda snapshot: snapshot.sequence, reverse=True)
    for snapshot in newest_first:
        if when in _names_of(snapshot):
            return snapshot
    limit = parse_moment(when, now)
    for snapshot in newest_first:
        if limit is None or snapshot.when <= limit:
            return snapshot
    raise Failure(f"no snapshot at or before {when}")


def select_restorable(
    snapshots: Sequence[Manifest],
    when: str,
    now: datetime,
    *,
    label: str | None = None,
    level: int | None = None,
    unsound: Container[str] = (),
) -> Manifest:
    """Select the snapshot that a restore puts back: among the verified ones.

    Any, where it is named or undoes one. `label`: only those of that label; without it, none of
    what a restore took the place of, or a version that failed has made. `level`: only those that a
    T3 of this migration level can open. `unsound`: names of those whose last proof failed, which
    are no verified ones. Raises as `select_snapshot` does.
    """
    if named := next((snapshot for snapshot in snapshots if when in _names_of(snapshot)), None):
        if label is not None and named.label != label:
            raise UsageError(f"--at names {named.name}, whose label is {named.label}, not {label}")
        found = named.live.t3_level
        if level is not None and (found is None or found > level):
            raise UsageError(f"--at names {named.name}, whose T3 level is {found}, above {level}")
        return named
    # What the last restore took the place of comes back whatever it is worth, and never another one
    # for it.
    good = [
        snapshot
        for snapshot in snapshots
        if (snapshot.is_good and snapshot.name not in unsound) or label == PRERESTORE
    ]
    wanted = [
        snapshot
        for snapshot in good
        if (snapshot.label == label if label else snapshot.label not in UNWANTED)
    ]
    if level is not None:
        wanted = [
            snapshot
            for snapshot in wanted
            if snapshot.live.t3_level is not None and snapshot.live.t3_level <= level
        ]
    try:
        return select_snapshot(wanted, when, now)
    except Failure as failure:
        if isinstance(failure, UsageError):
            raise
        asked = [f"label {label}"] if label else []
        asked += [f"T3 level at most {level}"] if level is not None else []
        which = f" with {' and '.join(asked)}" if asked else ""
        which += "" if when == "latest" else f" at or before {when}"
        raise Failure(
            f"no verified snapshot{which} among the {len(snapshots)} there are; "
            "any can be named by --at"
        ) from None


def find_passed_over(
    snapshots: Sequence[Manifest], when: str, now: datetime, unsound: Container[str] = ()
) -> Manifest | None:
    """Find the newest snapshot that `when` means and that is passed over, unless it is a name.

    That is an unproven one, or a verified one of the `unsound`. Such a one is put back by its name
    alone, and somebody should know that it is there.
    """
    if any(when in _names_of(snapshot) for snapshot in snapshots):
        return None
    passed = [
        snapshot
        for snapshot in snapshots
        if (snapshot.verdict == "unproven" or (snapshot.is_good and snapshot.name in unsound))
        and snapshot.label not in UNWANTED
    ]
    try:
        return select_snapshot(passed, when, now)
    except Failure:
        return None


def find_next_best(
    snapshots: Sequence[Manifest],
    broken: Manifest,
    unsound: Container[str],
    level: int | None = None,
) -> Manifest | None:
    """Find the snapshot to put back where `broken`, which was to be, is not what was sealed.

    The newest good one before it, or else the oldest good one after it; None where there is none.
    `level` and `unsound` as in `select_restorable`.
    """
    good = [
        one
        for one in sorted(snapshots, key=lambda one: one.sequence, reverse=True)
        if one.is_good
        and one.name not in unsound
        and one.name != broken.name
        and one.label not in UNWANTED
        and (level is None or (one.live.t3_level is not None and one.live.t3_level <= level))
    ]
    older = [one for one in good if one.sequence < broken.sequence]
    return older[0] if older else next(reversed(good), None)


def _names_of(snapshot: Manifest) -> tuple[str, ...]:
    """Return what a person may call it: its name, or that of its file."""
    return snapshot.name, snapshot.name + DATA, snapshot.name + DELTA


def parse_span(text: str) -> timedelta | None:
    """Parse a time span: what a text such as `26h` means; None where it is none."""
    match = _SPAN.fullmatch(text)
    return timedelta(**{_UNIT[match[2]]: int(match[1])}) if match else None


def parse_moment(when: str, now: datetime) -> datetime | None:
    """Parse a time: the instant that `when` means; None for `latest`.

    Raises UsageError.
    """
    if when == "latest":
        return None
    if (ago := parse_span(when)) is not None:
        try:
            return now - ago
        except OverflowError:
            raise UsageError(f"--at {when!r} is before the calendar begins") from None
    try:
        instant = datetime.fromisoformat(when)
    except ValueError:
        raise UsageError(
            f"--at {when!r} is no snapshot's name, nor 'latest', a time (2026-11-24T03:30Z), a "
            "date, or an age (3d)"
        ) from None
    if re.fullmatch(r"\d{4}-?\d\d-?\d\d", when):
        instant += timedelta(days=1, microseconds=-1)
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)
