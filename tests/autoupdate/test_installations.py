"""T3's versions on the disk: links that change in one step, what is taken for a program, and what
of a plain installation."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from t3_backup.accounts import Account
from t3_backup.autoupdate import cell
from t3_backup.autoupdate.context import Context
from t3_backup.autoupdate.gate import sandbox
from t3_backup.autoupdate.programs import adopt, npm
from t3_backup.autoupdate.programs.installations import GLOBAL, About, Installations
from t3_backup.autoupdate.programs.package_tree import copy_package
from t3_backup.errors import Failure, UsageError
from t3_backup.system import transient_unit
from t3_backup.system.systemd import Service
from t3_backup.t3 import program, versions
from t3_backup.t3.servers import Server


def installed(programs: Installations, *found: str) -> Installations:
    for version in found:
        folder = programs.begin_version()
        (folder / "bin").mkdir()
        program = folder / "bin" / "t3"
        program.write_text(f"#!/bin/sh\necho t3 v{version} $*\n")
        program.chmod(0o755)
        programs.finish_version(folder, About(version, "a test", 30))
    return programs


@pytest.fixture
def programs(tmp_path: Path) -> Installations:
    return installed(Installations(tmp_path / "root"), "0.0.24", "0.0.25")


def test_versions_are_in_the_order_of_releases() -> None:
    ordered = [
        "0.0.9",
        "0.0.24-nightly.2",
        "0.0.24-nightly.10",
        "0.0.24-rc.1",
        "0.0.24",
        "0.0.25",
        "0.1.0",
        "1.0.0",
    ]
    assert sorted(set(ordered), key=versions.version_key) == ordered
    for text in ("", "0.0", "v0.0.24", "0.0.24/../..", "0.0.24 ", "..", "0.0.24\n", "latest"):
        assert not versions.is_version(text)
        with pytest.raises(UsageError, match="is no version of T3"):
            versions.version_key(text)


def test_a_link_changes_and_says_which_version_it_is(programs: Installations) -> None:
    assert programs.linked_version("alice") is None
    programs.link_version("alice", "0.0.24")
    programs.link_version("alice", "0.0.25")
    assert (programs.linked_version("alice"), programs.linked_users()) == ("0.0.25", ["alice"])
    assert (programs.root / "alice/current/bin/t3").resolve() == programs.prefix(
        "0.0.25"
    ) / "bin/t3"
    with pytest.raises(Failure, match="not installed"):
        programs.link_version("alice", "0.0.26")
    assert programs.linked_version("alice") == "0.0.25"
    assert os.listdir(programs.root / "alice") == ["current"]


@pytest.mark.parametrize(
    "target", ["/usr", "../versions/..", "../versions/0.0.24/bin", "elsewhere"]
)
def test_a_link_that_leads_elsewhere_is_refused(programs: Installations, target: str) -> None:
    programs.link_version("alice", "0.0.24")
    (programs.root / "alice/current").unlink()
    (programs.root / "alice/current").symlink_to(target)
    with pytest.raises(Failure, match="which is no version"):
        programs.linked_version("alice")


@pytest.mark.parametrize("name", ["versions", "bin"])
def test_an_account_with_the_name_of_a_folder_of_ours_is_refused(
    programs: Installations, name: str
) -> None:
    with pytest.raises(Failure, match="is ours"):
        programs.link_version(name, "0.0.24")


def test_a_hold_is_there_until_it_is_released(programs: Installations) -> None:
    programs.link_version("alice", "0.0.24")
    programs.hold("alice")
    programs.hold("alice")
    assert programs.is_held("alice")
    programs.release("alice")
    programs.release("alice")
    assert not programs.is_held("alice")


def test_what_an_installation_that_died_left_goes_with_the_next(programs: Installations) -> None:
    left = programs.begin_version()
    (left / "half").write_text("")
    folder = programs.begin_version()
    assert not left.exists()
    with pytest.raises(Failure, match="no program t3"):
        programs.finish_version(folder, About("0.0.26", "a test"))
    assert programs.installed_versions() == ["0.0.24", "0.0.25"]


def test_the_launcher_runs_the_program_of_its_caller(programs: Installations) -> None:
    programs.write_launcher()
    programs.link_version(GLOBAL, "0.0.24")
    caller = subprocess.run(
        ["id", "-un"], capture_output=True, text=True, check=True
    ).stdout.strip()

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [programs.launcher, *words], capture_output=True, text=True, check=False
        )

    assert call("a b", "c").stdout == "t3 v0.0.24 a b c\n"
    programs.link_version(caller, "0.0.25")
    assert call().stdout == "t3 v0.0.25\n"
    programs.hold(caller)
    held = call()
    assert (held.returncode, held.stdout) == (75, "")
    assert "try again in a minute" in held.stderr


def test_a_package_with_anything_but_files_of_the_owner_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "program").write_text("")
    (source / "link").symlink_to("program")
    copy_package(source, tmp_path / "good", (os.getuid(),))
    assert (tmp_path / "good/link").is_symlink()
    with pytest.raises(Failure, match="belongs to uid"):
        copy_package(source, tmp_path / "other", (os.getuid() + 1,))
    for name, spoil, said in (
        ("out", lambda path: path.symlink_to("/etc/passwd"), "leads out of"),
        ("up", lambda path: path.symlink_to("../out"), "leads out of"),
        # to what goes, and may be another's later
        ("back", lambda path: path.symlink_to(source / "program"), "leads out of"),
        ("great", lambda path: (path.touch(), os.truncate(path, 1 << 40)), "greater than 4 GiB"),
        ("fifo", os.mkfifo, "neither a file nor a folder"),
        ("setuid", lambda path: (path.write_text(""), path.chmod(0o4755)), "set-id"),
        (
            "open",
            lambda path: (path.write_text(""), path.chmod(0o666)),
            "can be written to by others",
        ),
    ):
        spoil(source / name)
        with pytest.raises(Failure, match=said):
            copy_package(source, tmp_path / f"bad-{name}", (os.getuid(),))
        (source / name).unlink()
    source.chmod(0o777)
    with pytest.raises(Failure, match="can be written to by others"):
        copy_package(source, tmp_path / "bad", (os.getuid(),))


def deep(folder: Path, levels: int) -> Path:
    """A folder with so many in each other."""
    folder.mkdir()
    fd = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=fd)
        inner = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)
    return folder


def test_folders_deeper_in_each_other_than_python_goes_are_refused_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package that leaves such would otherwise be the last that was ever fetched or tried."""
    said: list[str] = []
    state = deep(tmp_path / "t3-fetch", 3000)
    monkeypatch.setattr(cell, "PRIVATE", tmp_path)
    monkeypatch.setattr(cell, "_PUBLIC", tmp_path)
    monkeypatch.setattr(transient_unit, "end", lambda pattern: None)
    with pytest.raises(Failure, match="more than 100 deep"):
        copy_package(state, tmp_path / "copy", (os.getuid(),))
    npm.remove_interrupted(said.append)
    assert not state.exists()
    assert said == ["an installation of T3 was interrupted: removed"]
    left = deep(tmp_path / sandbox.unit_name("alice"), 3000)
    sandbox.remove_leftovers()
    assert not left.exists()


