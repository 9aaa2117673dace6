"""The operation that reads what T3 is at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from t3_backup.t3.databases import MOST, DatabaseState
from t3_backup.worker.operations import Operation
from t3_backup.worker.protocol import Count, Event
from t3_backup.worker.sources import DatabaseName


def _check_databases(found: tuple[DatabaseState, ...]) -> tuple[DatabaseState, ...]:
    if len(found) > MOST or len({one.file for one in found}) < len(found):
        raise ValueError("they are too many, or two have one name")
    return found


@dataclass(frozen=True)
class Activity(Event):
    """What the databases say of T3."""

    level: int | None  # the newest migration of the live one; None: it is no database of T3's
    turns: Count  # that agents are at, by the live one
    live: DatabaseName
    databases: Annotated[tuple[DatabaseState, ...], _check_databases]
    free_bytes: Count  # of the file system that they are on


@dataclass(frozen=True)
class ReadActivity(Operation[Activity]):
    """Read the level of each database, and the turns of agents in the live one."""
