"""Forecast the room that another version takes, from the newest one that is there."""

from __future__ import annotations

import os
from pathlib import Path

from t3_backup.autoupdate.programs.installations import Installations
from t3_backup.autoupdate.programs.npm import FETCHED_IN
from t3_backup.autoupdate.programs.package_tree import measure_tree

_LEAST_BYTES = 1 << 30
# Of a version of 518 MB, npm has 1.2 GB at the same time: archives, its cache, what it unpacks.
_WHILE_FETCHED = 2.5


def version_room(installations: Installations) -> dict[Path, int]:
    """Forecast the bytes that fetching another version takes, by the place that must have them.

    These are where npm fetches it and where it goes to: one place, if they are one file system.
    Raises OSError.
    """
    newest = installations.installed_versions()[-1:]
    size = sum(measure_tree(installations.prefix(version)) for version in newest)
    together = _device(installations.root) == _device(FETCHED_IN)
    fetched, kept = forecast_bytes(size, together=together)
    return {installations.root: kept} | ({} if together else {FETCHED_IN: fetched})


def forecast_bytes(size: int, *, together: bool) -> tuple[int, int]:
    """Forecast what must be free where a version is fetched and where it goes, after one of `size`.

    `together`: both are one file system, and the second number is for both. Pure.
    """
    fetched = int(_WHILE_FETCHED * size)
    kept = size + fetched if together else size
    return max(_LEAST_BYTES, fetched), max(_LEAST_BYTES, kept)


def _device(place: Path) -> int:
    """Find the file system of a place that may have yet to be made. Raises OSError."""
    return os.stat(next(path for path in (place, *place.parents) if path.exists())).st_dev