UNIT = """\
[Service]
User=%i
EnvironmentFile=/etc/t3-serve/%i.env
ExecStart={line}
Restart=on-failure
"""


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "/usr/local/bin/t3 serve --host 127.0.0.1 --port ${T3_PORT}",
            "/l/t3 serve --host 127.0.0.1 --port ${T3_PORT}",
        ),
        (
            "/usr/bin/t3 serve \\\n    --port ${T3_PORT} \\\n    --base-dir %h/.t3",
            "/l/t3 serve --port ${T3_PORT} --base-dir %h/.t3",
        ),
        ("-/usr/bin/t3 serve 'a  b'", "-/l/t3 serve 'a  b'"),
        ("t3 serve", "/l/t3 serve"),
        ("/usr/bin/node /usr/bin/t3 serve", "/l/t3 serve"),
    ],
)
def test_the_units_command_line_keeps_all_but_its_program(line: str, expected: str) -> None:
    assert (
        adopt.rewrite_command(UNIT.format(line=line), Path("/l/t3"), Path("/usr/local/bin/t3"))
        == expected
    )
    later = UNIT.format(line="/bin/false") + f"\n[Service]\nExecStart=\nExecStart={line}\n"
    assert adopt.rewrite_command(later, Path("/l/t3"), Path("/usr/local/bin/t3")) == expected, (
        "a drop-in has the last word"
    )


def test_a_unit_that_runs_something_else_is_not_changed() -> None:
    with pytest.raises(Failure, match="does not run t3 itself; let it run /l/t3 instead"):
        adopt.rewrite_command(
            UNIT.format(line="/opt/wrapper --port 1"), Path("/l/t3"), Path("/usr/local/bin/t3")
        )
    assert adopt.rewrite_command("[Unit]\n", Path("/l/t3"), Path("/usr/local/bin/t3")) is None


