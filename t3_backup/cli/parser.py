"""Parse the command line of `t3-backup-state`, and write its help."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import t3_backup
from t3_backup.cli.commands import COMMANDS, Arguments
from t3_backup.errors import UsageError
from t3_backup.system import standard_streams

if TYPE_CHECKING:
    from t3_backup.config import Known

PROGRAM = "t3-backup-state"
_EXAMPLES = (
    ("", "back up every account of the map, as the timer does"),
    (" run --user alice --label prebump-0.0.25", ""),
    (" list alice", ""),
    (" report --html /root/backups.html", ""),
    (" verify --all", "prove every snapshot of every account again, as the weekly timer does"),
    (" verify alice --at 2026-11-24", ""),
    (" restore alice --at 3d", "put back the state of three days ago"),
    (" restore alice --label prerestore", "undo it"),
    (" accept alice", "a suspect or damaged snapshot has been looked at"),
    (" pin alice 3d", "never prune that one, until it is unpinned"),
    (" prune --dry-run", "what would be removed, what is kept, and why?"),
    (" du", "how much disk space does each account's history use?"),
    (" status", "how old, how good and how many are each account's snapshots?"),
    (" init", "make the store, and remember which one it is"),
    (" doctor", "are accounts, store and units set up as backups need?"),
    (" hooks", "try the hooks of a failed run"),
    (" import-legacy", "take over snapshots of an earlier script from the users' folders"),
)
_EXIT_STATUS = (
    "exit status: 0 all well; 1 an account failed, a new snapshot is suspect or damaged, one does "
    "not verify, a check of the doctor, or a hook, failed, or the status of an account is "
    "critical; 2 wrong use or configuration; 4 the live database is open in another process, and "
    "nothing was restored; 75 another run holds the store, try again later. status --nagios has "
    "those of a check: 0 ok, 1 warning, 2 critical, 3 unknown."
)
_WIDTH = 100  # of what stands below the options


class _HelpFormatter(argparse.HelpFormatter):
    """Format help as wide as the terminal.

    argparse asks for that by a module that brings every kind of compression.
    """

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
    """Parse a command line, with UsageError for what makes no sense.

    Options have no abbreviations, and the epilog may be made when it is wanted.
    """

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

    def _print_message(self, message: str, file: Any = None) -> None:  # noqa: ARG002 - argparse's
        """Print help or version; argparse itself would leave what can't be written to the exit."""
        if message:
            standard_streams.write_out(message)

    def error(self, message: str) -> None:  # type: ignore[override]
        """Raise UsageError, with the way to the help."""
        raise UsageError(f"{message}; see {self.prog} --help")


def epilog(examples: str, known: Known, where: str, exit_status: str) -> str:
    """Write what stands below the options: examples, settings and exit status."""
    import textwrap

    names = ", ".join(
        one.name + (f" ({one.unit.partition(';')[0]})" if one.unit else "")
        for one in known.values()
    )

    def fill(text: str) -> str:
        words = " ".join(text.split())
        return textwrap.fill(words, _WIDTH, subsequent_indent="  ", break_on_hyphens=False)

    return f"{examples}\n{fill(f'settings: {names}, in {where}')}\n\n{fill(exit_status)}\n"


def _epilog() -> str:
    from t3_backup import settings

    lines = [f"  {PROGRAM}{words}".ljust(51) + about for words, about in _EXAMPLES]
    where = f"{settings.DEFAULTS_FILE} or the environment; a flag beats both."
    examples = "".join(f"{line.rstrip()}\n" for line in ("examples:", *lines))
    return epilog(examples, settings.KNOWN, where, _EXIT_STATUS)


def asks_for_check(words: Sequence[str]) -> bool:
    """Tell whether a command line asks for a Nagios check, even an unparsable one.

    That is certain: the command comes first, and no option has an abbreviation.
    """
    return words[:1] == ["status"] and "--nagios" in words


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """Build the parser of all commands, or of `only` the one that it will be."""
    top = Parser(
        prog=PROGRAM,
        description="Proven copies of every T3 Code user's live database. Without a command: run.",
        epilog=_epilog,
        formatter_class=_TopFormatter,
    )
    top.add_argument("--version", action="version", version=f"t3-backup {t3_backup.__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", prog=top.prog)
    for name, (about, arguments) in COMMANDS.items():
        if only in (None, name):
            _add_arguments(commands.add_parser(name, help=about), arguments)
    return top


def _add_arguments(command: Parser, arguments: Arguments) -> None:
    for one in arguments:
        if isinstance(one, list):
            group = command.add_mutually_exclusive_group()
            for name, about in one:
                group.add_argument(name, **about)
        else:
            name, about = one
            command.add_argument(name, **about)


def parse_arguments(words: Sequence[str]) -> argparse.Namespace:
    """Parse a command line; without a command it is `run`. Raises UsageError."""
    words = words or ["run"]
    known = words[0] in COMMANDS or words[0] == "--version"
    return build_parser(words[0] if known else None).parse_args(words)
