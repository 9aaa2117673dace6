"""Find the base directory of accounts whose server may not run: what their units say.

It is root's part, and reads what systemd and an administrator wrote, nothing of a user's.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from t3_backup.accounts import Account
from t3_backup.errors import Failure
from t3_backup.system import systemd
from t3_backup.t3.files import base_dir
from t3_backup.t3.server_processes import BASE_DIR_VARIABLE, base_dir_in, resolve_base_dir
from t3_backup.t3.unit import SETTINGS_DIR, unit_name

_PROPERTIES = "Id,LoadState,ExecStart,Environment,EnvironmentFiles,WorkingDirectory,MainPID"
_ARGUMENTS = re.compile(r"argv\[\]=(.*?) ; ignore_errors=")
_FILE = re.compile(r"(.*) \(ignore_errors=(?:yes|no)\)")
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


@dataclass(frozen=True)
class ServerUnit:
    """What systemd says of the unit of one account's server."""

    base_dir: Path
    main_pid: int = 0  # 0: it does not run


def find_units(accounts: Sequence[Account]) -> dict[str, ServerUnit]:
    """Find base directory and main process of each account's unit, by user.

    One call of systemctl for all of them, and none where systemd has not booted the machine. The
    base directory is the usual one where there is no unit, or it names none. Raises Failure.
    """
    said: dict[str, str] = {}
    if accounts and systemd.BOOTED.is_dir():
        units = [f"{unit_name(one.user)}.service" for one in accounts]
        out = systemd.call_systemctl("show", f"--property={_PROPERTIES}", *units)
        said = split_units(out)
    return {
        one.user: parse_unit(
            said.get(f"{unit_name(one.user)}.service", ""), str(one.home), _read_settings
        )
        for one in accounts
    }


def base_dirs(
    accounts: Sequence[Account], named: Mapping[str, Path] | None = None
) -> dict[str, Path]:
    """Say where the T3 of each account keeps its state, by user: as `named`, else by its unit.

    Raises Failure.
    """
    return {user: unit.base_dir for user, unit in find_units(accounts).items()} | {
        one.user: named[one.user] for one in accounts if named and one.user in named
    }


def place_accounts(
    accounts: Sequence[Account], named: Mapping[str, Path], warn: Callable[[str], None]
) -> list[Account]:
    """Return the accounts with their base directories, and the main processes of their servers.

    Where systemd can't be asked, `warn` hears of it, and each has the usual one, or that `named`.
    """
    try:
        units = find_units(accounts)
    except Failure as failure:
        warn(f"where T3 keeps its state is taken to be the usual place: {failure}")
        units = {}
    placed = []
    for one in accounts:
        unit = units.get(one.user, ServerUnit(base_dir(one.home)))
        place = named.get(one.user, unit.base_dir)
        usual = None if place == base_dir(one.home) else place
        placed.append(replace(one, base_dir=usual, server_pid=unit.main_pid))
    return placed


def split_units(text: str) -> dict[str, str]:
    """Split what `systemctl show` prints of several units: the properties of each, by its name."""
    blocks = re.split(r"\n\n+", text.strip())
    return {_properties(block).get("Id", [""])[0]: block for block in blocks}


def parse_unit(
    text: str, home: str, read_settings: Callable[[Path], str] = lambda _path: ""
) -> ServerUnit:
    """Parse what `systemctl show` prints of the unit of one whose home this is.

    `read_settings` reads a file with variables; empty where it can't.
    """
    said = _properties(text)
    variables = {"HOME": home}
    for value in said.get("Environment", []):
        variables |= _assignments(value)
    for value in said.get("EnvironmentFiles", []):
        if match := _FILE.fullmatch(value):
            for line in read_settings(Path(match[1])).splitlines():
                variables |= _assignments(line)
    commands = [
        match[1] for value in said.get("ExecStart", []) for match in _ARGUMENTS.finditer(value)
    ]
    words = [
        one for command in commands for word in _split(command) for one in _expand(word, variables)
    ]
    given = base_dir_in(words) or variables.get(BASE_DIR_VARIABLE, "")
    [folder] = said.get("WorkingDirectory", [""])[:1]
    cwd = home if folder.lstrip("!-") in ("", "~") else folder.lstrip("!-")
    [main] = said.get("MainPID", ["0"])[:1]
    return ServerUnit(
        Path(resolve_base_dir(given.replace("%h", home), home, cwd)),
        int(main) if main.isdigit() else 0,
    )


def _properties(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals:
            found.setdefault(name, []).append(value)
    return found


def _assignments(line: str) -> dict[str, str]:
    words = [word.partition("=") for word in _split(line, comments=True)]
    return {name: value for name, equals, value in words if equals}


def _split(text: str, *, comments: bool = False) -> list[str]:
    try:
        return shlex.split(text, comments=comments)
    except ValueError:  # systemd prints words as they are, with a quotation mark in one of them
        return text.split()


def _expand(word: str, variables: Mapping[str, str]) -> list[str]:
    """Put variables in, as systemd.service(5) does for a command line.

    One without braces that is a word by itself becomes as many words as it has.
    """
    match = _VARIABLE.fullmatch(word)
    if match is not None and match[2]:
        return variables.get(match[2], "").split()
    return [_VARIABLE.sub(lambda match: variables.get(match[1] or match[2], ""), word)]


def _read_settings(path: Path) -> str:
    """Read a file of variables where they are an administrator's; none of a user's is opened."""
    if path.parent != SETTINGS_DIR:
        return ""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
