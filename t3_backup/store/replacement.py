"""Say what becomes of each database in a swap: what an intent and its workers share. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from t3_backup.records import MORE, one_of
from t3_backup.system.file_identity import FileIdentity
from t3_backup.system.sqlite import SIDECARS
from t3_backup.t3 import databases

STAGED_FILES = ".files"  # ending of the folder of staged files
Sidecars = tuple[Annotated[str, one_of(SIDECARS)], ...]


@dataclass(frozen=True)
class Replacement:
    """What becomes of one database in a swap.

    Out of place, its name has an ending, which is the swap's own.
    """

    JSON_KEYS = MORE

    file: Annotated[str, databases.require_name]
    old: FileIdentity | None  # what has that name before the swap; None: nothing has
    staged: FileIdentity | None  # what comes in its place; None: nothing, and `old` goes aside
    beside: Sidecars = ()  # endings of what is beside the old one, and goes with it
    keep: bool = False  # whether what came out stays, since no snapshot holds it
