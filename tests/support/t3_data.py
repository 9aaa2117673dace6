"""Real databases of T3 at each level that there is a file of, unpacked from `tests/data/t3`."""

from __future__ import annotations

from pathlib import Path

import zstandard

from support import programs

T3 = Path(__file__).resolve().parent.parent / "data" / "t3"

_LEVELS = {
    "state-0.0.24": 30,
    "state-0.0.25": 31,
    "v1-from26-34": 34,
    "v1-real-0.0.42-from26-52": 52,
    "v1-from26-54": 54,
    "v2-from26-55": 55,
    "v2-from-real-0.0.42-61": 61,
    "v2-grown-61": 61,
}

REAL: tuple[str, ...] = tuple(_LEVELS)


def real_database(name: str, target: Path) -> Path:
    """Unpack one of `REAL` to `target`, and return that."""
    with (T3 / f"{name}.sqlite.zst").open("rb") as packed, target.open("wb") as file:
        zstandard.ZstdDecompressor().copy_stream(packed, file)
    return target


def is_v2(name: str) -> bool:
    """Tell whether a server has it as `statev2.sqlite`."""
    return name.startswith("v2-")


def level_of(name: str) -> int:
    """The greatest id of its ledger."""
    return _LEVELS[name]


def import_line(userdata: Path, *flags: str) -> list[str]:
    """The command line of what a V2 program does there when it first starts."""
    schema, ledger = (T3 / "schema-61.sql").read_text(), (T3 / "ledger-61.txt").read_text()
    return programs.line("import_v2.py", schema, ledger, str(userdata), *flags)
