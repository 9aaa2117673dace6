"""Name the arguments of each command of `t3-backup-state`, with their help."""

from __future__ import annotations

import argparse
from typing import Any

from t3_backup.t3.unit import unit_name

Argument = tuple[str, dict[str, Any]]  # name, and what add_argument is told of it
Arguments = tuple[Argument | list[Argument], ...]  # of those in a list, one at most is given


def _user(text: str) -> str:
    from t3_backup.accounts import spell_name  # noqa: PLC0415 - not for --version

    return spell_name(text)


def _level(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"{text!r} is no migration level of T3's, such as 30")
    return int(text)


def _option(name: str, metavar: str, about: str, **more: Any) -> Argument:
    return name, {"metavar": metavar, "help": about, **more}


def _flag(name: str, about: str) -> Argument:
    return name, {"action": "store_true", "help": about}


def _keep(about: str) -> Argument:
    return _option("--keep", "N", f"{about} of each of N days (T3_BACKUP_KEEP; 14)")


def _timeout(what: str) -> Argument:
    return _option("--timeout", "S", f"seconds for {what} (T3_BACKUP_TIMEOUT; 900)")


_DEST = _option("--dest", "DIR", "the store (T3_BACKUP_DEST; /var/backups/t3-state)")
_JSON = _flag("--json", "one JSON document on standard output; lines go to standard error")
_STORE = (_DEST, _JSON)
_MAP = _option("--map", "FILE", "the user map (T3_BACKUP_MAP; /etc/ttyd-user-map)")
_NAMED: dict[str, Any] = {"metavar": "USER", "type": _user}
_USER: Argument = ("user", _NAMED)
_ANY_USER: Argument = ("user", _NAMED | {"nargs": "?"})
_ONLY: Argument = (
    "--only",
    {
        "choices": ("database", "files"),
        "help": "only the databases, or only their secrets, settings and attachments",
    },
)
_NAMES = _option(
    "names", "NAME", "a name, 'latest', a time, a date, or an age such as 3d", nargs="+"
)

# Each command's help, and its arguments.
COMMANDS: dict[str, tuple[str, Arguments]] = {
    "run": (
        "back up the accounts of the map",
        (
            *_STORE,
            _option(
                "--user",
                "U",
                "only this account (may be repeated)",
                action="append",
                type=_user,
            ),
            _option(
                "--label", "L", "label the snapshots; retention counts labelled ones separately"
            ),
            _MAP,
            _keep("keep the newest N, and the newest"),
            _timeout("one account"),
            _option("--jobs", "N", "accounts at once (T3_BACKUP_JOBS; 1)"),
            _flag("--dry-run", "say what would be backed up, and write nothing"),
        ),
    ),
    "list": ("show the snapshots, newest first", (*_STORE, _ANY_USER)),
    "report": (
        "write the snapshots as one self-contained HTML page",
        (
            _DEST,
            _option("--html", "FILE", "where to write it; - is standard output", required=True),
            _ANY_USER,
        ),
    ),
    "verify": (
        "prove sealed snapshots again",
        (
            *_STORE,
            _ANY_USER,
            [
                _flag("--all", "every snapshot of USER, or of every account (the default)"),
                _option(
                    "--at",
                    "WHEN",
                    "one snapshot: its name, 'latest', a time, a date, or an age such as 3d",
                ),
            ],
            _timeout("one snapshot"),
        ),
    ),
    "restore": (
        "put a snapshot back in the place of a live database",
        (
            *_STORE,
            _USER,
            _option(
                "--at",
                "WHEN",
                "'latest' (verified), a time, a date, an age, or a snapshot's name",
                default="latest",
            ),
            _option("--label", "L", "one of this label; 'prerestore' undoes the last restore"),
            _option("--schema", "N", "one whose T3 migration level is at most N", type=_level),
            _ONLY,
            _option(
                "--database", "NAME", "only this one of its databases; all else stays as it is"
            ),
            _option("--to", "FILE", "write it to a new file, and touch nothing else"),
            _option("--kept", "NAME", "one that may hold what is there: then no other is taken"),
            _flag("--dry-run", "show what would be put back, and which rows are gained and lost"),
            _flag("--yes", "do not ask"),
            _flag("--no-service", f"do not stop or start {unit_name('USER')}; it must not run"),
            _timeout("each step"),
        ),
    ),
    "accept": (
        "accept suspect, damaged and lost snapshots, and failed proofs, so that pruning goes on",
        (*_STORE, _USER),
    ),
    "prune": (
        "remove what retention does not keep, and compact the rest, now",
        (
            *_STORE,
            _ANY_USER,
            _keep("newest N, and newest"),
            _flag(
                "--dry-run",
                "show what would be removed, what is kept, and why; change nothing",
            ),
        ),
    ),
    "du": ("show the disk usage of each account's history", (*_STORE, _ANY_USER)),
    "pin": (
        "keep these snapshots until they are unpinned, whatever retention says",
        (*_STORE, _USER, _NAMES),
    ),
    "unpin": ("let retention prune these snapshots again", (*_STORE, _USER, _NAMES)),
    "status": (
        "show the age, verdict and number of each account's snapshots",
        (
            *_STORE,
            _ANY_USER,
            _MAP,
            _flag(
                "--nagios",
                "one line with perfdata; exit status 0 ok, 1 warning, 2 critical, 3 unknown",
            ),
            _option(
                "--max-age",
                "AGE",
                "critical if the last good one is older (90m, 2d; 26h)",
                default="26h",
            ),
            _option("--min-snapshots", "N", "warn if there are fewer good ones (1)", default="1"),
        ),
    ),
    "init": (
        "make the store, or mark it, and remember which one it is",
        (
            *_STORE,
            [
                _flag("--adopt", "remember the one that is there, in the place of another"),
                _flag("--existing", "do nothing where there is no store, or an empty one"),
            ],
        ),
    ),
    "doctor": ("check accounts, store and units, and say what to do", (*_STORE, _MAP)),
    "hooks": (
        "call the hooks of a failed run, to try them",
        (
            _option(
                "--document",
                "FILE",
                "the result of a run of the service, for the unit that calls this",
            ),
        ),
    ),
    "import-legacy": (
        "take over the snapshots that an earlier script left to the users",
        (*_STORE, ("users", _NAMED | {"nargs": "*"}), _timeout("one account")),
    ),
}
