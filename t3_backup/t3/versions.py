"""Order the versions of T3, and know the database level of each.

Pure. A level is the greatest id of a migration that a database has seen; a version opens a database
of its own level and of lower ones, which it migrates, and only seems to open a higher one.
"""

from __future__ import annotations

import re

from t3_backup.errors import UsageError

_VERSION = re.compile(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})(?:-([0-9A-Za-z.-]{1,64}))?")
# Observed on servers of these versions; of others it is found out by the gate, on an empty state.
KNOWN_LEVELS = {"0.0.24": 30, "0.0.25": 31, "0.0.26": 32}

VersionKey = tuple[int, int, int, bool, tuple[tuple[bool, int, str], ...]]


def version_key(version: str) -> VersionKey:
    """Give a key that orders versions as semver.org does, pre-releases too.

    Raises UsageError.
    """
    match = _VERSION.fullmatch(version)
    if match is None:
        raise UsageError(f"{version!r} is no version of T3, such as 0.0.25")
    parts = match[4].split(".") if match[4] else []
    order = tuple((not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts)
    return int(match[1]), int(match[2]), int(match[3]), not parts, order


def is_version(text: str) -> bool:
    """Tell whether `text` is a version, and so the name of a folder."""
    return _VERSION.fullmatch(text) is not None
