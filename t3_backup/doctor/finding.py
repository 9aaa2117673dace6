"""Hold what the doctor says of one thing: how it is, what was found, what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from t3_backup.text import ERROR, INFO, WARNING

_PRIORITIES = {"ok": INFO, "note": INFO, "warn": WARNING, "fail": ERROR}


@dataclass(frozen=True)
class Finding:
    """One check; `name` is what was looked at, and whose it is, behind a space."""

    status: str  # ok, note, warn or fail
    name: str
    text: str  # what was found; what to do

    @property
    def priority(self) -> int:
        """The priority of its line."""
        return _PRIORITIES[self.status]

    def line(self) -> str:
        """Write it for people."""
        word = self.status.upper() if self.status == "fail" else self.status
        return f"{word:<4}  {self.name}: {self.text}"

    def as_json(self) -> dict[str, str]:
        """Write it as the interface has it."""
        return {"name": self.name, "status": self.status, "text": self.text}


def ok(name: str, text: str) -> Finding:
    """Say that all is well."""
    return Finding("ok", name, text)


def note(name: str, text: str) -> Finding:
    """Say what is there to be known."""
    return Finding("note", name, text)


def warn(name: str, text: str) -> Finding:
    """Say what wants a look."""
    return Finding("warn", name, text)


def fail(name: str, text: str) -> Finding:
    """Say what must be mended: without that, backups are not made, or are none."""
    return Finding("fail", name, text)


def shorten(names: Sequence[str]) -> str:
    """List the first five names, and say how many more there are."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
