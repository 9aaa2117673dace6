"""Build and parse the names of snapshots and of the files beside them. Pure.

A name carries the time in UTC and the label, so that a store can be read by eye:
`state-20261124T033012Z-prebump-0.0.25.sqlite`. An image has the name of its snapshot, or, where the
snapshot has more than one, also the name of its database after a full stop.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

PRERESTORE = "prerestore"  # the label of what a restore took the place of
POSTBUMP_FAILED = "postbump-failed"  # what a version of T3 has made of data before it failed
UNWANTED = (PRERESTORE, POSTBUMP_FAILED)  # nobody goes back to those who does not ask for them

DATA = ".sqlite"
DELTA = ".delta"
MANIFEST = ".json"
PAGES = ".pages"  # the hashes of its pages, beside the newest

LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
_NAME = re.compile(r"state-(?P<time>\d{8}T\d{6}Z)(?:\.(?P<again>\d+))?(?:-(?P<label>.+))?")
# What the shell script of earlier days wrote, in local time.
_LEGACY = re.compile(r"state-(?:(?P<label>.+)-)?(?P<time>\d{8}-\d{6})")
_SCRIPT_BEGAN = datetime(2020, 1, 1, tzinfo=UTC)
_STAMP = "%Y%m%dT%H%M%SZ"
# What a database's name may be to become a part of an image's: no digit first, which would look
# like the number of a second snapshot in one second.
_PART = re.compile(r"[A-Za-z_][A-Za-z0-9_+-]{0,63}")
_HASHED = "db-"  # begins what stands for any other name, and so no part of a name's own
_HASH_DIGITS = 16


def snapshot_name(
    when: datetime, label: str | None, taken: set[str], files: Sequence[str] = ()
) -> str:
    """A name that is not in `taken`, nor those of its images of `files`.

    A second one in the same second gets `.2`, and so on.
    """
    stamp = when.astimezone(UTC).strftime(_STAMP)
    suffix = f"-{label}" if label else ""
    name, again = f"state-{stamp}{suffix}", 1
    while name in taken or any(image_stem(name, file) in taken for file in files):
        again += 1
        name = f"state-{stamp}.{again}{suffix}"
    return name


def image_stem(name: str, file: str) -> str:
    """Name the image of the database `file` in the snapshot `name`, beside the snapshot's own."""
    part = file.removesuffix(DATA)
    if not _PART.fullmatch(part) or part.startswith(_HASHED):
        import hashlib  # noqa: PLC0415 - a worker starts faster without it

        digest = hashlib.sha256(file.encode("utf-8", "surrogateescape")).hexdigest()
        part = _HASHED + digest[:_HASH_DIGITS]
    return f"{name}.{part}"


def snapshot_of_image(stem: str) -> str | None:
    """Return the name of the snapshot that an image would be of, by its own name.

    None where it can't be one. A snapshot's own name is returned as it is.
    """
    if parse_name(stem) is not None:
        return stem
    name, _, part = stem.rpartition(".")
    return name if _PART.fullmatch(part) and parse_name(name) is not None else None


@dataclass(frozen=True)
class ParsedName:
    """What a name says by itself."""

    when: datetime
    label: str | None
    legacy: bool


def parse_name(name: str) -> ParsedName | None:
    """What the name of a snapshot (without its ending) says.

    None where it is not one, of today or of earlier days.
    """
    if match := _NAME.fullmatch(name):
        text, legacy = match["time"], False
    elif match := _LEGACY.fullmatch(name):
        text, legacy = match["time"], True
    else:
        return None
    try:
        # By hand: strptime would import a calendar and a locale, in a worker who is the user by
        # then.
        month, day, hour, minute, second = (int(text[at : at + 2]) for at in (4, 6, 9, 11, 13))
        when = datetime(
            int(text[:4]), month, day, hour, minute, second, tzinfo=None if legacy else UTC
        )
        when = when.astimezone(UTC)  # without a zone it is local time
    except (ValueError, OverflowError):
        return None
    return ParsedName(when, match["label"], legacy)


def is_legacy(file_name: str) -> bool:
    """Whether a file of that name was made by the script of earlier days."""
    parsed = parse_name(file_name.removesuffix(DATA))
    return parsed is not None and parsed.legacy


def is_sealed_name(file_name: str) -> bool:
    """Whether a file of that name was made by us."""
    parsed = parse_name(file_name.removesuffix(DATA)) if file_name.endswith(DATA) else None
    return parsed is not None and not parsed.legacy


def legacy_name(file_name: str, now: datetime) -> ParsedName | None:
    """What the name of a file made by the script of earlier days says.

    None where it is no such name, its label none of ours, or its time none that the script can have
    had.
    """
    parsed = parse_name(file_name.removesuffix(DATA)) if file_name.endswith(DATA) else None
    if (
        parsed is None
        or not parsed.legacy
        or (parsed.label is not None and not LABEL.fullmatch(parsed.label))
    ):
        return None
    # No other time can be the script's, and what a user has made up must not stand for the newest.
    return parsed if _SCRIPT_BEGAN <= parsed.when <= now + timedelta(hours=1) else None
