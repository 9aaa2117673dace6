"""Where every value of a run comes from: defaults, then /etc/default/t3-backup, then the environment, then flags.

A value that makes no sense is refused by its name, with the value and its origin (flag, environment, or file and line).
Nothing here touches the store or the accounts.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t3_backup.errors import UsageError

DEFAULTS_FILE = Path("/etc/default/t3-backup")
DEFAULT_TEXTFILES = Path("/var/lib/prometheus/node-exporter")  # Debian's, of prometheus-node-exporter
DEFAULT_LOG = Path("/var/log/t3-backup/t3-backup-state.log")
DEFAULT_HOOKS = Path("/etc/t3-backup/hooks.d")

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@dataclass(frozen=True)
class Settings:
    """The values of one run."""

    dest: Path  # the store, a directory
    map: Path  # the user map
    keep: int  # snapshots, and days, that retention keeps
    keep_daily: int  # days, where they are more than `keep`
    keep_weekly: int  # ISO weeks
    keep_monthly: int
    keep_yearly: int
    keep_labelled: int  # snapshots of each kind of label
    compact: str  # how history is kept in little room: one of upkeep.MODES
    timeout: int  # seconds for one account, from the start of its copy to the end of its proof
    jobs: int  # accounts worked on at once
    stall: int  # seconds without a sign of life after which a worker is ended
    wal_budget: int  # bytes that a server's -wal may grow by while a copy holds it
    reserve: int | None  # bytes of a file system that stay free; None: 5 % of it, but 2 GiB at most
    max_bytes: int  # that one account's history may take; 0: as much as there is
    log: Path  # the log, a file
    files_limit: int  # bytes of content of what is saved beside a database; 0: none of it
    textfiles: Path | None  # where the metrics go, a folder; None: nowhere
    hooks: Path  # a folder with what is called when a run has failed
    hook_timeout: int  # seconds for each of them

    def run_timeout(self, accounts: int) -> int:
        """Seconds after which a run over so many accounts begins no further one: slow ones alone can't starve the rest."""
        return self.timeout * (1 + math.ceil(accounts / self.jobs))


def absolute(text: str) -> Path:
    """Raises ValueError where it is no absolute path, saying what is wanted."""
    path = Path(text)
    if not path.is_absolute() or "\0" in text:
        raise ValueError("an absolute path")
    return path


def _folder_or_none(text: str) -> Path | None:
    try:
        return None if text == "none" else absolute(text)
    except ValueError:
        raise ValueError("an absolute path, or none") from None


def whole(least: int, most: int) -> Callable[[str], int]:
    """The conversion of a whole number within limits; it raises ValueError, saying what is wanted."""

    def convert(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text) or not least <= int(text) <= most:
            raise ValueError(f"a whole number from {least} to {most}")
        return int(text)

    return convert


def _one_of(*words: str) -> Callable[[str], str]:
    def convert(text: str) -> str:
        if text not in words:
            raise ValueError(f"one of {', '.join(words)}")
        return text

    return convert


def _size(text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,15})([KMGT]?)", text)
    if not match:
        raise ValueError("a size in bytes, such as 500M or 2G")
    return int(match[1]) * _UNITS[match[2]]


def _size_or_auto(text: str) -> int | None:
    try:
        return None if text == "auto" else _size(text)
    except ValueError as error:
        raise ValueError(f"auto, or {error}") from None


