"""Which snapshot a person means: `latest`, a name, a time, a date, or an age such as `3d`. Pure; all times are UTC."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from t3_backup.errors import Failure, UsageError
from t3_backup.manifest import DATA, Manifest

_AGE = re.compile(r"(\d{1,6})([smhdw])")
_UNIT = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def choose(snapshots: Sequence[Manifest], when: str, now: datetime) -> Manifest:
    """The snapshot that `when` means among those of one account: by name, or the newest one taken at that time or before.

    A date means its end. Raises UsageError for a text that is none of these, Failure where no snapshot is that old.
    """
    newest_first = sorted(snapshots, key=lambda snapshot: snapshot.sequence, reverse=True)
    for snapshot in newest_first:
        if when in (snapshot.name, snapshot.name + DATA):
            return snapshot
    limit = moment(when, now)
    for snapshot in newest_first:
        if limit is None or snapshot.when <= limit:
            return snapshot
    raise Failure(f"no snapshot at or before {when}")


def moment(when: str, now: datetime) -> datetime | None:
    """The instant that `when` means; None for `latest`. Raises UsageError."""
    if when == "latest":
        return None
    if match := _AGE.fullmatch(when):
        try:
            return now - timedelta(**{_UNIT[match[2]]: int(match[1])})
        except OverflowError:
            raise UsageError(f"--at {when!r} is before the calendar begins") from None
    try:
        instant = datetime.fromisoformat(when)
    except ValueError:
        raise UsageError(
            f"--at {when!r} is no snapshot's name, nor 'latest', a time (2026-11-24T03:30Z), a date, or an age (3d)"
        ) from None
    if re.fullmatch(r"\d{4}-?\d\d-?\d\d", when):
        instant += timedelta(days=1, microseconds=-1)
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)
