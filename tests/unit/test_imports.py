"""What a command imports: starting Python is most of what a small command costs, so each brings
what it needs and no more."""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

import pytest
from support import programs
from support.paths import ROOT

from t3_backup.cli import main, parser

# What a command may not bring that only others need.
OF_OTHERS = (
    *("apsw", "zstandard", "rich", "jinja2", "prometheus_client"),
    *("subprocess", "tempfile", "concurrent.futures", "secrets", "random", "shutil"),
    "importlib.metadata",
    *("t3_backup.worker", "t3_backup.history", "t3_backup.doctor", "t3_backup.monitor"),
)


def imported_by(*words: str) -> set[str]:
    """The modules that a command has imported when it ends."""
    done = subprocess.run(
        programs.line("print_imports.py", "t3_backup.cli.main", *words, isolated=False),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return set(done.stderr.split())


@pytest.mark.parametrize("words", [("--version",), ("list",)], ids=["version", "list"])
def test_a_small_command_brings_nothing_that_only_others_need(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    if words == ("list",):
        store = tmp_path / "store"
        store.mkdir(mode=0o700)
        words = ("list", "--dest", str(store))
    found = imported_by(*words)
    assert "argparse" in found
    assert [name for name in OF_OTHERS if name in found] == []


def test_a_run_brings_nothing_that_a_plain_one_has_no_use_for(tmp_path: Path) -> None:
    found = imported_by("run", "--dest", str(tmp_path / "store"), "--map", "/nonexistent")
    others = (
        "apsw",
        "rich",
        "jinja2",
        "tempfile",
        "secrets",
        "random",
        "statistics",
        "prometheus_client",
        "t3_backup.doctor.facts",
        "t3_backup.doctor.gather",
    )
    assert "t3_backup.backup.run" in found
    assert [name for name in others if name in found] == []


def test_the_version_is_told_without_the_settings() -> None:
    assert not {"dataclasses", "t3_backup.settings", "t3_backup._copier"} & imported_by("--version")


def test_each_command_has_a_module_and_a_function_of_its_name() -> None:
    for name in parser.COMMANDS:
        assert main.find_command(name).__name__ == f"{name.replace('-', '_')}_command"
    assert {path.stem for path in Path(main.__file__).parent.glob("*.py")} >= {
        main.find_command(name).__module__.rpartition(".")[2] for name in parser.COMMANDS
    }


@pytest.mark.parametrize("name", parser.COMMANDS)
def test_a_parser_of_one_command_is_that_of_the_whole(name: str) -> None:
    whole, one = parser.build_parser(), parser.build_parser(name)

    def helped(top: argparse.ArgumentParser) -> str:
        [group] = [action for action in top._actions if action.dest == "command"]
        assert isinstance(group.choices, dict)
        return str(group.choices[name].format_help())

    assert helped(one) == helped(whole)
