"""Remember the identity of each store by its path, outside of all stores.

The service itself can't write there: what it finds can't become what it should find.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from t3_backup.records import parse_object
from t3_backup.store import outside
from t3_backup.system.atomic_file import opened, replace_file

NAME = "stores.json"
_FORMAT = 1


@dataclass(frozen=True)
class KnownStores:
    """The stores that are remembered in a folder."""

    folder: Path

    @classmethod
    def own(cls) -> Self:
        """Return those of whoever runs this."""
        return cls(outside.state_folder())

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / NAME

    def items(self) -> list[tuple[Path, str]]:
        """Return each path with its identity; none where there is no memory that can be read."""
        return [(Path(path), identity) for path, identity in sorted(self._read().items())]

    def identity_of(self, path: Path) -> str | None:
        """Return the identity of the store that was at `path`; None where none is known."""
        return self._read().get(_key(path))

    def remember(self, path: Path, identity: str) -> None:
        """Remember which store is at `path`. Raises OSError."""
        self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        known = self._read() | {_key(path): identity}
        text = json.dumps({"format": _FORMAT, "stores": known}, indent=1, sort_keys=True) + "\n"
        with opened(self.folder) as folder:
            temporary = f".{NAME}.{os.urandom(6).hex()}"
            replace_file(folder, NAME, text.encode(), 0o600, temporary=temporary)

    def _read(self) -> dict[str, str]:
        try:
            stores = parse_object(self.path.read_bytes()).get("stores")
        except (OSError, ValueError):
            return {}
        if not isinstance(stores, dict):
            return {}
        return {path: one for path, one in stores.items() if isinstance(one, str)}


def _key(path: Path) -> str:
    return os.path.normpath(path)
