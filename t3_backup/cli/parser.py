"""Parse the command line of `t3-backup-state`: its commands, flags and help, from which the manual page is made, too."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import t3_backup
from t3_backup.errors import UsageError
from t3_backup.t3.unit import unit_name

if TYPE_CHECKING:
    from t3_backup.settings import Known

_EXAMPLES = """\
examples:
  t3-backup-state                                  back up every account of the map, as the timer does
  t3-backup-state run --user alice --label prebump-0.0.25
  t3-backup-state list alice
  t3-backup-state report --html /root/backups.html
  t3-backup-state verify --all                     prove every snapshot of every account again, as the weekly timer does
  t3-backup-state verify alice --at 2026-11-24
  t3-backup-state restore alice --at 3d            put back the state of three days ago
  t3-backup-state restore alice --label prerestore undo it
  t3-backup-state accept alice                     a suspect or damaged snapshot has been looked at
  t3-backup-state pin alice 3d                     never prune that one, until it is unpinned
  t3-backup-state prune --dry-run                  what would be removed, what is kept, and why?
  t3-backup-state du                               how much disk space does each account's history use?
  t3-backup-state status                           how old, how good and how many are each account's snapshots?
  t3-backup-state doctor                           are accounts, store and units set up as backups need?
  t3-backup-state hooks                            try the hooks of a failed run
  t3-backup-state import-legacy                    take over snapshots of an earlier script from the users' folders
"""
_EXIT_STATUS = """\
exit status: 0 all well; 1 an account failed, a new snapshot is suspect or damaged, one does not verify, a check of the doctor,
  or a hook, failed, or the status of an account is critical; 2 wrong use or configuration; 4 the live database is open in another
  process, and nothing was restored; 75 another run holds the store, try again later. status --nagios has those of a check: 0 ok,
  1 warning, 2 critical, 3 unknown.
"""


class _HelpFormatter(argparse.HelpFormatter):
    """Format help as wide as the terminal, which argparse asks for by a module that brings every kind of compression."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


class _TopFormatter(_HelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Format help alike, with the description and the epilog as they are."""


def _columns() -> int:
    """Tell the terminal's width, as shutil.get_terminal_size does."""
    with contextlib.suppress(ValueError):
        if (columns := int(os.environ.get("COLUMNS", "0"))) > 0:
            return columns
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return os.get_terminal_size(sys.__stdout__.fileno()).columns or 80  # type: ignore[union-attr]
    return 80


class Parser(argparse.ArgumentParser):
    """Parse a command line: errors are UsageError, options have no abbreviations, and the epilog may be made when it is wanted."""

    def __init__(
        self, *args: Any, epilog: str | Callable[[], str] | None = None, **kwargs: Any
    ) -> None:
        kwargs.setdefault("formatter_class", _HelpFormatter)
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)
        self.epilog = epilog

    @property
    def epilog(self) -> str | None:
        """What stands below the options."""
        return self._epilog() if callable(self._epilog) else self._epilog

    @epilog.setter
    def epilog(self, value: str | Callable[[], str] | None) -> None:
        self._epilog = value

    def error(self, message: str) -> None:  # type: ignore[override]
        """Raise UsageError, with the way to the help."""
        raise UsageError(f"{message}; see {self.prog} --help")


def asks_for_check(words: Sequence[str]) -> bool:
    """Tell whether a command line asks for a check of Nagios', even where it can't be parsed.

    That is certain: the command comes first, and no option has an abbreviation.
    """
    return words[:1] == ["status"] and "--nagios" in words


def epilog(examples: str, known: Known, where: str, exit_status: str) -> str:
    """Write what stands below a command's options: examples, the names of the settings, the exit status."""
    import textwrap

    names = ", ".join(
        one.name + (f" ({one.unit.partition(';')[0]})" if one.unit else "")
        for one in known.values()
    )
    paragraph = textwrap.fill(
        f"settings: {names}, in {where}", 130, subsequent_indent="  ", break_on_hyphens=False
    )
    return f"{examples}\n{paragraph}\n\n{exit_status}"


def _level(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"{text!r} is no migration level of T3's, such as 30")
    return int(text)


def _epilog() -> str:
    from t3_backup import settings

    return epilog(
        _EXAMPLES,
        settings.KNOWN,
        f"{settings.DEFAULTS_FILE} or the environment; a flag beats both.",
        _EXIT_STATUS,
    )


