"""A user who moved themselves to another T3 is seen: what their server's process runs is held
against what is linked for them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from t3_backup.accounts import Account
from t3_backup.autoupdate.programs.installations import About, Installations
from t3_backup.autoupdate.programs.own_program import is_own_program, why_left_alone
from t3_backup.system.systemd import Service
from t3_backup.t3.running_program import program_in, read_running_program
from t3_backup.t3.servers import Server

ROOT = Path("/var/lib/t3-autoupdate")


@contextmanager
def running(*line: str | Path) -> Iterator[int]:
    """While such a process runs; its pid, once it has begun."""
    with subprocess.Popen(list(map(str, line)), stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        try:
            yield process.pid
        finally:
            process.kill()


def make_own(home: Path) -> Path:
    """T3's own layout in a home: an executable, and `t3` as a link to it."""
    program = home / ".t3/runtime/versions/0.0.44/t3"
    program.parent.mkdir(parents=True)
    shutil.copy("/usr/bin/cat", program)  # it waits for its input
    (home / ".local/bin").mkdir(parents=True)
    (home / ".local/bin/t3").symlink_to("../../.t3/runtime/versions/0.0.44/t3")
    return program


def test_the_program_of_a_process_is_what_its_links_lead_to(tmp_path: Path) -> None:
    program = make_own(tmp_path)
    with running(tmp_path / ".local/bin/t3") as pid:
        assert read_running_program(pid) == program
        program.unlink()  # an update has removed it
        assert read_running_program(pid) == program
    assert read_running_program(pid) is None


def test_the_program_of_an_interpreter_is_its_script(tmp_path: Path) -> None:
    script = tmp_path / "t3"
    script.write_text("#!/usr/bin/python3\nprint('begun', flush=True)\ninput()\n")
    script.chmod(0o755)
    with subprocess.Popen([script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        assert read_running_program(process.pid) == script
        process.kill()


@pytest.mark.parametrize(
    ("line", "executable", "expected"),
    [
        (("/home/bob/.local/bin/t3", "serve"), "", "/home/bob/.local/bin/t3"),  # not to be read
        (("t3", "serve"), "/home/bob/.t3/runtime/t3", "/home/bob/.t3/runtime/t3"),
        (("node", "/usr/bin/t3", "serve"), "/usr/bin/node", "/usr/bin/t3"),
        (("t3", "serve"), "", None),
        (("sh", "/var/lib/t3-autoupdate/bin/t3"), "/usr/bin/dash", None),
        ((), "", None),
    ],
)
def test_what_is_known_of_a_process_names_its_program(
    line: tuple[str, ...], executable: str, expected: str | None
) -> None:
    assert program_in(1, line, executable) == (None if expected is None else Path(expected))


@pytest.mark.parametrize(
    ("program", "own"),
    [
        ("/home/bob/.t3/runtime/versions/0.0.44/t3", True),
        ("/data/home/bob/.t3/runtime/versions/0.0.44/t3", True),  # the home is a link
        ("/var/lib/t3-autoupdate/bob/current/bin/t3", False),
        ("/var/lib/t3-autoupdate/versions/0.0.42/lib/node_modules/@t3code/x/t3", False),
        ("/usr/local/lib/node_modules/t3/dist/bin.mjs", False),  # has not restarted since
        ("/opt/t3/t3", False),
    ],
)
def test_what_lies_in_a_home_is_a_users_own(program: str, own: bool) -> None:
    assert is_own_program(Path(program), Path("/home/bob"), ROOT) is own


def test_an_account_that_runs_its_own_is_told_with_both_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "bob"
    program = make_own(home)
    installations = Installations(tmp_path / "root")
    folder = installations.begin_version()
    (folder / "bin").mkdir()
    shutil.copy("/usr/bin/cat", folder / "bin/t3")
    installations.finish_version(folder, About("0.0.42", "a test"))
    server = Server(
        Account("bob", os.getuid(), os.getgid(), (), home),
        Service("t3-serve@bob.service"),
        None,
        home,
        lambda _: None,
    )
    shown = {"MainPID": "0", "ExecStart": f"{{ path={installations.launcher} ; argv[]=x }}"}
    monkeypatch.setattr(Service, "show", lambda _, name: shown[name])
    assert why_left_alone(server, installations) == "", "T3 is not taken over"
    installations.link_version("bob", "0.0.42")
    assert why_left_alone(server, installations) == ""
    with running(installations.root / "bob/current/bin/t3") as pid:
        shown["MainPID"] = str(pid)
        assert why_left_alone(server, installations) == ""
    with running(home / ".local/bin/t3") as pid:
        shown["MainPID"] = str(pid)
        why = why_left_alone(server, installations)
        both = f"({program}), and not the program that is linked for them (0.0.42): left alone"
        assert why.startswith(f"bob: runs T3 of their own {both}; next: "), why
    # it does not run now, and its unit would start that
    shown |= {"MainPID": "0", "ExecStart": f"{{ path={home}/.local/bin/t3 ; argv[]=x }}"}
    assert f"({home}/.local/bin/t3)" in why_left_alone(server, installations)
