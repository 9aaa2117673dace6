"""How systemctl is called: by one set of rules, whatever it does."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from t3_backup.errors import Failure
from t3_backup.system import systemd
from t3_backup.system.systemd import Service, call_systemctl


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in the place of systemctl."""
    path = tmp_path / "systemctl"
    monkeypatch.setattr(systemd, "_SYSTEMCTL", str(path))
    return path


def make(program: Path, text: str) -> None:
    program.write_text(text)
    program.chmod(0o755)


def test_it_gets_words_and_nothing_of_this_process_s_environment(
    program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(
        program,
        "#!/usr/bin/python3 -I\nimport json, os, sys\n"
        "print(json.dumps([sys.argv[1:], dict(os.environ), sys.stdin.read(), os.getpgid(0) == "
        "os.getpid()]))\n",
    )
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("SYSTEMD_PAGER", "less")
    words, environment, typed, own_group = json.loads(
        call_systemctl("show", "--property=Id", "a b; $x.service")
    )
    assert words == ["--no-ask-password", "--no-pager", "show", "--property=Id", "a b; $x.service"]
    # which Python adds
    kept = {name: value for name, value in environment.items() if name != "LC_CTYPE"}
    assert kept == {"PATH": systemd.PATH, "LC_ALL": "C.UTF-8", "TZ": "UTC", "SYSTEMD_COLORS": "0"}
    assert (typed, own_group) == ("", True)


def test_what_it_says_of_a_failure_is_told_with_its_words(program: Path) -> None:
    make(program, "#!/bin/sh\necho out; echo 'Unit x is masked.' >&2; echo more >&2; exit 5\n")
    with pytest.raises(Failure, match=r"^systemctl start x failed: Unit x is masked\.$"):
        call_systemctl("start", "--now", "x")
    assert call_systemctl("start", "x", check=False) == "out\n"
    with pytest.raises(Failure, match="Unit x is masked"):
        Service("x").stop(mask=False)
    make(program, "#!/bin/sh\nexit 5\n")
    with pytest.raises(Failure, match=r"^systemctl start x failed: exit status 5$"):
        call_systemctl("start", "x")


def test_one_that_does_not_end_is_ended_and_one_that_is_not_there_is_named(
    program: Path, tmp_path: Path
) -> None:
    with pytest.raises(Failure, match=r"^systemctl start x: No such file or directory$"):
        call_systemctl("start", "x")
    make(program, f"#!/bin/sh\necho $$ >{tmp_path}/pid\nexec sleep 600\n")
    with pytest.raises(Failure, match=r"^systemctl start x does not end within 2 s$"):
        call_systemctl("start", "x", seconds=2)
    pid = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_bytes_that_are_no_text_end_nothing(program: Path) -> None:
    make(program, "#!/bin/sh\nprintf 'Id=\\377\\n'\n")
    assert call_systemctl("show", "x") == "Id=\ufffd\n"
