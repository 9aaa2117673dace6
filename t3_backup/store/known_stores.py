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

    def configured(self) -> list[tuple[Path, str]]:
        """Return path and identity of those that were named by the settings, and by no `--dest`."""
        stores, configured = self._read()
        return [(Path(path), stores[path]) for path in sorted(configured & stores.keys())]

    def identity_of(self, path: Path) -> str | None:
        """Return the identity of the store that was at `path`; None where none is known."""
        return self._read()[0].get(_key(path))

    def remember(self, path: Path, identity: str, *, is_configured: bool) -> None:
        """Remember which store is at `path`, and whether the settings name it. Raises OSError."""
        self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        stores, configured = self._read()
        stores[_key(path)] = identity
        configured |= {_key(path)} if is_configured else set()
        value = {"format": _FORMAT, "stores": stores, "configured": sorted(configured)}
        text = json.dumps(value, indent=1, sort_keys=True) + "\n"
        with opened(self.folder) as folder:
            temporary = f".{NAME}.{os.urandom(6).hex()}"
            replace_file(folder, NAME, text.encode(), 0o600, temporary=temporary)

    def _read(self) -> tuple[dict[str, str], set[str]]:
        try:
            value = parse_object(self.path.read_bytes())
            stores = dict(value.get("stores", {}))
            configured = set(value.get("configured", []))
        except (OSError, ValueError, TypeError):
            return {}, set()
        return {path: one for path, one in stores.items() if isinstance(one, str)}, configured


def _key(path: Path) -> str:
    return os.path.normpath(path)
