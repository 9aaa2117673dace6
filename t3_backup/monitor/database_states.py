"""Tell how each database of an account is: live, or frozen since when; its size and its growth.

Pure: values in, values out. All is as the newest snapshot has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from t3_backup.monitor.health import Health, size_trend, trend_text
from t3_backup.store.manifest import DatabaseRecord, Manifest
from t3_backup.t3.databases import shown_name
from t3_backup.text import format_size


@dataclass(frozen=True)
class DatabaseState:
    """How one database is. The names of the fields are keys of the interface."""

    file: str
    live: bool
    level: int | None
    bytes: int
    bytes_per_day: int | None  # by which it grows; None where that can't be told
    verdict: str
    # when the oldest of the snapshots was taken since which it is the same; None: it changes
    frozen_since: str | None
    moment: str  # what was committed by then is in the newest snapshot


def database_states(health: Health) -> list[DatabaseState]:
    """List the databases of an account's newest snapshot, the live one first."""
    if not health.view.snapshots:
        return []
    newest = health.view.snapshots[0]
    found = sorted(newest.databases, key=lambda one: (not one.live, one.file))
    return [_state(one, health) for one in found]


def _state(record: DatabaseRecord, health: Health) -> DatabaseState:
    snapshots = health.view.snapshots
    trend = size_trend(health.fresh.good, record.file)
    return DatabaseState(
        file=record.file,
        live=record.live,
        level=record.t3_level,
        bytes=record.bytes,
        bytes_per_day=None if trend is None else round(trend),
        verdict=record.verdict,
        frozen_since=_frozen_since(snapshots, record.file),
        moment=record.moment or snapshots[0].taken_at,
    )


def _frozen_since(snapshots: Sequence[Manifest], file: str) -> str | None:
    """Find since when a database that is not the live one is the same, by snapshots newest first.

    One that differs from what the snapshot before the newest has, where it was not live either, is
    not frozen.
    """
    images = [snapshot.image_of(file) for snapshot in snapshots]
    newest, same = images[0], 0
    if newest is None or newest.record.live:
        return None
    for image in images:
        if image is None or image.record.live or image.sha256 != newest.sha256:
            break
        same += 1
    before = images[same] if same < len(images) else None
    if same == 1 and before is not None and not before.record.live:
        return None
    return snapshots[same - 1].taken_at


def describe(states: Sequence[DatabaseState]) -> str:
    """Write one line of several databases; empty where there is only one."""
    return "; ".join(map(_describe_one, states)) if len(states) > 1 else ""


def _describe_one(state: DatabaseState) -> str:
    how = "live" if state.live else "not live"
    if state.frozen_since is not None:
        how = f"frozen since {state.frozen_since[:10]}"
    parts = [f"{shown_name(state.file)} {how}"]
    if state.level is not None:
        parts.append(f"level {state.level}")
    parts.append(format_size(state.bytes))
    if state.frozen_since is None and state.bytes_per_day is not None:
        parts.append(trend_text(state.bytes_per_day))
    if state.verdict != "verified":
        parts.append(state.verdict)
    return ", ".join(parts)
