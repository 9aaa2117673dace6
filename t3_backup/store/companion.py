"""Name and describe the archive of the files beside an account's databases. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Annotated

from t3_backup.records import GROWING, one_of

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHARED_PREFIX = "files"  # of archives that earlier versions of this tool may remove
ARCHIVE_PREFIX = "beside"
ARCHIVE_PREFIXES = (_SHARED_PREFIX, ARCHIVE_PREFIX)


def _check_sha256(value: str) -> str:
    """Let nothing else become the name of a file."""
    if not _SHA256.fullmatch(value):
        raise ValueError("it is no SHA-256")
    return value


@dataclass(frozen=True)
class Companion:
    """The archive of the files beside the databases.

    It is in the same folder, named by its content, and shared by all snapshots that have it.
    """

    JSON_KEYS = GROWING

    sha256: Annotated[str, _check_sha256]  # of the archive
    bytes: int  # of the archive
    entries: int  # files and folders in it
    content_bytes: int  # of the files in it
    # of names, sizes, times and inodes of what was packed: the same one, and it need not be read
    # again
    fingerprint: str
    prefix: Annotated[str, one_of(ARCHIVE_PREFIXES)] = _SHARED_PREFIX  # begins its file's name


def archive_name(companion: Companion) -> str:
    """Return the name of an archive's file, which is its content's."""
    return f"{companion.prefix}-{companion.sha256}.tar.zst"


def with_own_name(companion: Companion) -> Companion:
    """Return the same archive by a name that earlier versions of this tool never remove."""
    return replace(companion, prefix=ARCHIVE_PREFIX)
