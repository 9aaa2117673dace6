#!/usr/bin/python3
"""Write the files that are made from the tables of settings, or check them.

They are the commented files for /etc/default and docs/interface/settings.md. The manual pages take
the same tables when they are made (tools/manpage.py). Usage: tools/settings_files.py [--check]
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from t3_backup import settings as backup_settings  # noqa: E402
from t3_backup.autoupdate import settings as bump_settings  # noqa: E402
from t3_backup.cli import parser as parser_module  # noqa: E402
from t3_backup.config import Known, Setting  # noqa: E402

_WIDTH = 100
_INTRO = """\
<!-- Made by tools/settings_files.py from the tables of settings. Change the table, then run it. -->

# Settings

A value that makes no sense is refused by its name, with the value and where it came from. Units of
bytes are powers of 1024.

## t3-backup-state

A flag beats the environment, which beats `/etc/default/t3-backup`, which beats the default.
"""
_BUMP = """
## t3-autoupdate

The environment beats `/etc/default/t3-autoupdate`, which beats the default. The user map, the store
and the folder of the metrics are those of the backup.
"""


def default_file(about: str, known: Known) -> str:
    """Write a file for /etc/default: each setting commented out, below what it means."""
    parts = [_comment(about)]
    for one in known.values():
        unit = f" Unit: {one.unit}." if one.unit else ""
        parts.append(_comment(one.meaning.replace("`", "") + unit) + f"#{one.name}={one.default}\n")
    return "\n".join(parts)


def _comment(text: str) -> str:
    lines = textwrap.wrap(text, _WIDTH - 2, break_on_hyphens=False, break_long_words=False)
    return "".join(f"# {line}\n" for line in lines)


def document() -> str:
    """Write docs/interface/settings.md."""
    flags = _flags(parser_module.build_parser())
    rows: list[tuple[str, ...]] = [("name", "flag", "default", "unit", "meaning"), ("---",) * 5]
    for field, one in backup_settings.KNOWN.items():
        flag = f"`--{field}`" if field in flags else ""
        rows.append((f"`{one.name}`", flag, f"`{one.default}`", one.unit, _meaning(one)))
    bump_rows: list[tuple[str, ...]] = [("name", "default", "unit", "meaning"), ("---",) * 4]
    bump_rows += [
        (f"`{one.name}`", f"`{one.default}`", one.unit, _meaning(one))
        for one in bump_settings.KNOWN.values()
    ]
    return "\n".join([_INTRO, *_table(rows), _BUMP, *_table(bump_rows), ""])


def _meaning(one: Setting) -> str:
    return re.sub(r"(?<!`)\bT3_[A-Z_]+\b(?!`)", r"`\g<0>`", one.meaning).replace("|", "\\|")


def _table(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    for row in rows:
        if row[0] == "---":
            yield f"|{'|'.join(row)}|"
        else:
            yield re.sub(r"  +", " ", f"| {' | '.join(row)} |")


def _flags(parser: argparse.ArgumentParser) -> set[str]:
    """List the long options of all commands, as the names of fields."""
    actions = [
        action
        for group in parser._actions
        if isinstance(group, argparse._SubParsersAction)
        for command in group.choices.values()
        for action in command._actions
    ]
    options = {option for action in actions for option in action.option_strings}
    return {option.removeprefix("--") for option in options if option.startswith("--")}


def files() -> dict[Path, str]:
    """List every file that is made from the tables, with what must be in it."""
    return {
        ROOT / "debian" / "t3-backup.default": default_file(
            "Settings of t3-backup-state, for the timer and by hand. The environment beats them. "
            "See t3-backup-state(8).",
            backup_settings.KNOWN,
        ),
        ROOT / "debian" / "t3-autoupdate.default": default_file(
            "Settings of t3-autoupdate. The environment beats them. "
            "The user map, the store and the folder of the metrics are those of "
            "/etc/default/t3-backup. See t3-autoupdate(8).",
            bump_settings.KNOWN,
        ),
        ROOT / "docs" / "interface" / "settings.md": document(),
    }


def main() -> int:
    """Write the files, or check them, and return the exit code."""
    given = argparse.ArgumentParser(description="Make the files that document the settings.")
    about = "write nothing; say which files are not up to date"
    given.add_argument("--check", action="store_true", help=about)
    check, stale = given.parse_args().check, False
    for path, text in files().items():
        name = path.relative_to(ROOT)
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale = True
        if check:
            print(f"{name} is not up to date; run tools/settings_files.py", file=sys.stderr)
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(f"wrote {name}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
