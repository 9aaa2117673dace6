"""What T3's servers hold open is seen by their own user, and by name: real processes of real users,
with real databases. Nothing beneath a home is opened or asked for. Row 39, row 43."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from support import programs
from support.fault_injection import needs_strace
from support.host import Host
from support.paths import ROOT
from support.processes import child_pids, until, user_process
from support.t3_server import serving, t3_program
from support.users import needs_root

from demo.users import User
from t3_backup.records import decode_record
from t3_backup.t3.open_databases import OpenDatabases
from t3_backup.t3.open_findings import DoubleServers, double_servers, uncovered_open

pytestmark = needs_root


@pytest.fixture
def ann(make_user: Callable[..., User]) -> User:
    return make_user("od-ann")


@pytest.fixture
def program(host: Host) -> Path:
    return t3_program(host.folder)


Serve = Callable[..., contextlib.AbstractContextManager["subprocess.Popen[str]"]]


@pytest.fixture
def serve(ann: User, program: Path) -> Serve:
    """Starts a server that holds databases, with the `words` of its command line."""

    return partial(serving, ann, program)


def line_of(user: User, *expected: int, seconds: str = "20") -> list[str]:
    words = [user.uid, user.gid, user.home, user.home / ".t3", seconds, *expected]
    return programs.line("look_at_databases.py", *map(str, words), isolated=False)


def look(
    user: User, *expected: int, seconds: str = "20", under: tuple[str, ...] = ()
) -> OpenDatabases:
    """What a worker would report: encoded and decoded as an event is."""
    done = subprocess.run(
        [*under, *line_of(user, *expected, seconds=seconds)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    found, identity = map(json.loads, done.stdout.splitlines())
    status = (user.home / ".t3").stat()
    assert identity == [status.st_ino, f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"]
    return decode_record(OpenDatabases, found)


def uncovered(user: User, found: OpenDatabases, **more: tuple[str, ...]) -> list[str]:
    """Paths of what no snapshot has, where one has what userdata now holds."""
    folder = user.database.parent
    covered = {path.name: path.stat().st_ino for path in folder.glob("state*.sqlite")}
    base = str(user.home / ".t3")
    device = user.database.parent.stat().st_dev
    known = f"{os.major(device)}:{os.minor(device)}"
    return [one.path for one in uncovered_open(found.held, base, covered, device=known, **more)]


def test_what_is_in_the_state_folder_is_held_and_covered(ann: User, serve: Serve) -> None:
    names = ("state.sqlite", "statev2.sqlite", "statev9.sqlite")
    paths = [ann.database.parent / name for name in names]
    with serve(*paths) as process:
        found = look(ann)
    assert [one.pid for one in found.servers] == [process.pid]
    assert found.servers[0].base_dir == str(ann.home / ".t3")
    assert [one.path for one in found.held] == list(map(str, paths))
    assert [one.inode for one in found.held] == [path.stat().st_ino for path in paths]
    assert {one.deleted for one in found.held} == {False}
    assert (found.problems, found.strangers) == ((), ())
    assert uncovered(ann, found) == []
    assert [one.path for one in uncovered_open(found.held, str(ann.home / ".t3"), {})] == list(
        map(str, paths)
    )


@pytest.mark.parametrize("how", ["option", "equals", "variable"])
def test_another_base_directory_is_uncovered_by_its_path(ann: User, serve: Serve, how: str) -> None:
    other = ann.home / "other"
    words: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
        "option": (("serve", "--base-dir", str(other)), ()),
        "equals": (("serve", f"--base-dir={other}"), ()),
        "variable": (("serve",), (f"T3CODE_HOME={other}",)),
    }
    path = other / "userdata" / "state.sqlite"
    with serve(path, words=words[how][0], variables=words[how][1]):
        found = look(ann)
    assert [one.base_dir for one in found.servers] == [str(other)]
    assert uncovered(ann, found) == [str(path)]
    assert uncovered(ann, found, ignored=(str(path),)) == []
    assert uncovered(ann, found, ignored=(f"{ann.home}/*/userdata/*.sqlite",)) == []
    assert uncovered(ann, found, ignored=(f"{ann.home}/*",)) == [str(path)]


def test_a_new_name_is_uncovered_whatever_it_is_called(ann: User, serve: Serve) -> None:
    """One is known by its ending, and one by its -wal."""
    paths = [ann.home / ".t3" / name for name in ("next/data.db", "store/threads")]
    with serve(*paths):
        found = look(ann)
    assert uncovered(ann, found) == list(map(str, paths))


def test_what_an_agent_beneath_it_holds_is_nobodys_alarm(ann: User, serve: Serve) -> None:
    own = ann.home / ".codex" / "state_5.sqlite"
    with serve(ann.database, "--agent", own) as process:
        [agent] = child_pids(process.pid)
        links = {os.path.realpath(link) for link in Path(f"/proc/{agent}/fd").iterdir()}
        assert str(own) in links
        found = look(ann)
    assert [one.path for one in found.held] == [str(ann.database)]
    assert (found.strangers, found.problems) == ((), ())


def test_locks_leftovers_and_caches_are_no_data(ann: User, serve: Serve) -> None:
    base = ann.home / ".t3"
    lock = base / "userdata" / "server-lock.sqlite"
    others = (
        base / "userdata" / ".v2-import-aB3xYz" / "snapshot.sqlite",
        base / "caches" / "models.sqlite",
        base / "runtime" / "db-backup" / "1" / "statev2.sqlite",
    )
    with serve("--lock", lock, ann.database, *others):
        assert [one.path for one in look(ann).held] == [str(ann.database)]


def test_two_servers_on_one_base_directory_are_told_with_both_pids(ann: User, serve: Serve) -> None:
    """Row 43. The one is there by its own choice, the other by its option."""
    base = ann.home / ".t3"
    with serve(ann.database) as one:
        assert double_servers(look(ann).servers) == []
        words = ("start", "--base-dir", str(base))
        with serve(ann.database, words=words) as other:
            found = look(ann)
    pids = tuple(sorted((one.pid, other.pid)))
    assert double_servers(found.servers, found.held) == [DoubleServers(str(base), pids)]


def test_two_servers_that_call_it_by_two_names_are_told_too(ann: User, serve: Serve) -> None:
    """Row 43."""
    (ann.home / "link").symlink_to(ann.home / ".t3")
    words = ("serve", "--base-dir", str(ann.home / "link"))
    with serve(ann.database) as one, serve(ann.database, words=words) as other:
        found = look(ann)
    assert double_servers(found.servers) == []
    [double] = double_servers(found.servers, found.held)
    assert double.pids == tuple(sorted((one.pid, other.pid)))


@pytest.mark.parametrize("end", ["", "-wal"])
def test_a_file_that_was_deleted_under_the_server_is_uncovered(
    ann: User, serve: Serve, end: str
) -> None:
    """What has its name now is another file."""
    with serve(ann.database):
        path = Path(f"{ann.database}{end}")
        path.unlink()
        ann.database.touch()
        found = look(ann)
        assert [one.deleted for one in found.held] == [True]
        assert uncovered(ann, found) == [str(ann.database)]


def test_a_file_that_was_put_aside_under_the_server_is_uncovered(ann: User, serve: Serve) -> None:
    with serve(ann.database):
        ann.database.rename(f"{ann.database}.aside")
        ann.database.touch()
        found = look(ann)
    # by its new name it is no database, and by its -wal it is
    assert [(one.path, one.inode) for one in found.held] == [(str(ann.database), 0)]


def test_another_path_to_the_same_file_is_covered(ann: User, serve: Serve, host: Host) -> None:
    """As with a /home that is a symlink: the kernel tells the path that leads there without it."""
    (host.folder / "way").symlink_to(ann.home)
    with serve(host.folder / "way" / ".t3" / "userdata" / "state.sqlite"):
        [one] = look(ann).held
    covered = {"state.sqlite": ann.database.stat().st_ino}
    way = str(host.folder / "way" / ".t3")
    assert uncovered_open([one], way, covered) == []
    assert uncovered_open([one], way, {"state.sqlite": one.inode + 1}) == [one]
    assert uncovered_open([one], way, covered, device="0:0") == [one]


def test_a_stranger_with_a_database_of_t3s_is_named(ann: User, serve: Serve) -> None:
    other = ann.home / "mine.sqlite"
    with serve(
        ann.database, other, words=(), executable=(os.path.realpath(sys.executable),)
    ) as process:
        found = look(ann)
    assert (found.servers, found.held) == ((), ())
    [one] = found.strangers
    assert (one.pid, one.path) == (process.pid, str(ann.database))
    assert "python" in one.command


def test_the_server_is_known_by_its_script_where_an_interpreter_runs_it(
    ann: User, host: Host
) -> None:
    script = host.folder / "bin" / "t3"
    script.parent.mkdir()
    script.write_text(f"#!{sys.executable} -I\n{programs.text('hold_databases.py')}")
    script.chmod(0o755)
    line = ["/usr/bin/env", f"HOME={ann.home}", str(script), "serve", "--", str(ann.database)]
    with user_process(ann, line) as process:
        found = look(ann)
    assert [(one.pid, one.program) for one in found.servers] == [(process.pid, str(script))]
    assert [one.path for one in found.held] == [str(ann.database)]


def test_a_server_that_hides_from_its_user_is_told(ann: User, serve: Serve, program: Path) -> None:
    """One whose program can't be read is none of theirs to look into (proc(5))."""
    program.chmod(0o711)
    with serve(ann.database) as process:
        found = look(ann)
    assert found.held == ()
    assert found.problems == (f"pid {process.pid} (t3) can't be looked at: Permission denied",)


