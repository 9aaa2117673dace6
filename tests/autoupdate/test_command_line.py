"""What a person types at night: what makes no sense is refused before anything is begun, and no
word of it is passed over."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.paths import ROOT
from support.users import needs_root

from demo.users import User
from t3_backup import accounts
from t3_backup.autoupdate.commands import COMMANDS
from t3_backup.autoupdate.context import Context
from t3_backup.autoupdate.main import main
from t3_backup.autoupdate.parser import parse_arguments
from t3_backup.errors import UsageError

pytestmark = needs_root

NONE = Path("/nonexistent")


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Where nothing of T3 is yet."""
    (tmp_path / "map").write_text("a@example=nobody-of-that-name\n")
    return {
        "T3_AUTOUPDATE_ROOT": str(tmp_path / "root"),
        "T3_AUTOUPDATE_FREEZE": str(tmp_path / "freeze"),
        "T3_BACKUP_MAP": str(tmp_path / "map"),
        "T3_BACKUP_DEST": str(tmp_path / "store"),
        "T3_BIN": str(tmp_path / "t3"),
    }


@pytest.mark.parametrize(
    "words", [["--to", "25"], ["--to", "v0.0.25"], ["--to", ""], ["rollback", "--to", "latest"]]
)
def test_a_version_that_is_none_is_refused_before_anything_is_begun(
    environ: dict[str, str], tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """An empty one, of an unset variable, must not stand for the pin."""
    assert main(words, environ, NONE) == 2
    assert f"{words[-1]!r} is no version of T3, such as 0.0.25" in capsys.readouterr().err
    assert not (tmp_path / "root").exists()


def test_what_stands_before_a_command_is_meant_for_it() -> None:
    assert parse_arguments(["--dry-run", "rollback", "--yes"]).dry_run, "else it would be done"
    assert parse_arguments(["--to", "0.0.24", "rollback"]).to == "0.0.24"
    assert not parse_arguments(["rollback"]).dry_run
    with pytest.raises(UsageError, match="not both"):
        parse_arguments(["--to", "0.0.24", "rollback", "--undo"])


def test_accounts_that_are_named_are_a_canary_of_a_version_that_is_named() -> None:
    words = ["--to", "0.0.25", "--user", "alice", "--user", "bob"]
    assert parse_arguments(words).users == ["alice", "bob"]
    with pytest.raises(UsageError, match="--user needs --to VERSION"):
        parse_arguments(["--user", "alice"])
    with pytest.raises(UsageError, match="--user belongs behind rollback"):
        parse_arguments(["--user", "alice", "rollback"])
    assert parse_arguments(["rollback", "--user", "alice"]).user == "alice"


@pytest.mark.parametrize(
    "command", ["drain", "resume", "check", "status", "adopt", "freeze", "thaw"]
)
@pytest.mark.parametrize("flag", ["--dry-run", "--to=0.0.25"])
def test_a_flag_that_a_command_does_not_have_is_not_passed_over(command: str, flag: str) -> None:
    with pytest.raises(UsageError, match=f"{command} has no {flag.partition('=')[0]}"):
        parse_arguments([flag, command])


@pytest.mark.parametrize("command", ["status", "check", "freeze", "thaw", "drain"])
def test_without_root_each_command_says_so(command: str, make_user: Callable[..., User]) -> None:
    script = "import os, sys; from t3_backup.autoupdate import main as cli; os.setuid(int(sys.argv[1])); sys.exit(cli.main(sys.argv[2:]))"
    line = [sys.executable, "-c", script, str(make_user("wrd-ann").uid), command]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (
        2,
        "",
        "t3-autoupdate: this needs root\n",
    )


def test_a_freeze_without_a_reason_keeps_that_which_is_there(
    environ: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Why an account went back stands there alone."""
    freeze = Path(environ["T3_AUTOUPDATE_FREEZE"])
    freeze.write_text("alice: bump failed\n")
    assert main(["freeze"], environ, NONE) == 0
    assert capsys.readouterr().out == "t3-autoupdate: it is frozen already: alice: bump failed\n"
    assert main(["freeze"], environ, NONE) == 0
    kept = "alice: bump failed; kept so by hand"
    assert freeze.read_text() == f"{kept}\n", "no later success ends it"
    capsys.readouterr()
    assert main(["freeze", "on", "holiday"], environ, NONE) == 0
    assert capsys.readouterr().out == f"t3-autoupdate: frozen: {freeze}; until now: {kept}\n"
    assert freeze.read_text().endswith("Z on holiday\n")


def test_that_nothing_was_to_be_done_is_said(
    environ: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    for command, said in (
        ("resume", "nothing was interrupted"),
        ("drain", "no account was deferred"),
    ):
        assert main([command], environ, NONE) == 0
        assert capsys.readouterr().out == f"t3-autoupdate: {said}\n"


def test_a_night_on_which_it_is_frozen_has_its_document(
    environ: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path(environ["T3_AUTOUPDATE_FREEZE"]).write_text("on holiday\n")
    assert main(["--json"], environ, NONE) == 0
    assert '"frozen": "on holiday"' in capsys.readouterr().out


def test_a_map_that_names_somebody_who_is_not_looked_after_is_not_well(
    machine: Context, capsys: pytest.CaptureFixture[str]
) -> None:
    """Row 54."""
    assert COMMANDS["check"](machine, parse_arguments(["check"])) == 0
    machine.user_map.write_text("x=no body\n")
    for command in ("check", "status"):
        assert COMMANDS[command](machine, parse_arguments([command])) == 1
    told = COMMANDS["status"](machine, parse_arguments(["status", "--json"]))
    [warning] = [one for one in json.loads(capsys.readouterr().out)["warnings"] if ":1: " in one]
    assert "no such user on this system: 'x=no body'" in warning
    assert told == 1


def test_a_user_is_named_as_the_system_spells_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 54."""
    monkeypatch.setattr(accounts, "find_name", {"ALICE": "alice"}.get)
    assert parse_arguments(["--to", "0.0.25", "--user", "ALICE"]).users == ["alice"]
    for command in ("rollback", "check", "put-aside", "freeze", "thaw"):
        assert parse_arguments([command, "--user", "ALICE"]).user == "alice"
        assert parse_arguments([command, "--user", "zoe"]).user == "zoe"
