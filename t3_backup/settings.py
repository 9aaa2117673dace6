"""Name the settings of t3-backup, in one table.

A flag beats the environment, which beats /etc/default/t3-backup, which beats the default. Nothing
here touches the store or the accounts.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from posixpath import normpath

from t3_backup.accounts import is_user_name, spell_name
from t3_backup.config import BYTES, SECONDS, Known, absolute, resolve, setting, table, whole

DEFAULTS_FILE = Path("/etc/default/t3-backup")
# Debian's, of prometheus-node-exporter
DEFAULT_TEXTFILES = Path("/var/lib/prometheus/node-exporter")
DEFAULT_LOG = Path("/var/log/t3-backup/t3-backup-state.log")
DEFAULT_HOOKS = Path("/etc/t3-backup/hooks.d")
DEFAULT_LOGINS = Path("/var/lib/t3-autoupdate")  # its T3_AUTOUPDATE_ROOT

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_COUNT = whole(0, 100_000)


def _folder_or_none(text: str) -> Path | None:
    try:
        return None if text == "none" else absolute(text)
    except ValueError:
        raise ValueError("an absolute path, or none") from None


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


def _words(text: str) -> list[str]:
    try:
        return [] if text == "none" else shlex.split(text)
    except ValueError:
        raise ValueError("words with a space between, or none") from None


def _base_dirs(text: str) -> tuple[tuple[str, Path], ...]:
    found: dict[str, Path] = {}
    for word in _words(text):
        given, _, path = word.partition("=")
        user = spell_name(given)
        if not is_user_name(user) or user in found or not _is_plain(path):
            raise ValueError("USER=FOLDER for each user once, a space between, or none")
        found[user] = Path(path)
    return tuple(found.items())


def _patterns(text: str) -> tuple[str, ...]:
    found = tuple(_words(text))
    if not all(map(_is_plain, found)):
        raise ValueError("absolute paths, a space between, or none")
    return found


def _is_plain(path: str) -> bool:
    """Tell whether a path is absolute, and as the kernel would write it."""
    return path.startswith("/") and path == normpath(path) and "\0" not in path


@dataclass(frozen=True)
class Settings:
    """The values of one run, and the table of all settings.

    To add one, add a field here and run tools/settings_files.py.
    """

    dest: Path = setting(
        "T3_BACKUP_DEST",
        "/var/backups/t3-state",
        absolute,
        "The store of the snapshots. "
        "The service may write to another one only if a drop-in says so.",
    )
    map: Path = setting(
        "T3_BACKUP_MAP",
        "/etc/ttyd-user-map",
        absolute,
        "The user map, which says whose databases there are: lines `authentik=os_user[:cwd]`.",
    )
    keep: int = setting(
        "T3_BACKUP_KEEP",
        "14",
        whole(1, 100_000),
        "Keep the newest N verified snapshots, "
        "and the newest verified one of each of the last N days with one.",
    )
    keep_daily: int = setting(
        "T3_BACKUP_KEEP_DAILY",
        "0",
        _COUNT,
        "Keep the newest verified snapshot of each of the last N days (UTC) with one, "
        "where N is more than `T3_BACKUP_KEEP`.",
    )
    keep_weekly: int = setting(
        "T3_BACKUP_KEEP_WEEKLY",
        "0",
        _COUNT,
        "Keep the newest verified snapshot of each of the last N ISO weeks with one.",
    )
    keep_monthly: int = setting(
        "T3_BACKUP_KEEP_MONTHLY",
        "0",
        _COUNT,
        "Keep the newest verified snapshot of each of the last N months with one.",
    )
    keep_yearly: int = setting(
        "T3_BACKUP_KEEP_YEARLY",
        "0",
        _COUNT,
        "Keep the newest verified snapshot of each of the last N years with one.",
    )
    keep_labelled: int = setting(
        "T3_BACKUP_KEEP_LABELLED",
        "14",
        _COUNT,
        "Keep the newest N verified snapshots of each kind of label "
        "(`prebump` of `prebump-0.0.25`). 0: no snapshot is kept for its label.",
    )
    compact: str = setting(
        "T3_BACKUP_COMPACT",
        "auto",
        _one_of("auto", "delta", "reflink", "off"),
        "How older snapshots are stored. `delta`: as what differs from the next newer one. "
        "`reflink`: new snapshots share on the disk what they have in common (xfs, btrfs). "
        "`auto`: `reflink` where the file system can, else `delta`. `off`: as full copies.",
    )
    timeout: int = setting(
        "T3_BACKUP_TIMEOUT",
        "900",
        whole(1, 86_400),
        "Time limit for one account, copy and proof together. "
        "A run ends by itself after (accounts/jobs+1) times as long.",
        SECONDS,
    )
    jobs: int = setting(
        "T3_BACKUP_JOBS",
        "1",
        whole(1, 64),
        "How many accounts are worked on at once. "
        "One that takes longer than 10 seconds lets the next one begin.",
    )
    stall: int = setting(
        "T3_BACKUP_STALL",
        "60",
        whole(1, 86_400),
        "A worker that gives no sign of life for this long is ended.",
        SECONDS,
    )
    wal_budget: int = setting(
        "T3_BACKUP_WAL_BUDGET",
        "1G",
        _size,
        "By how much a server's -wal may grow while a copy holds it.",
        BYTES,
    )
    reserve: int | None = setting(
        "T3_BACKUP_RESERVE",
        "auto",
        _size_or_auto,
        "What stays free on the store's disk, and on the disk of a home while a copy lets its -wal "
        "grow. `auto`: 5 % of the disk, but 2 GiB at most. Where there is no room for a copy, "
        "snapshots that are not to stay are removed first.",
        BYTES,
    )
    max_bytes: int | None = setting(
        "T3_BACKUP_MAX_BYTES",
        "auto",
        _size_or_auto,
        "What the history of one account may take of the disk. Where one more copy would exceed "
        "it, and pruning does not help, the account fails. `auto`: whoever has taken an equal "
        "share of the store's room leaves a fifth of it free to the others. 0: no limit.",
        BYTES,
    )
    log: Path = setting(
        "T3_BACKUP_LOG",
        str(DEFAULT_LOG),
        absolute,
        "The log of root's runs, one JSON object in one line for each account. "
        "`/dev/null`: no log.",
    )
    files_limit: int = setting(
        "T3_BACKUP_FILES_LIMIT",
        "1G",
        _size,
        "Limit for the files that are saved with a database (secrets, settings, attachments). "
        "Above it they are not saved, and the account counts as not well. 0: they are never saved.",
        BYTES,
    )
    base_dirs: tuple[tuple[str, Path], ...] = setting(
        "T3_BACKUP_BASE_DIRS",
        "none",
        _base_dirs,
        "The base directories of accounts whose T3 keeps its state where their unit does not say "
        'so, in quotes where they are several: `"alice=/srv/t3/alice bob=/data/t3"`. '
        "`none`: that of the unit (`--base-dir` or `T3CODE_HOME`), else `~/.t3`.",
    )
    ignore: tuple[str, ...] = setting(
        "T3_BACKUP_IGNORE",
        "none",
        _patterns,
        "Databases that T3 has open and that are meant not to be backed up: absolute paths, a "
        "space between, in quotes where they are several. They may be shell patterns, in which a "
        "`*` stands for no slash. "
        "`none`: each is backed up, or its account fails.",
    )
    textfiles: Path | None = setting(
        "T3_BACKUP_TEXTFILE_DIR",
        str(DEFAULT_TEXTFILES),
        _folder_or_none,
        "The folder of the metrics, for the textfile collector of prometheus-node-exporter. "
        "`none`: no metrics.",
    )
    logins: Path | None = setting(
        "T3_BACKUP_LOGINS",
        str(DEFAULT_LOGINS),
        _folder_or_none,
        "The `T3_AUTOUPDATE_ROOT` of t3-autoupdate, which leaves there what its login checks came "
        "to. `none`: nothing is said of logins.",
    )
    hooks: Path = setting(
        "T3_BACKUP_HOOKS",
        str(DEFAULT_HOOKS),
        absolute,
        "A folder of programs that are called when a run has failed.",
    )
    hook_timeout: int = setting(
        "T3_BACKUP_HOOK_TIMEOUT", "30", whole(1, 86_400), "Time limit for each hook.", SECONDS
    )

    def run_timeout(self, accounts: int) -> int:
        """Return the seconds after which a run over so many begins no further one.

        So slow accounts alone can't starve the rest.
        """
        return self.timeout * (1 + math.ceil(accounts / self.jobs))


KNOWN: Known = table(Settings)


def load(
    flags: Mapping[str, str | None],
    environ: Mapping[str, str],
    defaults_file: Path = DEFAULTS_FILE,
    *,
    forgiving: bool = False,
) -> Settings:
    """Read the settings of a run.

    `flags` maps a field's name to what was given on the command line, or None.

    Raises UsageError for the first value that makes no sense; a `forgiving` caller, who has to go
    on with whatever there is, gets the default in its place, and of the file what stands before its
    first bad line.
    """
    return Settings(
        **resolve(KNOWN, "T3_BACKUP_", flags, environ, defaults_file, forgiving=forgiving)
    )
