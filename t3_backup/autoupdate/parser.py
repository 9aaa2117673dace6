"""Build the command line of `t3-autoupdate`, and so its help and manual page."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import t3_backup
from t3_backup.accounts import spell_name
from t3_backup.autoupdate import settings
from t3_backup.cli.parser import Parser, epilog
from t3_backup.errors import UsageError
from t3_backup.t3 import versions

_EXAMPLES = """\
examples:
  t3-autoupdate                         bring every account to T3_PIN, as the timer does
  t3-autoupdate --to 0.0.25 --dry-run   only try that version, on copies of everybody's data
  t3-autoupdate --to 0.0.25             back up, switch and check one account after another
  t3-autoupdate --to 0.0.25 --user bob  move bob alone, as a canary
  t3-autoupdate drain                   move the deferred accounts that are no longer busy
  t3-autoupdate status                  each account's version, and whether its database fits it
  t3-autoupdate check                   log in to every server as a browser does
  t3-autoupdate rollback --user alice   go back to the previous version, with the data it had
  t3-autoupdate rollback --undo         undo that rollback
  t3-autoupdate versions --remove       remove the versions that nobody can go back to
  t3-autoupdate freeze "on holiday"     stop the timers from changing anything, until: \
t3-autoupdate thaw
  t3-autoupdate thaw --user alice       let alice, who was left out, be moved again
"""
_WHERE = (
    "/etc/default/t3-autoupdate or the environment; the user map, the store and the metrics are "
    "those of t3-backup (/etc/default/t3-backup)."
)
_EXIT_STATUS = """\
exit status: 0 all well; 1 a version was turned away, an account had to go back, or something \
needs attention; 2 wrong use or
  configuration; 75 another one is running, try again later. Whatever it is, each account is on \
a program and data that fit.
"""


def parse_arguments(words: Sequence[str]) -> argparse.Namespace:
    """Parse the words of a command line. Raises UsageError for those that make no sense."""
    args = build_parser().parse_args(words)
    # A flag before a command is meant for it, too: one that it can't follow is not passed over.
    if args.command not in (None, "rollback"):
        for flag, given in (("--to", args.to is not None), ("--dry-run", args.dry_run)):
            if given:
                mend = f"see t3-autoupdate {args.command} --help"
                raise UsageError(f"{args.command} has no {flag}; {mend}")
    if args.users and args.command is not None:
        mend = f"see t3-autoupdate {args.command} --help"
        raise UsageError(f"--user belongs behind {args.command}, if it has one; {mend}")
    if args.users and args.to is None:
        raise UsageError("--user needs --to VERSION: these accounts are its canary")
    if args.command == "rollback" and args.undo and args.to is not None:
        raise UsageError("rollback has --to or --undo, not both; see t3-autoupdate rollback --help")
    if args.command == "versions" and args.versions and not args.remove:
        raise UsageError("versions lists all; with --remove it takes some")
    return args


def _version(text: str) -> str:
    if not versions.is_version(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no version of T3, such as 0.0.25")
    return text


def build_parser() -> argparse.ArgumentParser:
    """Build the parser, from which the help is made."""
    # A flag that may stand before or after its command keeps the default of neither.
    flag: dict[str, Any] = {"action": "store_true", "default": argparse.SUPPRESS}
    shared, busy = Parser(add_help=False), Parser(add_help=False)
    meaning = "one JSON document on standard output; lines go to standard error"
    shared.add_argument("--json", **flag, help=meaning)
    busy.add_argument("--include-busy", **flag, help="include accounts with a running agent")
    top = Parser(
        prog="t3-autoupdate",
        description="Move accounts to a new T3 version, and back, data included. "
        "Without a command: bring every account to T3_PIN.",
        epilog=epilog(_EXAMPLES, settings.KNOWN, _WHERE, _EXIT_STATUS),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[shared, busy],
    )
    version = f"t3-autoupdate {t3_backup.__version__}"
    top.add_argument("--version", action="version", version=version)
    meaning = "bring every account to this version (T3_PIN; 0.0.24)"
    top.add_argument("--to", type=_version, metavar="VERSION", help=meaning)
    meaning = "only this account, as a canary; may be given several times"
    named: dict[str, Any] = {"metavar": "U", "type": spell_name}
    top.add_argument("--user", **named, action="append", default=[], dest="users", help=meaning)
    meaning = "only try the version on copies, and forecast time and room: nothing is switched"
    top.add_argument("--dry-run", action="store_true", help=meaning)
    top.set_defaults(json=False, include_busy=False)
    commands = top.add_subparsers(dest="command", metavar="COMMAND")

    def add(name: str, meaning: str, *parents: Parser) -> Parser:
        return commands.add_parser(name, parents=[shared, *parents], help=meaning)

    add("drain", "move the deferred accounts that are no longer busy", busy)
    add("resume", "complete or undo what was interrupted")
    back = add("rollback", "go back to the previous version, with the data it had")
    back.add_argument("--user", **named, help="only this account")
    which = back.add_mutually_exclusive_group()
    to: dict[str, Any] = {"type": _version, "default": argparse.SUPPRESS, "metavar": "VERSION"}
    which.add_argument("--to", **to, help="to this version")
    which.add_argument("--undo", action="store_true", help="undo the last rollback")
    back.add_argument("--yes", action="store_true", help="do not ask")
    back.add_argument("--dry-run", **flag, help="show what would be put back and lost")
    check = add("check", "log in to every running server as a browser does")
    meaning = "only to this account's, which must run"
    check.add_argument("--user", **named, help=meaning)
    add("status", "show each account's version, and whether its database fits it")
    add("adopt", "take a plain npm -g installation over; nothing is restarted")
    aside = add("put-aside", "put aside what a newer t3 has made beside an account's database")
    aside.add_argument("--user", **named, required=True, help="the account")
    stored = add("versions", "list the versions on the disk, and who needs each")
    meaning = "remove the named ones, or all that nobody needs"
    stored.add_argument("--remove", action="store_true", help=meaning)
    meaning = "a version on the disk; with --remove only"
    versions_of: dict[str, Any] = {"nargs": "*", "type": _version, "metavar": "VERSION"}
    stored.add_argument("versions", **versions_of, help=meaning)
    freezing = add("freeze", "stop the timers from changing anything, or leave an account out")
    meaning = "leave this account out of each change; the others are moved"
    freezing.add_argument("--user", **named, help=meaning)
    meaning = "why; status tells it"
    freezing.add_argument("reason", nargs="*", metavar="REASON", help=meaning)
    thawing = add("thaw", "end a freeze")
    thawing.add_argument("--user", **named, help="end the freeze of this account alone")
    return top
