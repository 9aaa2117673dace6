#!/usr/bin/python3
"""Print the manual page of t3-backup-state or t3-autoupdate.

What can drift is taken from the parser and from the table of settings, as tools/settings_files.py
does. The date is that of SOURCE_DATE_EPOCH, so that a build can be repeated byte for byte.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import t3_backup
from t3_backup import settings as backup_settings
from t3_backup.autoupdate import parser as bump
from t3_backup.autoupdate import settings as bump_settings
from t3_backup.cli import parser as backup
from t3_backup.config import Known

ROOT = Path(__file__).resolve().parent.parent


class Program(NamedTuple):
    """What a page is made from."""

    parser: Callable[[], argparse.ArgumentParser]
    known: Known  # its settings
    defaults: Path  # the file that is shipped with them


_DEBIAN = ROOT / "debian"
PROGRAMS = {
    "t3-backup-state": Program(
        backup.build_parser, backup_settings.KNOWN, _DEBIAN / "t3-backup.default"
    ),
    "t3-autoupdate": Program(
        bump.build_parser, bump_settings.KNOWN, _DEBIAN / "t3-autoupdate.default"
    ),
}
# what is typed must be shown as it is
_EXACT = {"-": "\\-", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti", '"': "\\(dq"}


def escape(text: str) -> str:
    """Write `text` so that roff shows it as it is."""
    text = text.replace("\\", "\\e")
    for plain, exact in _EXACT.items():
        text = text.replace(plain, exact)
    return re.sub(r"^\.", r"\\&.", text, flags=re.MULTILINE)


def commands(top: argparse.ArgumentParser) -> dict[str, tuple[str, argparse.ArgumentParser]]:
    """Find each command's help and parser."""
    [group] = [action for action in top._actions if isinstance(action, argparse._SubParsersAction)]
    helps = {choice.dest: choice.help or "" for choice in group._choices_actions}
    return {name: (helps[name], sub) for name, sub in group.choices.items()}


def shape(action: argparse.Action) -> str:
    """Write what is typed for an argument: `[--dest DIR]`, `[USER]`, `NAME...`."""
    metavar = [str(action.metavar)] if action.metavar else []
    words = " ".join([*action.option_strings[-1:], *metavar])
    words += "..." if action.nargs in ("+", "*") else ""
    return words if action.required and action.nargs != "*" else f"[{words}]"


def arguments(command: argparse.ArgumentParser) -> list[argparse.Action]:
    """List the arguments of one command; --help and --version are everywhere."""
    general = (argparse._HelpAction, argparse._VersionAction, argparse._SubParsersAction)
    return [action for action in command._actions if not isinstance(action, general)]


def synopsis(top: argparse.ArgumentParser) -> Iterator[str]:
    """Write how each command is called."""
    for words, command in calls(top):
        yield f".B {escape(words)}"
        yield escape(" ".join(shape(action) for action in arguments(command)))
        yield ".br"
    yield f".B {escape(top.prog)} \\-\\-version"


def calls(top: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield what is typed before arguments; without a command first, where it can be."""
    if arguments(top):
        yield top.prog, top
    for name, (_, command) in commands(top).items():
        yield f"{top.prog} {name}", command


def options(top: argparse.ArgumentParser) -> Iterator[str]:
    """Write each command with its options."""
    if arguments(top):
        yield ".SS Without a command"
        yield from described(top)
    for name, (about, command) in commands(top).items():
        yield f".SS {escape(name)}"
        yield escape(about[:1].upper() + about[1:] + ".")
        yield from described(command)
    yield ".SS Everywhere"
    yield ".TP\n\\fB\\-h, \\-\\-help\\fR\nSay how a command is used."
    yield ".TP\n\\fB\\-\\-version\\fR\nSay which version this is."


def described(command: argparse.ArgumentParser) -> Iterator[str]:
    """Write the options of one command."""
    for action in arguments(command):
        if action.option_strings:
            yield ".TP"
            metavar = f" \\fI{escape(str(action.metavar))}\\fR" if action.metavar else ""
            yield f"\\fB{escape(', '.join(action.option_strings))}\\fR{metavar}"
            yield escape(action.help or "")


def known_settings(known: Known) -> Iterator[str]:
    """Write each setting with its meaning, unit and default."""
    for one in known.values():
        meaning = re.sub(r"\\\(ga(.+?)\\\(ga", r"\\fB\1\\fR", escape(one.meaning))
        unit = f"\nUnit: {escape(one.unit)}." if one.unit else ""
        yield f".TP\n.B {escape(one.name)}\n{meaning}{unit}\nDefault: {escape(one.default)}."


def examples(top: argparse.ArgumentParser) -> Iterator[str]:
    """Write those of the help: each a command, and behind spaces what it does."""
    for line in (top.epilog or "").split("\n\n", maxsplit=1)[0].splitlines()[1:]:
        command, *does = re.split(r"\s{2,}", line.strip(), maxsplit=1)
        yield "\n.br\n".join([f".B {escape(command)}", *map(escape, does)]) + "\n.PP"


def page(name: str) -> str:
    """Write the whole page."""
    program = PROGRAMS[name]
    top = program.parser()
    when = time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH") or time.time()))
    filled = {
        "DATE": time.strftime("%Y-%m-%d", when),
        "VERSION": t3_backup.__version__,
        "SYNOPSIS": "\n".join(synopsis(top)),
        "COMMANDS": "\n".join(options(top)),
        "SETTINGS": "\n".join(known_settings(program.known)),
        "EXAMPLES": "\n".join(examples(top)).removesuffix("\n.PP"),
    }
    prose = ROOT / "docs" / f"{name}.8.in"
    return re.sub(r"@([A-Z]+)@", lambda match: filled[match[1]], prose.read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.stdout.write(page(sys.argv[1]))
