"""Build the command line of `t3-autoupdate`.

It has commands, flags and help, from which the manual page is made, too.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import t3_backup
from t3_backup.autoupdate import settings
from t3_backup.cli.parser import Parser, epilog
from t3_backup.errors import UsageError
from t3_backup.t3 import versions

_EXAMPLES = """\
examples:
  t3-autoupdate                        bring every account to T3_PIN, as the timer does
  t3-autoupdate --to 0.0.25 --dry-run  only try that version, on copies of everybody's data
  t3-autoupdate --to 0.0.25            back up, switch and check one account after another
  t3-autoupdate drain                  move the deferred accounts that are no longer busy
  t3-autoupdate status                 which version is each account on, and does its database fit it?
  t3-autoupdate check                  log in to every server as a browser does
  t3-autoupdate rollback --user alice  go back to the previous version, with the data it had
  t3-autoupdate rollback --undo        undo that rollback
  t3-autoupdate freeze "on holiday"    stop the timers from changing anything, until: t3-autoupdate thaw
"""
_WHERE = (
    "/etc/default/t3-autoupdate or the environment; the user map, the store and the metrics are those of t3-backup "
    "(/etc/default/t3-backup)."
)
_EXIT_STATUS = """\
exit status: 0 all well; 1 a version was turned away, an account had to go back, or something needs attention; 2 wrong use or
  configuration; 75 another one is running, try again later. Whatever it is, each account is on a program and data that fit.
"""


def parse_arguments(words: Sequence[str]) -> argparse.Namespace:
    """Parse the words of a command line.

    Raises UsageError for those that make no sense, or not together.
    """
    args = build_parser().parse_args(words)
    # What stands before a command is meant for it, too: a --dry-run that it can't follow must not
    # be passed over.
    if args.command not in (None, "rollback"):
        for flag, given in (("--to", args.to is not None), ("--dry-run", args.dry_run)):
            if given:
                raise UsageError(
                    f"{args.command} has no {flag}; see t3-autoupdate {args.command} --help"
                )
    if args.command == "rollback" and args.undo and args.to is not None:
        raise UsageError("rollback has --to or --undo, not both; see t3-autoupdate rollback --help")
    return args


def _version(text: str) -> str:
    if not versions.is_version(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no version of T3, such as 0.0.25")
    return text


def build_parser() -> argparse.ArgumentParser:
    """Build the parser, from which the help is made."""
    shared = Parser(add_help=False)
    shared.add_argument(
        "--json",
        action="store_true",
        default=argparse.SUPPRESS,
        help="one JSON document on standard output; lines go to standard error",
    )
    busy = Parser(add_help=False)
    busy.add_argument(
        "--include-busy",
        action="store_true",
        default=argparse.SUPPRESS,
        help="include accounts with a running agent",
    )
    top = Parser(
        prog="t3-autoupdate",
        description="Move accounts to a new T3 version, and back, data included. Without a command: bring every account to T3_PIN.",
        epilog=epilog(_EXAMPLES, settings.KNOWN, _WHERE, _EXIT_STATUS),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[shared, busy],
    )
    top.add_argument(
        "--version", action="version", version=f"t3-autoupdate {t3_backup.__version__}"
    )
    top.add_argument(
        "--to",
        type=_version,
        metavar="VERSION",
        help="bring every account to this version (T3_PIN; 0.0.24)",
    )
    top.add_argument(
        "--dry-run", action="store_true", help="only try the version on copies: nothing is switched"
    )
    top.set_defaults(json=False, include_busy=False)
    commands = top.add_subparsers(dest="command", metavar="COMMAND")

    commands.add_parser(
        "drain", parents=[shared, busy], help="move the deferred accounts that are no longer busy"
    )
    commands.add_parser("resume", parents=[shared], help="complete or undo what was interrupted")

    back = commands.add_parser(
        "rollback", parents=[shared], help="go back to the previous version, with the data it had"
    )
    back.add_argument("--user", metavar="U", help="only this account")
    which = back.add_mutually_exclusive_group()
    which.add_argument(
        "--to", type=_version, default=argparse.SUPPRESS, metavar="VERSION", help="to this version"
    )
    which.add_argument("--undo", action="store_true", help="undo the last rollback")
    back.add_argument("--yes", action="store_true", help="do not ask")
    back.add_argument(
        "--dry-run",
        action="store_true",
        default=argparse.SUPPRESS,
        help="show what would be put back and lost",
    )

    check = commands.add_parser(
        "check", parents=[shared], help="log in to every running server as a browser does"
    )
    check.add_argument("--user", metavar="U", help="only this account's")
    commands.add_parser(
        "status",
        parents=[shared],
        help="show each account's version, and whether its database fits it",
    )
    commands.add_parser(
        "adopt",
        parents=[shared],
        help="take a plain npm -g installation over; nothing is restarted",
    )
    freezing = commands.add_parser(
        "freeze", parents=[shared], help="stop the timers from changing anything"
    )
    freezing.add_argument("reason", nargs="*", metavar="REASON")
    commands.add_parser("thaw", parents=[shared], help="end a freeze")
    return top