# field: (name in the file and the environment, default, conversion)
Known = Mapping[str, tuple[str, str, Callable[[str], Any]]]
_KNOWN: Known = {
    "dest": ("T3_BACKUP_DEST", "/var/backups/t3-state", absolute),
    "map": ("T3_BACKUP_MAP", "/etc/ttyd-user-map", absolute),
    "keep": ("T3_BACKUP_KEEP", "14", whole(1, 100_000)),
    "keep_daily": ("T3_BACKUP_KEEP_DAILY", "0", whole(0, 100_000)),
    "keep_weekly": ("T3_BACKUP_KEEP_WEEKLY", "0", whole(0, 100_000)),
    "keep_monthly": ("T3_BACKUP_KEEP_MONTHLY", "0", whole(0, 100_000)),
    "keep_yearly": ("T3_BACKUP_KEEP_YEARLY", "0", whole(0, 100_000)),
    "keep_labelled": ("T3_BACKUP_KEEP_LABELLED", "14", whole(0, 100_000)),
    "compact": ("T3_BACKUP_COMPACT", "auto", _one_of("auto", "delta", "reflink", "off")),
    "timeout": ("T3_BACKUP_TIMEOUT", "900", whole(1, 86_400)),
    "jobs": ("T3_BACKUP_JOBS", "1", whole(1, 64)),
    "stall": ("T3_BACKUP_STALL", "60", whole(1, 86_400)),
    "wal_budget": ("T3_BACKUP_WAL_BUDGET", "1G", _size),
    "reserve": ("T3_BACKUP_RESERVE", "auto", _size_or_auto),
    "max_bytes": ("T3_BACKUP_MAX_BYTES", "0", _size),
    "log": ("T3_BACKUP_LOG", str(DEFAULT_LOG), absolute),
    "files_limit": ("T3_BACKUP_FILES_LIMIT", "1G", _size),
    "textfiles": ("T3_BACKUP_TEXTFILE_DIR", str(DEFAULT_TEXTFILES), _folder_or_none),
    "hooks": ("T3_BACKUP_HOOKS", str(DEFAULT_HOOKS), absolute),
    "hook_timeout": ("T3_BACKUP_HOOK_TIMEOUT", "30", whole(1, 86_400)),
}


def load(
    flags: Mapping[str, str | None], environ: Mapping[str, str], defaults_file: Path = DEFAULTS_FILE, *, forgiving: bool = False
) -> Settings:
    """The settings of a run. `flags` maps a field's name to what was given on the command line, or None.

    Raises UsageError for the first value that makes no sense; a `forgiving` caller, who has to go on with whatever there is, gets
    the default in its place, and of the file what stands before its first bad line.
    """
    return Settings(**resolve(_KNOWN, "T3_BACKUP_", flags, environ, defaults_file, forgiving=forgiving))


def resolve(
    known: Known,
    prefix: str,
    flags: Mapping[str, str | None],
    environ: Mapping[str, str],
    defaults_file: Path,
    *,
    forgiving: bool = False,
) -> dict[str, Any]:
    """The values of a command by field, each converted; in the file a name with `prefix` that is none of them is an error.

    As to `flags`, `forgiving` and what is raised, see `load`.
    """
    from_file: dict[str, tuple[str, str]] = {}
    try:
        from_file.update(_read_defaults(defaults_file, {name for name, _, _ in known.values()}, prefix))
    except UsageError:
        if not forgiving:
            raise
    values = {}
    for field, (name, default, convert) in known.items():
        value, origin = from_file.get(name, (default, "default"))
        if environ.get(name, "") != "":  # empty means unset, as ${NAME:-default} has it
            value, origin = environ[name], "environment"
        if (flag := flags.get(field)) is not None:
            value, origin = flag, f"flag --{field}"
        try:
            values[field] = convert(value)
        except ValueError as error:
            if not forgiving:
                raise UsageError(f"{name}: {value!r} ({origin}) is not {error}") from None
            values[field] = convert(default)
    return values


def _read_defaults(path: Path, names: Collection[str], prefix: str) -> Iterator[tuple[str, tuple[str, str]]]:
    """Name, value and origin of each setting in a file of /etc/default; a name with `prefix` that is none of `names` is an error.

    Raises UsageError with the line.
    """
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
            if not equals or (name.startswith(prefix) and name not in names):
                raise UsageError(f"{path}:{number}: {word!r} is not a setting; known: {', '.join(sorted(names))}")
            if name in names and value != "":
                yield name, (value, f"{path}:{number}")