_Commands = argparse._SubParsersAction  # of a Parser


class _Shared:
    """Hold the options that several commands have, and add commands that have them."""

    def __init__(self, commands: _Commands[Parser]) -> None:
        self._commands = commands
        self.place = Parser(add_help=False)
        self.place.add_argument(
            "--dest", metavar="DIR", help="the store (T3_BACKUP_DEST; /var/backups/t3-state)"
        )
        self.store = Parser(add_help=False, parents=[self.place])
        self.store.add_argument(
            "--json",
            action="store_true",
            help="one JSON document on standard output; lines go to standard error",
        )

    def add(self, name: str, about: str, *, store: bool = True) -> Parser:
        """Add a command."""
        return self._commands.add_parser(
            name, parents=[self.store if store else self.place], help=about
        )

    def add_apart(self, name: str, about: str) -> Parser:
        """Add a command that has none of these options."""
        return self._commands.add_parser(name, help=about)


def _add_map(command: Parser) -> None:
    command.add_argument(
        "--map", metavar="FILE", help="the user map (T3_BACKUP_MAP; /etc/ttyd-user-map)"
    )


def _add_run(shared: _Shared) -> None:
    command = shared.add("run", "back up the accounts of the map")
    command.add_argument(
        "--user", action="append", metavar="U", help="only this account (may be repeated)"
    )
    command.add_argument(
        "--label",
        metavar="L",
        help="label the snapshots; retention counts labelled ones separately",
    )
    _add_map(command)
    command.add_argument(
        "--keep",
        metavar="N",
        help="keep the newest N, and the newest of each of N days (T3_BACKUP_KEEP; 14)",
    )
    command.add_argument(
        "--timeout", metavar="S", help="seconds for one account (T3_BACKUP_TIMEOUT; 900)"
    )
    command.add_argument("--jobs", metavar="N", help="accounts at once (T3_BACKUP_JOBS; 1)")
    command.add_argument(
        "--dry-run", action="store_true", help="say what would be backed up, and write nothing"
    )


def _add_list(shared: _Shared) -> None:
    shared.add("list", "show the snapshots, newest first").add_argument(
        "user", nargs="?", metavar="USER"
    )


def _add_report(shared: _Shared) -> None:
    command = shared.add(
        "report", "write the snapshots as one self-contained HTML page", store=False
    )
    command.add_argument(
        "--html", metavar="FILE", required=True, help="where to write it; - is standard output"
    )
    command.add_argument("user", nargs="?", metavar="USER")


def _add_verify(shared: _Shared) -> None:
    command = shared.add("verify", "prove sealed snapshots again")
    command.add_argument("user", nargs="?", metavar="USER")
    which = command.add_mutually_exclusive_group()
    which.add_argument(
        "--all",
        action="store_true",
        help="every snapshot of USER, or of every account (the default)",
    )
    which.add_argument(
        "--at",
        metavar="WHEN",
        help="one snapshot: its name, 'latest', a time, a date, or an age such as 3d",
    )
    command.add_argument(
        "--timeout", metavar="S", help="seconds for one snapshot (T3_BACKUP_TIMEOUT; 900)"
    )


def _add_restore(shared: _Shared) -> None:
    command = shared.add("restore", "put a snapshot back in the place of a live database")
    command.add_argument("user", metavar="USER")
    command.add_argument(
        "--at",
        metavar="WHEN",
        default="latest",
        help="'latest' (verified), a time, a date, an age, or a snapshot's name",
    )
    command.add_argument(
        "--label", metavar="L", help="one of this label; 'prerestore' undoes the last restore"
    )
    command.add_argument(
        "--schema", metavar="N", type=_level, help="one whose T3 migration level is at most N"
    )
    command.add_argument(
        "--only",
        choices=("database", "files"),
        help="only the database, or only its secrets, settings and attachments",
    )
    command.add_argument(
        "--to", metavar="FILE", help="write it to a new file, and touch nothing else"
    )
    command.add_argument(
        "--dry-run",
        action="store_true",
        help="show what would be put back, and which rows are gained and lost",
    )
    command.add_argument("--yes", action="store_true", help="do not ask")
    command.add_argument(
        "--no-service",
        action="store_true",
        help=f"do not stop or start {unit_name('USER')}; it must not run",
    )
    command.add_argument(
        "--timeout", metavar="S", help="seconds for each step (T3_BACKUP_TIMEOUT; 900)"
    )


