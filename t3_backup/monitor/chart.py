"""Draw the charts of the report: shares of width and height in percent.

Pure; all times are UTC.

A year of labelled snapshots beside two weeks of nights would leave the nights no room. So the axis
of time begins with the oldest snapshot that has no label; what is older stands before it, at even
distances.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from t3_backup.store.manifest import Manifest

_LEFT, _RIGHT = 2.0, 98.0
_EARLIER_EACH, _EARLIER_MOST = 5.0, 30.0
_SHORTEST = timedelta(days=1)
_MOST_TICKS = 5
_STEPS = [timedelta(hours=hours) for hours in (6, 12, 24, 2 * 24, 7 * 24, 14 * 24)]
_MONTHS = (1, 2, 3, 6, 12, 24, 60, 120)
_MONTH = timedelta(days=30)
_EPOCH = datetime(1969, 12, 29, tzinfo=UTC)  # a Monday
_LAST_TICK = 88.0  # behind it stands "now"
_NAME_ROOM = 22.0  # what a flag's text takes
_TO_THE_LEFT = 70.0  # from here on it is written before its flag
_LONGEST_NAME = 22  # characters


@dataclass(frozen=True)
class Tick:
    """A mark on the axis of time."""

    x: float
    text: str


@dataclass(frozen=True)
class Point:
    """A snapshot in the charts. `y`, `copy` and `both` are heights above the floor."""

    x: float
    y: float  # its size
    copy: float  # seconds of the copy
    both: float  # of copy and proof
    verdict: str
    label: str | None
    flag: str  # what is written beside its flag: its label, or nothing where there is no room
    left: bool  # it is written before it
    title: str


@dataclass(frozen=True)
class Chart:
    """The charts of one account."""

    points: tuple[Point, ...]  # oldest first
    ticks: tuple[Tick, ...]
    begins: float | None  # where the axis begins, where something stands before it
    line: str  # through the sizes of those on the axis: an SVG path over 100 by 100, from above
    largest: int  # bytes
    longest: float  # seconds


def draw(oldest_first: Sequence[Manifest], now: datetime) -> Chart:
    """Draw the snapshots of one account, of which there is one at least."""
    unlabelled = [snapshot.when for snapshot in oldest_first if snapshot.label is None]
    begin = min(min(unlabelled, default=oldest_first[0].when), now - _SHORTEST)
    earlier = sum(snapshot.when < begin for snapshot in oldest_first)
    left = _LEFT + min(earlier * _EARLIER_EACH, _EARLIER_MOST)
    each = (left - _LEFT) / earlier if earlier else 0.0

    def place(when: datetime) -> float:
        return round(left + (_RIGHT - left) * min(1.0, (when - begin) / (now - begin)), 2)

    ordered = sorted(oldest_first, key=lambda snapshot: snapshot.when)
    places = [place(snapshot.when) for snapshot in ordered]
    places[:earlier] = [round(_LEFT + each * number, 2) for number in range(earlier)]
    largest = max(snapshot.total_bytes for snapshot in ordered)
    longest = max(snapshot.live.copy_seconds + snapshot.live.proof_seconds for snapshot in ordered)
    flags = [x for x, snapshot in zip(places, ordered, strict=True) if snapshot.label]
    points = tuple(
        _point(snapshot, x, flags, largest, longest)
        for x, snapshot in zip(places, ordered, strict=True)
    )
    line = " L ".join(f"{point.x} {round(100 - point.y, 2)}" for point in points[earlier:])
    return Chart(
        points=points,
        ticks=tuple(ticks(begin, now, left)),
        begins=left if earlier else None,
        line=f"M {line}" if line else "",
        largest=largest,
        longest=longest,
    )


def _point(
    snapshot: Manifest, x: float, flags: Sequence[float], largest: int, longest: float
) -> Point:
    label, flag, left = snapshot.label or "", "", x > _TO_THE_LEFT
    room = (x - _NAME_ROOM, x) if left else (x, x + _NAME_ROOM)
    if label and sum(room[0] <= other <= room[1] for other in flags) == 1:  # its own
        flag = label if len(label) <= _LONGEST_NAME else label[: _LONGEST_NAME - 1] + "…"
    told = [f"{snapshot.when:%Y-%m-%d %H:%M} UTC", snapshot.verdict, label]
    return Point(
        x=x,
        y=_share(snapshot.total_bytes, largest),
        copy=_share(snapshot.live.copy_seconds, longest),
        both=_share(snapshot.live.copy_seconds + snapshot.live.proof_seconds, longest),
        verdict=snapshot.verdict,
        label=snapshot.label,
        flag=flag,
        left=left,
        title=", ".join(filter(None, told)),
    )


def _share(value: float, most: float) -> float:
    """Compute a share of the height; the greatest one leaves some air above."""
    return round(88 * value / most, 2) if most else 0.0


def ticks(begin: datetime, end: datetime, left: float) -> list[Tick]:
    """List round times, as many as can be read on an axis that begins at `left`."""
    span = end - begin
    step = next((step for step in _STEPS if span / step <= _MOST_TICKS), None)
    found = []
    for when in _months(begin, end) if step is None else _every(step, begin, end):
        x = round(left + (_RIGHT - left) * ((when - begin) / span), 2)
        if x <= _LAST_TICK:
            found.append(Tick(x, _name(when, step)))
    return found


def _every(step: timedelta, begin: datetime, end: datetime) -> Iterator[datetime]:
    when = _EPOCH + step * -((_EPOCH - begin) // step)
    while when <= end:
        yield when
        when += step


def _months(begin: datetime, end: datetime) -> Iterator[datetime]:
    """Give the first days of months."""
    few = (months for months in _MONTHS if (end - begin) / (_MONTH * months) <= _MOST_TICKS)
    step = next(few, _MONTHS[-1])
    for month in range(begin.year * 12, end.year * 12 + 12, step):
        when = datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC)
        if begin <= when <= end:
            yield when


def _name(when: datetime, step: timedelta | None) -> str:
    if step is None:
        return f"{when:%b %Y}"
    return f"{when:%H:%M}" if step < timedelta(days=1) and when.hour else f"{when.day} {when:%b}"
