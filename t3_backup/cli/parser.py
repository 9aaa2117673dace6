"""The command line of `t3-backup-state`: its commands, flags and help, from which the manual page is made, too."""

from __future__ import annotations

import argparse
import textwrap

import t3_backup
from t3_backup import settings
from t3_backup.errors import UsageError

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
  t3-backup-state prune --dry-run                  what would go, what stays, and why?
  t3-backup-state du                               what does each account's history take of the disk?
  t3-backup-state status                           how old, how good and how many is what there is of each account?
  t3-backup-state doctor                           is everything here as backups need it?
  t3-backup-state hooks                            try what is called when a run has failed
"""
_EXIT_STATUS = """\
exit status: 0 all well; 1 an account failed, a new snapshot is suspect or damaged, one does not verify, a check of the doctor,
  or a hook, failed, or the status of an account is critical; 2 wrong use or configuration; 4 the live database is open in another
  process, and nothing was restored; 75 another run holds the store, try again later. status --nagios has those of a check: 0 ok,
  1 warning, 2 critical, 3 unknown.
"""


class Parser(argparse.ArgumentParser):
    """One whose errors are those of the house."""

    def error(self, message: str) -> None:  # type: ignore[override]
        """Raises UsageError, with the way to the help."""
        raise UsageError(f"{message}; see {self.prog} --help")


def epilog(examples: str, known: settings.Known, where: str, exit_status: str) -> str:
    """Write what stands below a command's options: examples, the names of the settings, the exit status."""
    names = ", ".join(one.name + (f" ({one.unit.partition(';')[0]})" if one.unit else "") for one in known.values())
    paragraph = textwrap.fill(f"settings: {names}, in {where}", 130, subsequent_indent="  ", break_on_hyphens=False)
    return f"{examples}\n{paragraph}\n\n{exit_status}"


def _level(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"{text!r} is no migration level of T3's, such as 30")
    return int(text)


def _add_pinning(commands: argparse._SubParsersAction[Parser], store: Parser) -> None:
    abouts = {"pin": "keep snapshots, whatever retention says", "unpin": "leave pinned snapshots to retention again"}
    for command, about in abouts.items():
        pinning = commands.add_parser(command, parents=[store], help=about)
        pinning.add_argument("user", metavar="USER")
        pinning.add_argument("names", nargs="+", metavar="NAME", help="a name, 'latest', a time, a date, or an age such as 3d")


