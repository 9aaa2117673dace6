"""Where every value of a run comes from: defaults, then /etc/default/t3-backup, then the environment, then flags.

A value that makes no sense is refused by its name, with the value and its origin (flag, environment, or file and line).
Nothing here touches the store or the accounts.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t3_backup.errors import UsageError

DEFAULTS_FILE = Path("/etc/default/t3-backup")

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@dataclass(frozen=True)
class Settings:
    """The values of one run."""

    dest: Path  # the store, a directory
    map: Path  # the user map
    keep: int  # snapshots, and days, that retention keeps
    timeout: int  # seconds for one account, from the start of its copy to the end of its proof
    jobs: int  # accounts worked on at once
    stall: int  # seconds without a sign of life after which a worker is ended
    wal_budget: int  # bytes that a server's -wal may grow by while a copy holds it
    reserve: int  # bytes of the store's file system that stay free

    def run_timeout(self, accounts: int) -> int:
        """Seconds after which a run over so many accounts begins no further one: slow ones alone can't starve the rest."""
        return self.timeout * (1 + math.ceil(accounts / self.jobs))


def _absolute(text: str) -> Path:
    path = Path(text)
    if not path.is_absolute() or "\0" in text:
        raise ValueError("an absolute path")
    return path


def _whole(least: int, most: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text) or not least <= int(text) <= most:
            raise ValueError(f"a whole number from {least} to {most}")
        return int(text)

    return convert


def _size(text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,15})([KMGT]?)", text)
    if not match:
        raise ValueError("a size in bytes, such as 500M or 2G")
    return int(match[1]) * _UNITS[match[2]]


# field: (name in the file and the environment, default, conversion)
_KNOWN: dict[str, tuple[str, str, Callable[[str], Any]]] = {
    "dest": ("T3_BACKUP_DEST", "/var/backups/t3-state", _absolute),
    "map": ("T3_BACKUP_MAP", "/etc/ttyd-user-map", _absolute),
    "keep": ("T3_BACKUP_KEEP", "14", _whole(1, 100_000)),
    "timeout": ("T3_BACKUP_TIMEOUT", "900", _whole(1, 86_400)),
    "jobs": ("T3_BACKUP_JOBS", "1", _whole(1, 64)),
    "stall": ("T3_BACKUP_STALL", "60", _whole(1, 86_400)),
    "wal_budget": ("T3_BACKUP_WAL_BUDGET", "1G", _size),
    "reserve": ("T3_BACKUP_RESERVE", "256M", _size),
}
_NAMES = {name for name, _, _ in _KNOWN.values()}


def load(flags: Mapping[str, str | None], environ: Mapping[str, str], defaults_file: Path = DEFAULTS_FILE) -> Settings:
    """The settings of a run. `flags` maps a field's name to what was given on the command line, or None.

    Raises UsageError for the first value that makes no sense.
    """
    given: dict[str, tuple[str, str]] = {}  # field -> (value, origin)
    from_file = dict(_read_defaults(defaults_file))
    for field, (name, default, _) in _KNOWN.items():
        given[field] = (default, "default")
        if name in from_file:
            given[field] = from_file[name]
        if environ.get(name, "") != "":  # empty means unset, as ${NAME:-default} has it
            given[field] = (environ[name], "environment")
        flag = flags.get(field)
        if flag is not None:
            given[field] = (flag, f"flag --{field}")
    return Settings(**{field: _convert(field, *value) for field, value in given.items()})


def _convert(field: str, value: str, origin: str) -> Any:
    name, _, conversion = _KNOWN[field]
    try:
        return conversion(value)
    except ValueError as error:
        raise UsageError(f"{name}: {value!r} ({origin}) is not {error}") from None


def _read_defaults(path: Path) -> Iterator[tuple[str, tuple[str, str]]]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from None
    for number, line in enumerate(text.splitlines(), 1):
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            raise UsageError(f"{path}:{number}: {error}") from None
        if words[:1] == ["export"]:
            words = words[1:]
        for word in words:
            name, equals, value = word.partition("=")
            if not equals or (name.startswith("T3_BACKUP_") and name not in _NAMES):
                raise UsageError(f"{path}:{number}: {word!r} is not a setting; known: {', '.join(sorted(_NAMES))}")
            if name in _NAMES and value != "":
                yield name, (value, f"{path}:{number}")
