"""Declare settings in a table, and resolve their values.

A flag beats the environment, which beats a file of /etc/default, which beats the default. A value
that makes no sense is refused by its name, with the value and its origin (flag, environment, or
file and line).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from t3_backup.errors import UsageError

SECONDS = "seconds"
BYTES = "bytes; K, M, G or T"
_T = TypeVar("_T")


@dataclass(frozen=True)
class Setting:
    """Everything that is known of one setting.

    The shipped file of /etc/default, the manual page, the help and docs/interface/settings.md are
    made from it.
    """

    name: str  # in the file and the environment
    default: str  # as it would be written there
    parse: Callable[[str], Any]  # raises ValueError, saying what is wanted
    meaning: str  # whole sentences; what is typed as it is stands in backticks
    unit: str = ""  # of a number


Known = Mapping[str, Setting]  # by the name of the field that has the value


def setting(
    name: str, default: str, parse: Callable[[str], _T], meaning: str, unit: str = ""
) -> _T:
    """Declare a field of a dataclass of settings."""
    return field(
        default=parse(default), metadata={"setting": Setting(name, default, parse, meaning, unit)}
    )


def table(settings: type) -> Known:
    """List the settings that a dataclass declares, by field."""
    return {one.name: one.metadata["setting"] for one in fields(settings)}


def absolute(text: str) -> Path:
    """Convert an absolute path; ValueError, saying what is wanted, where it is none."""
    path = Path(text)
    if not path.is_absolute() or "\0" in text:
        raise ValueError("an absolute path")
    return path


def whole(least: int, most: int) -> Callable[[str], int]:
    """Make the conversion of a whole number within limits, raising as `absolute`."""

    def convert(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text) or not least <= int(text) <= most:
            raise ValueError(f"a whole number from {least} to {most}")
        return int(text)

    return convert


def resolve(
    known: Known,
    prefix: str,
    flags: Mapping[str, str | None],
    environ: Mapping[str, str],
    defaults_file: Path,
    *,
    forgiving: bool = False,
) -> dict[str, Any]:
    """Resolve the values of a command, each converted, by field.

    In the file a name with `prefix` that is none of `known` is an error. As to `flags`, `forgiving`
    and what is raised, see `settings.load`.
    """
    names = {one.name for one in known.values()}
    from_file: dict[str, tuple[str, str]] = {}
    try:
        from_file.update(_read_defaults(defaults_file, names, prefix))
    except UsageError:
        if not forgiving:
            raise
    values = {}
    for attribute, one in known.items():
        name = one.name
        value, origin = from_file.get(name, (one.default, "default"))
        if environ.get(name, "") != "":  # empty means unset, as ${NAME:-default} has it
            value, origin = environ[name], "environment"
        if (flag := flags.get(attribute)) is not None:
            value, origin = flag, f"flag --{attribute}"
        try:
            values[attribute] = one.parse(value)
        except ValueError as error:
            if not forgiving:
                raise UsageError(f"{name}: {value!r} ({origin}) is not {error}") from None
            values[attribute] = one.parse(one.default)
    return values


def _read_defaults(
    path: Path, names: Collection[str], prefix: str
) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield name, value and origin of each setting in a file of /etc/default.

    Raises UsageError with the line, for a name with `prefix` that is none of `names` as well.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from None
    for number, line in enumerate(text.splitlines(), 1):
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            raise UsageError(f"{path}:{number}: {error}") from None
        if words[:1] == ["export"]:
            words = words[1:]
        for word in words:
            name, equals, value = word.partition("=")
            if not equals or (name.startswith(prefix) and name not in names):
                choices = ", ".join(sorted(names))
                raise UsageError(f"{path}:{number}: {word!r} is not a setting; known: {choices}")
            if name in names and value != "":
                yield name, (value, f"{path}:{number}")