@pytest.mark.parametrize(
    ("said", "other"),
    [
        ("{ path=/l/t3 ; argv[]=/l/t3 serve --port 1 ; ignore_errors=no }", ""),
        ("{ path=/usr/local/bin/t3 ; argv[]=/usr/local/bin/t3 serve ; ignore_errors=no }", ""),
        ("", ""),
        (
            "{ path=/usr/bin/node ; argv[]=/usr/bin/node /usr/lib/node_modules/t3/t3.mjs serve ; ignore_errors=no }",
            "/usr/bin/node",
        ),
        (
            "{ path=/usr/lib/node_modules/t3/t3.mjs ; argv[]=t3 serve ; ignore_errors=no }",
            "/usr/lib/node_modules/t3/t3.mjs",
        ),
    ],
)
def test_a_unit_that_has_another_program_in_spite_of_ours_is_found(
    said: str, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its account would be told to be on a version that its server never runs, and a check would
    migrate its database."""
    monkeypatch.setattr(Service, "show", lambda self, name: said)
    found = adopt.why_another_runs(
        Service("t3-serve@alice.service"), Path("/l/t3"), Path("/usr/local/bin/t3")
    )
    assert found.startswith(f"t3-serve@alice.service runs {other}, and not" if other else ""), found
    assert bool(found) is bool(other)


def test_the_package_of_a_program_is_found_through_its_links(tmp_path: Path) -> None:
    package = tmp_path / "lib/node_modules/t3"
    (package / "dist").mkdir(parents=True)
    (package / "package.json").write_text(json.dumps({"name": "t3", "version": "0.0.24"}))
    (package / "dist/bin.mjs").write_text("")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/t3").symlink_to("../lib/node_modules/t3/dist/bin.mjs")
    assert program.find_package(tmp_path / "bin/t3") == program.Package(
        package, "0.0.24", Path("dist/bin.mjs"), Path("lib/node_modules/t3")
    )
    with pytest.raises(Failure, match="npm i -g"):
        program.find_package(Path("/bin/true"))


EXECUTABLE = "@t3code/t3-linux-x64"


def make_package(folder: Path, about: dict[str, object], *programs: str) -> Path:
    """A package as npm lays it out."""
    folder.mkdir(parents=True)
    (folder / "package.json").write_text(json.dumps(about))
    for name in programs:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('#!/bin/sh\necho "$(dirname "$(readlink -f "$0")")"\n')
        path.chmod(0o755)
    return folder


def run(path: Path) -> str:
    return subprocess.run([path], capture_output=True, text=True, check=True).stdout.strip()


def test_the_one_executable_has_no_bin_and_is_linked_from_the_root_of_its_package(
    tmp_path: Path,
) -> None:
    """It finds its files beside it, by its own real path."""
    folder = tmp_path / "lib/node_modules" / EXECUTABLE
    make_package(folder, {"name": EXECUTABLE, "version": "0.0.42"}, "t3", "client/t3")
    program.ensure_program(tmp_path, "a test")
    assert os.readlink(tmp_path / "bin/t3") == f"../lib/node_modules/{EXECUTABLE}/t3"
    tmp_path.rename(tmp_path.with_name("moved"))
    moved = tmp_path.with_name("moved")
    assert run(moved / "bin/t3") == str(moved / "lib/node_modules" / EXECUTABLE)
    found = program.find_package(moved / "bin/t3")
    assert found == program.Package(
        moved / "lib/node_modules" / EXECUTABLE,
        "0.0.42",
        Path("t3"),
        Path("lib/node_modules", EXECUTABLE),
    )
    moved.rename(tmp_path)


@pytest.mark.parametrize("there", [True, False])
def test_a_launcher_is_whole_with_the_package_of_its_platform_alone(
    tmp_path: Path, there: bool
) -> None:
    """`npm i --omit=optional` leaves one that starts nothing."""
    optional = dict.fromkeys((EXECUTABLE, "@t3code/t3-darwin-arm64", "fsevents"), "0.1.2")
    about: dict[str, object] = {
        "name": "t3",
        "version": "0.1.2",
        "optionalDependencies": optional,
    }
    launcher = make_package(tmp_path / "lib/node_modules/t3", about, "bin.mjs")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/t3").symlink_to("../lib/node_modules/t3/bin.mjs")
    if there:
        make_package(launcher / "node_modules" / EXECUTABLE, {"name": EXECUTABLE}, "t3")
        program.ensure_program(tmp_path, "t3@0.1.2")
        assert program.find_package(tmp_path / "bin/t3").folder == launcher
        return
    needs = f"t3 needs one of @t3code/t3-darwin-arm64, {EXECUTABLE}, and none came with it"
    with pytest.raises(Failure, match=f"t3@0.1.2: the launcher has no program: {needs}"):
        program.ensure_program(tmp_path, "t3@0.1.2")
    with pytest.raises(Failure, match="the launcher has no program"):
        program.find_package(tmp_path / "bin/t3")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda prefix: (prefix / "bin/t3").unlink(),
        lambda prefix: (prefix / "lib/node_modules/t3/bin.mjs").unlink(),
        lambda prefix: (prefix / "lib/node_modules/t3/bin.mjs").chmod(0o644),
    ],
)
def test_a_package_without_a_program_is_told(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    about: dict[str, object] = {"name": "t3", "version": "0.0.24"}
    make_package(tmp_path / "lib/node_modules/t3", about, "bin.mjs")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/t3").symlink_to("../lib/node_modules/t3/bin.mjs")
    program.ensure_program(tmp_path, "a test")
    spoil(tmp_path)
    with pytest.raises(Failure, match="a test has no program t3 in it"):
        program.ensure_program(tmp_path, "a test")


def test_what_t3_has_installed_by_itself_is_taken_over_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is root's: `t3 update` moves the link, and does nothing to the copy."""
    monkeypatch.setattr(adopt, "read_unit", lambda: "")
    folder = make_package(tmp_path / "opt/runtime/versions/0.0.44", {}, "t3", "client/t3")
    (folder / "package.json").unlink()
    called = tmp_path / "t3"
    called.symlink_to(folder / "t3")
    programs = Installations(tmp_path / "root")
    said: list[str] = []
    with pytest.raises(Failure, match=r"is not whole: it has no \.install-complete"):
        adopt.adopt_program(programs, called, [], said.append)
    (folder / ".install-complete").touch()
    assert adopt.adopt_program(programs, called, [], said.append) == "0.0.44"
    assert os.readlink(called) == str(programs.launcher)
    copy = programs.prefix("0.0.44")
    assert run(copy / "bin/t3") == str(copy / "lib/t3")
    assert (copy / "lib/t3/client/t3").exists()
    assert programs.about("0.0.44").origin == f"copied from {folder}"


def test_a_program_that_leads_into_a_home_is_not_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What everybody runs must be root's, and root opens nothing of a user's."""
    monkeypatch.setattr(adopt, "read_unit", lambda: "ExecStart=/usr/bin/t3 serve")
    followed, realpath = [], os.path.realpath
    monkeypatch.setattr(os.path, "realpath", lambda path: followed.append(path) or realpath(path))
    account = Account("bob", 1000, 1000, (), tmp_path / "home/bob")
    bob = Server(account, None, None, tmp_path, lambda _: None)
    called = tmp_path / "t3"
    called.symlink_to("home/bob/.local/bin/t3")
    programs = Installations(tmp_path / "root")
    with pytest.raises(Failure, match=r"T3_BIN leads to .*/home/bob/.local/bin/t3: what everybody"):
        adopt.adopt_program(programs, called, [bob], print)
    assert called not in followed
    assert not programs.root.exists()


@pytest.mark.parametrize(
    "line",
    [
        "/home/%i/.local/bin/t3 serve",
        "%h/.local/bin/t3 serve",
        "-/srv/home/%I/.local/bin/t3 serve",
        "/usr/bin/node /home/%i/.local/bin/t3 serve",
    ],
)
def test_servers_that_each_run_a_program_of_their_users_are_not_taken_over(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adopt, "read_unit", lambda: UNIT.format(line=line))
    programs = Installations(tmp_path / "root")
    with pytest.raises(Failure, match=r"a T3 of each user's own.*: nothing is taken over; next: "):
        adopt.adopt_program(programs, Path("/usr/bin/true"), [], print)
    assert not programs.root.exists()


@pytest.mark.parametrize("user", [GLOBAL, "versions", "bin", "journal.json", "history.json"])
def test_no_account_is_moved_in_the_place_of_something_of_ours(machine: Context, user: str) -> None:
    """The default is nobody's own: with one of that name, all who are on it would be moved."""
    with pytest.raises(Failure, match=f"{user}: an account of this name can't have a program"):
        machine.server(user)
    machine.user_map.write_text(f"a@example={user}\n")
    assert machine.servers() == [], "and nobody else is kept from anything"
