#!/usr/bin/python3
"""Print the manual page t3-backup-state(8): the prose of docs/t3-backup-state.8.in; commands, options and settings as they are.

What can drift is taken from the parser and the table of settings. The date is that of SOURCE_DATE_EPOCH, so that a build can be
repeated byte for byte.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import t3_backup
from t3_backup import settings
from t3_backup.arguments import parser

ROOT = Path(__file__).resolve().parent.parent
PROSE = ROOT / "docs" / "t3-backup-state.8.in"
DEFAULTS = ROOT / "debian" / "t3-backup.default"
NAME = "t3-backup-state"
_EXACT = {"-": "\\-", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti"}  # what is typed must be shown as it is


def escape(text: str) -> str:
    """`text` as roff has it: no character that is replaced by a nicer one, no line that is taken for a request."""
    text = text.replace("\\", "\\e")
    for plain, exact in _EXACT.items():
        text = text.replace(plain, exact)
    return re.sub(r"^\.", r"\\&.", text, flags=re.MULTILINE)


def commands(top: argparse.ArgumentParser) -> dict[str, tuple[str, argparse.ArgumentParser]]:
    """Each command's help and parser."""
    [group] = [action for action in top._actions if isinstance(action, argparse._SubParsersAction)]
    helps = {choice.dest: choice.help or "" for choice in group._choices_actions}
    return {name: (helps[name], sub) for name, sub in group.choices.items()}


def shape(action: argparse.Action) -> str:
    """What is written for an argument: `[--dest DIR]`, `[USER]`, `NAME...`."""
    words = (" ".join([*action.option_strings[-1:], *([str(action.metavar)] if action.metavar else [])])).strip()
    words += "..." if action.nargs == "+" else ""
    return words if action.required else f"[{words}]"


def arguments(command: argparse.ArgumentParser) -> list[argparse.Action]:
    """Those that tell one command from another: --help is everywhere."""
    return [action for action in command._actions if not isinstance(action, argparse._HelpAction)]


def synopsis(top: argparse.ArgumentParser) -> Iterator[str]:
    """How each command is called."""
    for name, (_, command) in commands(top).items():
        yield f".B {escape(NAME)} {escape(name)}"
        yield escape(" ".join(shape(action) for action in arguments(command)))
        yield ".br"
    yield f".B {escape(NAME)} \\-\\-version"


def options(top: argparse.ArgumentParser) -> Iterator[str]:
    """Each command with its options."""
    for name, (about, command) in commands(top).items():
        yield f".SS {escape(name)}"
        yield escape(about[:1].upper() + about[1:] + ".")
        for action in arguments(command):
            if action.option_strings:
                yield ".TP"
                metavar = f" \\fI{escape(str(action.metavar))}\\fR" if action.metavar else ""
                yield f"\\fB{escape(', '.join(action.option_strings))}\\fR{metavar}"
                yield escape(action.help or "")
    yield ".SS Everywhere"
    yield ".TP\n\\fB\\-h, \\-\\-help\\fR\nSay how a command is used.\n.TP\n\\fB\\-\\-version\\fR\nSay which version this is."


def meanings() -> dict[str, str]:
    """What the shipped /etc/default/t3-backup says of each setting."""
    found = re.findall(r"^# (.+)\n#(T3_BACKUP_\w+)=", DEFAULTS.read_text(encoding="utf-8"), re.MULTILINE)
    return {name: meaning for meaning, name in found}


def known_settings() -> Iterator[str]:
    """Each setting with its default."""
    said = meanings()
    for name, default, _ in settings._KNOWN.values():
        yield f".TP\n.B {escape(name)}\n{escape(said[name])}\nDefault: {escape(default)}."


def examples(top: argparse.ArgumentParser) -> Iterator[str]:
    """Those of the help: each a command, and behind spaces what it does."""
    for line in (top.epilog or "").split("\n\n", maxsplit=1)[0].splitlines()[1:]:
        command, *does = re.split(r"\s{2,}", line.strip(), maxsplit=1)
        yield "\n.br\n".join([f".B {escape(command)}", *map(escape, does)]) + "\n.PP"


def page() -> str:
    """The whole of it."""
    top = parser()
    date = time.strftime("%Y-%m-%d", time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH") or time.time())))
    filled = {
        "DATE": date,
        "VERSION": t3_backup.__version__,
        "SYNOPSIS": "\n".join(synopsis(top)),
        "COMMANDS": "\n".join(options(top)),
        "SETTINGS": "\n".join(known_settings()),
        "EXAMPLES": "\n".join(examples(top)).removesuffix("\n.PP"),
    }
    return re.sub(r"@([A-Z]+)@", lambda match: filled[match[1]], PROSE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.stdout.write(page())
