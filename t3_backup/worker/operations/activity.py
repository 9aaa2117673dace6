"""The operation that reads what T3 is at."""

from __future__ import annotations

from dataclasses import dataclass

from t3_backup.worker.operations import Operation
from t3_backup.worker.protocol import Count, Event


@dataclass(frozen=True)
class Activity(Event):
    """What the live database says of T3."""

    level: int | None  # the newest migration; None: it is no database of T3's
    turns: Count  # that agents are at


@dataclass(frozen=True)
class ReadActivity(Operation[Activity]):
    """Read the level of the live database, and the turns of agents."""
