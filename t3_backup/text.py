"""Format sizes, ages, times and tables, and make foreign text safe to print. Pure."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a worker that says no time has no use for it
    from datetime import datetime

# syslog(3); sd-daemon(3) has the prefixes.
ERROR, WARNING, INFO = 3, 4, 6


def format_columns(rows: Sequence[Sequence[str]], right: Container[int]) -> list[str]:
    """A line for each row, as wide as it must be; columns that are `right` end below each other."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    aligned = [
        [
            c.rjust(w) if i in right else c.ljust(w)
            for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ]
        for row in rows
    ]
    return ["  ".join(cells).rstrip() for cells in aligned]


def format_size(count: float) -> str:
    """Bytes as people read them: 61.5 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def utc_now() -> datetime:
    """Now, in UTC."""
    from datetime import UTC, datetime

    return datetime.now(UTC)


def format_age(seconds: float) -> str:
    """A time span as people say it: 3d."""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f}{unit}"
    return f"{max(0, seconds):.0f}s"


def printable(text: str, most: int = 500) -> str:
    """At most `most` characters of `text`, with nothing in it that a terminal or the journal would obey."""
    return "".join(c if c.isprintable() else "?" for c in text[:most])


def format_time(when: datetime) -> str:
    """RFC 3339 in UTC, whole seconds: 2026-11-24T03:30:12Z."""
    from datetime import UTC

    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
