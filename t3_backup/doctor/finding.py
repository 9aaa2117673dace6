"""Hold what the doctor says of one thing: how it is, what was found, what to do."""

from __future__ import annotations

from dataclasses import dataclass

from t3_backup.text import ERROR, INFO, WARNING

_PRIORITIES = {"ok": INFO, "note": INFO, "warn": WARNING, "fail": ERROR}


@dataclass(frozen=True)
class Finding:
    """One check; `name` is what was looked at, the account behind a space where it is one's."""

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
