"""What a command loads before it does anything: a start that costs little, since timers and
dispatchers call it all day."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from support import programs
from support.paths import ROOT

import t3_backup

SLOW = ("aiohttp", "asyncio", "apsw", "zstandard")


def loaded(module: str, words: list[str], environ: dict[str, str]) -> tuple[str, set[str]]:
    """What it printed, and all that was imported by then."""
    line = programs.line("print_imports.py", module, *words, isolated=False)
    done = subprocess.run(
        line, cwd=ROOT, env=os.environ | environ, capture_output=True, text=True, check=True
    )
    return done.stdout, set(done.stderr.split())


@pytest.mark.parametrize(
    ("module", "command"),
    [("t3_backup.autoupdate.main", "t3-autoupdate"), ("t3_backup.t3.pair_command", "t3-pair")],
)
def test_a_version_is_told_without_all_that_takes_long_to_load(module: str, command: str) -> None:
    said, modules = loaded(module, ["--version"], {})
    assert said == f"{command} {t3_backup.__version__}\n"
    assert not modules.intersection(SLOW)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_status_is_told_without_it_too(tmp_path: Path) -> None:
    (tmp_path / "map").write_text("")
    environ = {
        name: str(tmp_path / name)
        for name in ("T3_AUTOUPDATE_ROOT", "T3_AUTOUPDATE_FREEZE", "T3_BIN", "T3_BACKUP_DEST")
    }
    said, modules = loaded(
        "t3_backup.autoupdate.main", ["status"], environ | {"T3_BACKUP_MAP": str(tmp_path / "map")}
    )
    assert "T3 is not taken over yet" in said
    assert not modules.intersection(SLOW)


def test_the_list_of_what_takes_long_is_of_what_a_trial_loads() -> None:
    """Else the tests above would look for names that nothing has."""
    _, modules = loaded("t3_backup.autoupdate.gate.trial", ["--help"], {})
    assert modules.issuperset({"aiohttp", "asyncio", "apsw"})