def with_proc(options: str) -> tuple[str, ...]:
    """A line that runs another with /proc mounted so."""
    script = f'mount -t proc -o {options} proc /proc && exec "$@"'
    return ("unshare", "--mount", "sh", "-c", script, "sh")


# as ProtectProc=ptraceable and ProcSubset=pid of the shipped unit have it
UNDER_THE_UNIT = with_proc("hidepid=ptraceable,subset=pid")


@pytest.mark.parametrize("hides", ["ptraceable", "invisible", "noaccess"])
def test_the_same_is_seen_where_the_processes_of_others_are_hidden(
    ann: User, serve: Serve, hides: str
) -> None:
    other = ann.home / "other" / "userdata" / "state.sqlite"
    with serve(ann.database, other, "--agent", ann.home / ".codex" / "a.sqlite") as process:
        found = look(ann, process.pid, under=with_proc(f"hidepid={hides},subset=pid"))
        assert found == look(ann)
    assert ([one.pid for one in found.servers], found.problems) == ([process.pid], ())
    assert uncovered(ann, found) == [str(other)]


def test_a_server_that_hides_wholly_there_is_told_where_systemd_knows_it(
    ann: User, serve: Serve, program: Path
) -> None:
    program.chmod(0o711)
    with serve(ann.database) as process:
        found = look(ann, process.pid, under=UNDER_THE_UNIT)
    assert (found.servers, found.held) == ((), ())
    [problem] = found.problems
    assert f"(pid {process.pid}) can't be seen" in problem