def _add_accept(shared: _Shared) -> None:
    shared.add(
        "accept", "accept suspect and damaged snapshots, so that pruning goes on"
    ).add_argument("user", metavar="USER")


def _add_prune(shared: _Shared) -> None:
    command = shared.add("prune", "remove what retention does not keep, and compact the rest, now")
    command.add_argument("user", nargs="?", metavar="USER")
    command.add_argument(
        "--keep", metavar="N", help="newest N, and newest of each of N days (T3_BACKUP_KEEP; 14)"
    )
    command.add_argument(
        "--dry-run",
        action="store_true",
        help="show what would be removed, what is kept, and why; change nothing",
    )


def _add_du(shared: _Shared) -> None:
    shared.add("du", "show the disk usage of each account's history").add_argument(
        "user", nargs="?", metavar="USER"
    )


def _add_pin(shared: _Shared) -> None:
    _add_names(
        shared.add("pin", "keep these snapshots until they are unpinned, whatever retention says")
    )


def _add_unpin(shared: _Shared) -> None:
    _add_names(shared.add("unpin", "let retention prune these snapshots again"))


def _add_names(command: Parser) -> None:
    command.add_argument("user", metavar="USER")
    command.add_argument(
        "names",
        nargs="+",
        metavar="NAME",
        help="a name, 'latest', a time, a date, or an age such as 3d",
    )


def _add_status(shared: _Shared) -> None:
    command = shared.add("status", "show the age, verdict and number of each account's snapshots")
    command.add_argument("user", nargs="?", metavar="USER")
    _add_map(command)
    command.add_argument(
        "--nagios",
        action="store_true",
        help="one line with perfdata; exit status 0 ok, 1 warning, 2 critical, 3 unknown",
    )
    command.add_argument(
        "--max-age",
        metavar="AGE",
        default="26h",
        help="critical if the last good one is older (90m, 2d; 26h)",
    )
    command.add_argument(
        "--min-snapshots", metavar="N", default="1", help="warn if there are fewer good ones (1)"
    )


def _add_doctor(shared: _Shared) -> None:
    _add_map(shared.add("doctor", "check accounts, store and units, and say what to do"))


def _add_hooks(shared: _Shared) -> None:
    command = shared.add_apart("hooks", "call the hooks of a failed run, to try them")
    command.add_argument(
        "--document",
        metavar="FILE",
        help="the result of a run of the service, for the unit that calls this",
    )


def _add_import_legacy(shared: _Shared) -> None:
    command = shared.add(
        "import-legacy", "take over the snapshots that an earlier script left to the users"
    )
    command.add_argument("users", nargs="*", metavar="USER")
    command.add_argument(
        "--timeout", metavar="S", help="seconds for one account (T3_BACKUP_TIMEOUT; 900)"
    )


COMMANDS: dict[str, Callable[[_Shared], None]] = {
    "run": _add_run,
    "list": _add_list,
    "report": _add_report,
    "verify": _add_verify,
    "restore": _add_restore,
    "accept": _add_accept,
    "prune": _add_prune,
    "du": _add_du,
    "pin": _add_pin,
    "unpin": _add_unpin,
    "status": _add_status,
    "doctor": _add_doctor,
    "hooks": _add_hooks,
    "import-legacy": _add_import_legacy,
}


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """Build the parser, from which the help is made, too.

    With one command alone where it is known which it will be.
    """
    top = Parser(
        prog="t3-backup-state",
        description="Proven copies of every T3 Code user's live database. Without a command: run.",
        epilog=_epilog,
        formatter_class=_TopFormatter,
    )
    top.add_argument("--version", action="version", version=f"t3-backup {t3_backup.__version__}")
    shared = _Shared(top.add_subparsers(dest="command", metavar="COMMAND", prog=top.prog))
    for name, add in COMMANDS.items():
        if only in (None, name):
            add(shared)
    return top


def parse_arguments(words: Sequence[str]) -> argparse.Namespace:
    """Parse a command line; without a command it is `run`. Raises UsageError."""
    words = words or ["run"]
    known = words[0] in COMMANDS or words[0] == "--version"
    return build_parser(words[0] if known else None).parse_args(words)
