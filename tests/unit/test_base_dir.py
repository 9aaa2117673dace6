"""Where the state of an account is whose server does not run: by what systemd says of its unit."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from t3_backup.accounts import Account
from t3_backup.errors import Failure
from t3_backup.system import systemd
from t3_backup.t3.base_dir import ServerUnit, base_dirs, find_units, parse_unit, split_units
from t3_backup.t3.unit import unit_name

ANN = Account("ann", 1001, 1001, (1001,), Path("/home/ann"))
BOB = Account("bob-b", 1002, 1002, (1002,), Path("/data/bob"))
SHOWN = """\
ExecStart={ path=/usr/local/bin/t3 ; argv[]=/usr/local/bin/t3 serve --port ${T3_PORT} --base-dir \
/srv/t3/ann ; ignore_errors=no ; start_time=[n/a] ; stop_time=[n/a] ; pid=0 ; code=(null) ; \
status=0/0 }
Environment=PATH=/usr/bin "NOTE=a b"
EnvironmentFiles=/etc/t3-serve/ann.env (ignore_errors=no)
WorkingDirectory=
MainPID=4711
Id=t3-serve@ann.service
LoadState=loaded

MainPID=0
Id=t3-serve@bob-b.service
LoadState=not-found
"""


def line(words: str) -> str:
    return f"ExecStart={{ path=/bin/t3 ; argv[]=/bin/t3 serve{words} ; ignore_errors=no ; pid=0 }}"


@pytest.mark.parametrize(
    ("text", "base"),
    [
        ("", "/home/ann/.t3"),
        (line(""), "/home/ann/.t3"),
        (line(" --base-dir /a --no-browser"), "/a"),
        (line(" --base-dir=/a"), "/a"),
        (line(" --base-dir ~/x"), "/home/ann/x"),
        (line(" --base-dir %h/x"), "/home/ann/x"),
        (line(" --base-dir ${HOME}/x"), "/home/ann/x"),
        (line(" --base-dir x"), "/home/ann/x"),
        (line(" --base-dir x") + "\nWorkingDirectory=!/w", "/w/x"),
        (line(" --base-dir ${D}/x") + "\nEnvironment=D=/d", "/d/x"),
        (line(" $WORDS") + '\nEnvironment="WORDS=--port 1 --base-dir /w"', "/w"),
        (line(" --base-dir /it's"), "/it's"),
        (line("") + "\nEnvironment=A=1 T3CODE_HOME=/b", "/b"),
        (line("") + '\nEnvironment="T3CODE_HOME=/b c"', "/b c"),
        (line(" --base-dir /a") + "\nEnvironment=T3CODE_HOME=/b", "/a"),
    ],
)
def test_the_command_line_says_it_else_the_environment(text: str, base: str) -> None:
    assert parse_unit(text, "/home/ann") == ServerUnit(Path(base))


def test_the_file_of_variables_beats_the_unit() -> None:
    text = f"{line('')}\nEnvironment=T3CODE_HOME=/b\nEnvironmentFiles=/e/x.env (ignore_errors=yes)"
    read: list[Path] = []

    def settings(path: Path) -> str:
        read.append(path)
        return "# T3CODE_HOME=/no\nT3_PORT=1\nT3CODE_HOME='/c d' # here\n"

    assert parse_unit(text, "/home/ann", settings).base_dir == Path("/c d")
    assert read == [Path("/e/x.env")]


def test_no_file_of_a_users_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, etc = tmp_path / "home", tmp_path / "etc"
    for folder in (home, etc):
        folder.mkdir()
        (folder / "x.env").write_text(f"T3CODE_HOME=/from/{folder.name}\n")
    monkeypatch.setattr("t3_backup.t3.base_dir.SETTINGS_DIR", etc)
    from t3_backup.t3.base_dir import _read_settings

    assert _read_settings(home / "x.env") == ""
    assert _read_settings(etc / "../home/x.env") == ""
    assert _read_settings(etc / "x.env") == "T3CODE_HOME=/from/etc\n"
    assert _read_settings(etc / "none.env") == ""


def test_what_is_shown_of_several_is_told_apart() -> None:
    assert list(split_units(SHOWN)) == ["t3-serve@ann.service", "t3-serve@bob-b.service"]
    assert split_units("") == {"": ""}


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in its place, on a machine that systemd seems to have booted."""
    path = tmp_path / "systemctl"
    monkeypatch.setattr(systemd, "_SYSTEMCTL", str(path))
    monkeypatch.setattr(systemd, "BOOTED", tmp_path)
    return path


def make(program: Path, text: str) -> None:
    program.write_text(text)
    program.chmod(0o755)


def test_one_call_answers_for_all_accounts(systemctl: Path, tmp_path: Path) -> None:
    (tmp_path / "shown").write_text(SHOWN)
    make(systemctl, f'#!/bin/sh\necho "$@" >>{tmp_path}/calls\ncat {tmp_path}/shown\n')
    assert find_units([ANN, BOB]) == {
        "ann": ServerUnit(Path("/srv/t3/ann"), 4711),
        "bob-b": ServerUnit(Path("/data/bob/.t3")),
    }
    [call] = (tmp_path / "calls").read_text().splitlines()
    assert call.endswith(" t3-serve@ann.service t3-serve@bob-b.service")
    named = {"ann": Path("/elsewhere"), "cy": Path("/nobody")}
    assert base_dirs([ANN, BOB], named) == {
        "ann": Path("/elsewhere"),
        "bob-b": Path("/data/bob/.t3"),
    }


def test_that_it_does_not_answer_is_a_failure(systemctl: Path) -> None:
    make(systemctl, "#!/bin/sh\necho no >&2; exit 1\n")
    with pytest.raises(Failure, match=r"systemctl show .* failed: no$"):
        find_units([ANN])


def test_without_systemd_it_is_the_usual_one_and_nothing_is_called(
    systemctl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(systemctl, f"#!/bin/sh\ntouch {tmp_path}/called\n")
    monkeypatch.setattr(systemd, "BOOTED", tmp_path / "none")
    assert find_units([ANN]) == {"ann": ServerUnit(Path("/home/ann/.t3"))}
    monkeypatch.setattr(systemd, "BOOTED", tmp_path)
    assert find_units([]) == {}
    assert not (tmp_path / "called").exists()


@pytest.mark.parametrize("user", ["alice", "first-last", "user@realm", "a.b_c", "0day"])
def test_the_unit_of_a_usual_name_has_it_as_it_is(user: str) -> None:
    assert unit_name(user) == f"t3-serve@{user}"


@pytest.mark.parametrize("user", ["CORP\\bob", "josé", "a b", "it's", "CORP\\first-last", "x+y:z"])
def test_the_unit_of_an_odd_name_is_what_systemd_makes_of_it(user: str) -> None:
    """Row 54."""
    if shutil.which("systemd-escape") is None:
        pytest.skip("needs systemd's own escaping")
    line = ["systemd-escape", "--template=t3-serve@.service", user]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert f"{unit_name(user)}.service" == done.stdout.strip()
