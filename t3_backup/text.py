"""Format sizes, ages, times and tables; make foreign text safe to print. Pure."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a worker that says no time has no use for it
    from datetime import datetime

# syslog(3); sd-daemon(3) has the prefixes.
ERROR, WARNING, INFO = 3, 4, 6


def format_columns(rows: Sequence[Sequence[str]], right: Container[int]) -> list[str]:
    """Make a line of each row; the columns in `right` are aligned right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def align(column: int, cell: str) -> str:
        return cell.rjust(widths[column]) if column in right else cell.ljust(widths[column])

    return ["  ".join(align(*cell) for cell in enumerate(row)).rstrip() for row in rows]


def format_size(count: float) -> str:
    """Write bytes as people read them: 61.5 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def utc_now() -> datetime:
    """Return the time now, in UTC."""
    from datetime import UTC, datetime

    return datetime.now(UTC)


def format_age(seconds: float) -> str:
    """Write a time span as people say it: 3d."""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f}{unit}"
    return f"{max(0, seconds):.0f}s"


def printable(text: str, most: int = 500) -> str:
    """Make `text` safe for a terminal and the journal; `most` characters at most."""
    return "".join(c if c.isprintable() else "?" for c in text[:most])


def quote(word: str) -> str:
    """Write one word of a command as a shell takes it, for a person to copy."""
    plain = word.isascii() and all(char.isalnum() or char in "@%+=:,./-_" for char in word)
    return word if word and plain else "'" + word.replace("'", "'\\''") + "'"


def format_time(when: datetime) -> str:
    """Write a time by RFC 3339, in UTC and whole seconds: 2026-11-24T03:30:12Z."""
    from datetime import UTC

    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