def build_parser() -> argparse.ArgumentParser:
    """The command line, from which the help is made."""
    top = Parser(
        prog="t3-backup-state",
        description="Proven copies of every T3 Code user's live database. Without a command: run.",
        epilog=epilog(_EXAMPLES, settings.KNOWN, f"{settings.DEFAULTS_FILE} or the environment; a flag beats both.", _EXIT_STATUS),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"t3-backup {t3_backup.__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND")

    place = Parser(add_help=False)
    place.add_argument("--dest", metavar="DIR", help="the store (T3_BACKUP_DEST; /var/backups/t3-state)")
    store = Parser(add_help=False, parents=[place])
    store.add_argument("--json", action="store_true", help="one JSON document on standard output; lines go to standard error")

    run = commands.add_parser("run", parents=[store], help="back up the accounts of the map")
    run.add_argument("--user", action="append", metavar="U", help="only this account (may be repeated)")
    run.add_argument("--label", metavar="L", help="name the snapshots, and count them apart in retention")
    run.add_argument("--map", metavar="FILE", help="the user map (T3_BACKUP_MAP; /etc/ttyd-user-map)")
    run.add_argument("--keep", metavar="N", help="keep the newest N, and the newest of each of N days (T3_BACKUP_KEEP; 14)")
    run.add_argument("--timeout", metavar="S", help="seconds for one account (T3_BACKUP_TIMEOUT; 900)")
    run.add_argument("--jobs", metavar="N", help="accounts at once (T3_BACKUP_JOBS; 1)")
    run.add_argument("--dry-run", action="store_true", help="say what would be backed up, and write nothing")

    listing = commands.add_parser("list", parents=[store], help="show the snapshots, newest first")
    listing.add_argument("user", nargs="?", metavar="USER")

    reporting = commands.add_parser("report", parents=[place], help="show them as a page of HTML that needs nothing else")
    reporting.add_argument("--html", metavar="FILE", required=True, help="where to write it; - is standard output")
    reporting.add_argument("user", nargs="?", metavar="USER")

    proving = commands.add_parser("verify", parents=[store], help="prove sealed snapshots again")
    proving.add_argument("user", nargs="?", metavar="USER")
    which = proving.add_mutually_exclusive_group()
    which.add_argument("--all", action="store_true", help="every snapshot of USER, or of every account (the default)")
    which.add_argument("--at", metavar="WHEN", help="one snapshot: its name, 'latest', a time, a date, or an age such as 3d")
    proving.add_argument("--timeout", metavar="S", help="seconds for one snapshot (T3_BACKUP_TIMEOUT; 900)")

    restoring = commands.add_parser("restore", parents=[store], help="put a snapshot back in the place of a live database")
    restoring.add_argument("user", metavar="USER")
    restoring.add_argument(
        "--at", metavar="WHEN", default="latest", help="'latest' (verified), a time, a date, an age, or a snapshot's name"
    )
    restoring.add_argument("--label", metavar="L", help="one of this label; 'prerestore' undoes the last restore")
    restoring.add_argument("--schema", metavar="N", type=_level, help="one whose T3 migration level is at most N")
    restoring.add_argument(
        "--only",
        choices=("database", "files"),
        help="the database alone, or its secrets, settings and attachments alone",
    )
    restoring.add_argument("--to", metavar="FILE", help="write it to a new file, and touch nothing else")
    restoring.add_argument("--dry-run", action="store_true", help="show what would be put back, gained and lost")
    restoring.add_argument("--yes", action="store_true", help="do not ask")
    restoring.add_argument("--no-service", action="store_true", help="leave t3-serve@USER alone; it must not run")
    restoring.add_argument("--timeout", metavar="S", help="seconds for each step (T3_BACKUP_TIMEOUT; 900)")

    accepting = commands.add_parser("accept", parents=[store], help="end the hold of suspect and damaged snapshots")
    accepting.add_argument("user", metavar="USER")

    _add_keeping(commands, store)
    _add_pinning(commands, store)

    _add_watching(commands, store)
    return top


def _add_keeping(commands: argparse._SubParsersAction[Parser], store: Parser) -> None:
    """The commands by which somebody has a say in what is kept, or sees what it takes."""
    pruning = commands.add_parser("prune", parents=[store], help="let go what is not to be kept, and compact the rest, now")
    pruning.add_argument("user", nargs="?", metavar="USER")
    pruning.add_argument("--keep", metavar="N", help="newest N, and newest of each of N days (T3_BACKUP_KEEP; 14)")
    pruning.add_argument("--dry-run", action="store_true", help="say what would go, what stays, and why; change nothing")

    taking = commands.add_parser("du", parents=[store], help="show what each account's history takes of the disk")
    taking.add_argument("user", nargs="?", metavar="USER")


def _add_watching(commands: argparse._SubParsersAction[Parser], store: Parser) -> None:
    """The commands of who watches over backups."""
    status = commands.add_parser("status", parents=[store], help="show how fresh, good and many each account's snapshots are")
    status.add_argument("user", nargs="?", metavar="USER")
    status.add_argument("--map", metavar="FILE", help="the user map (T3_BACKUP_MAP; /etc/ttyd-user-map)")
    status.add_argument(
        "--nagios", action="store_true", help="one line with perfdata; exit status 0 ok, 1 warning, 2 critical, 3 unknown"
    )
    status.add_argument("--max-age", metavar="AGE", default="26h", help="critical where the last good is older (90m, 2d; 26h)")
    status.add_argument("--min-snapshots", metavar="N", default="1", help="warn where fewer are good (1)")

    doctor = commands.add_parser("doctor", parents=[store], help="check accounts, store and units, and say what to do")
    doctor.add_argument("--map", metavar="FILE", help="the user map (T3_BACKUP_MAP; /etc/ttyd-user-map)")

    calling = commands.add_parser("hooks", help="call what is called when a run has failed, to try it")
    calling.add_argument("--document", metavar="FILE", help="what a run of the service has left, for the unit that calls this")