def test_one_that_systemd_knows_and_nobody_sees_is_told(ann: User, serve: Serve) -> None:
    with serve(ann.database) as process:
        assert look(ann, process.pid, 0).problems == ()
        [problem] = look(ann, 1).problems
        ended = process.pid
    assert "(pid 1) can't be seen" in problem
    until(lambda: not Path(f"/proc/{ended}").exists(), "end of the server")
    assert look(ann, ended).problems == ()


def test_where_no_time_is_left_that_is_told(ann: User, serve: Serve) -> None:
    with serve(ann.database):
        found = look(ann, seconds="0")
    assert (found.servers, found.held) == ((), ())
    assert found.problems == ("not every process was looked at: no time was left",)


def test_other_users_are_not_looked_at(
    ann: User, make_user: Callable[..., User], serve: Serve
) -> None:
    with serve(ann.database):
        assert look(make_user("od-bea")) == OpenDatabases()


@needs_strace
def test_nothing_of_the_users_is_opened_or_asked_for(
    ann: User, serve: Serve, tmp_path: Path
) -> None:
    """Row 4. After the change of user, /proc is all that is named in any call about a file."""
    log = tmp_path / "strace"
    with serve(ann.database, ann.home / "other.sqlite", "--agent", ann.home / ".codex/a.sqlite"):
        line = ["strace", "-f", "-qq", "-s", "4096", "-o", str(log), "-e", "trace=%file,setresuid"]
        done = subprocess.run(
            [*line, *line_of(ann)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
    found = decode_record(OpenDatabases, json.loads(done.stdout.splitlines()[0]))
    assert len(found.held) == 2
    _, _, looked = log.read_text().partition("setresuid(")
    named = re.findall(r'^\d+ +\w+\((?:AT_FDCWD, )?"([^"]*)"', looked, re.MULTILINE)
    assert len(named) > 20
    assert {path.split("/")[1] for path in named} == {"proc"}


def test_of_more_than_an_event_carries_it_is_told_how_many(ann: User, serve: Serve) -> None:
    paths = [ann.home / "many" / f"{number}.sqlite" for number in range(300)]
    with serve(*paths):
        found = look(ann)
    assert len(found.held) == 256
    assert found.problems == ("there are 300 open databases, and 256 are told of",)
