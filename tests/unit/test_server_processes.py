"""Which processes are T3 servers, and on which base directory: over what /proc says of them,
written down. Agents stand in the same control group, and often run under the same node."""

from __future__ import annotations

import pytest

from t3_backup.t3.server_processes import (
    Process,
    base_dir_of,
    choose_servers,
    find_t3_processes,
    unit_of,
)

HOME = "/home/ann"
UNIT = "/system.slice/system-t3\\x2dserve.slice/t3-serve@ann.service"
USER_UNIT = "/user.slice/user-1000.slice/user@1000.service/app.slice/t3code.service"
NODE = "/usr/bin/node"


def process(pid: int, line: str, parent: int = 1, **more: object) -> Process:
    arguments = tuple(line.split())
    given: dict[str, object] = {"program": arguments[0] if arguments else ""} | more
    return Process(pid, parent, arguments, **given)  # type: ignore[arg-type]


def found(*processes: Process) -> dict[int, bool]:
    """T3's processes by pid, and whether each serves."""
    return {one.pid: one.serves for one in find_t3_processes(processes, HOME)}


def servers(*processes: Process, holders: tuple[int, ...] = ()) -> list[int]:
    found = find_t3_processes(processes, HOME)
    return [one.pid for one in choose_servers(found, processes, holders)]


@pytest.mark.parametrize("unit", [UNIT, USER_UNIT])
def test_of_a_unit_the_main_process_is_one_and_its_agents_are_none(unit: str) -> None:
    """Whatever the program is called."""
    main = process(10, "/opt/code/server --port 1", cgroup=unit)
    agent = process(11, "/usr/bin/codex app-server", 10, cgroup=unit)
    shell = process(12, "/bin/bash", 10, cgroup=f"{unit}/beneath")
    assert found(main, agent, shell) == {10: True}


def test_an_agent_whose_parent_has_ended_does_not_become_the_server() -> None:
    """systemd names the main process in a variable that its children inherit."""
    variables = {"SYSTEMD_EXEC_PID": "10"}
    main = process(10, "/opt/code/server", cgroup=UNIT, environment=variables)
    orphan = process(9, "/usr/bin/codex", 1, cgroup=UNIT, environment=variables)
    assert found(orphan, main) == {10: True}
    assert found(orphan) == {}  # the server hides


def test_without_that_variable_the_one_with_the_name_is_the_server() -> None:
    orphan = process(9, "/usr/bin/codex", 1, cgroup=UNIT)
    assert found(orphan, process(10, "/usr/bin/t3 serve", cgroup=UNIT)) == {10: True}


def test_under_node_the_script_is_the_program() -> None:
    """claude and codex run under the same node."""
    main = process(10, f"{NODE} /usr/local/bin/t3 serve --port 1", cgroup=UNIT)
    claude = process(11, f"{NODE} /usr/local/bin/claude --serve", 10, cgroup=UNIT)
    helper = process(12, f"{NODE} /usr/local/bin/t3 auth pairing create", 10)
    text = process(13, f"{NODE} -e /usr/local/bin/t3 serve", 10)
    assert found(main, claude, helper, text) == {10: True, 12: False}


@pytest.mark.parametrize(
    "line",
    [
        "/usr/local/bin/t3 serve --host 127.0.0.1",
        "/usr/lib/x/t3-linux-x64/bin/t3 start",
        "/home/ann/.t3/runtime/versions/0.1.10/t3 serve",
        f"{NODE} --no-warnings -r /x.js /usr/local/bin/t3 serve",
        f"{NODE} /usr/local/lib/node_modules/t3/dist/bin.mjs serve",
        "/usr/bin/bun run /opt/t3 serve",
        "/usr/bin/python3.11 -I /usr/local/bin/t3 serve",
        "/usr/local/bin/t3",
        f"{NODE} /home/ann/.npm/_npx/1f/node_modules/.bin/t3 --port 3773",
    ],
)
def test_what_serves_by_its_command_line_is_one_without_a_unit(line: str) -> None:
    assert found(process(10, line)) == {10: True}


@pytest.mark.parametrize(
    "line",
    [
        "/usr/local/bin/t3 --version",
        "/usr/local/bin/t3 auth pairing create",
        "/usr/bin/vim t3 serve",
        f"{NODE} /srv/app.js t3 serve",
        "/bin/sh -c t3 serve",
        "/usr/local/bin/t3-backup-state serve",
        "",
    ],
)
def test_nothing_else_is(line: str) -> None:
    assert found(process(10, line)) == {}


def test_a_link_to_the_program_is_known_by_what_was_typed() -> None:
    assert found(process(10, "t3 serve", program="/opt/t3code/t3code-linux")) == {10: True}


def test_units_of_this_project_and_of_others_are_none() -> None:
    manager = "/user.slice/user-1000.slice/user@1000.service"
    assert unit_of(f"{UNIT}/beneath") == UNIT
    assert unit_of("/system.slice/t3-serve@corp\\x5cann.service").endswith(".service")
    for name in ("t3.service", "t3-server.service", "t3code.service", "t3code-nightly.service"):
        assert unit_of(f"{manager}/app.slice/{name}/x") == f"{manager}/app.slice/{name}"
        assert unit_of(f"/system.slice/{name}") == ""
    for name in ("t3-backup-state.service", "t3-autoupdate.service", "dbus.service", "init.scope"):
        assert unit_of(f"{manager}/{name}") == ""


def test_what_only_starts_a_server_is_none_where_the_server_is_seen() -> None:
    """A shell as the main process of the unit, npx, and a launcher of the same name."""
    main = process(10, "/bin/sh -c serve", cgroup=UNIT)
    npx = process(11, f"{NODE} /usr/bin/npx t3 serve", 10, cgroup=UNIT)
    launcher = process(12, f"{NODE} /x/bin/t3 serve", 11, cgroup=UNIT)
    server = process(13, "/x/t3-linux-x64/t3 serve", 12, cgroup=UNIT)
    other = process(14, "/bin/sh -c mine", 13, cgroup=UNIT)
    everyone = (main, npx, launcher, server, other)
    assert servers(*everyone, holders=(13,)) == [13]
    assert found(*everyone) == {10: True, 12: True, 13: True}  # a shell is not T3's program


def test_a_server_that_an_agent_has_started_is_one_more() -> None:
    server = process(10, "/usr/bin/t3 serve", cgroup=UNIT)
    shell = process(11, "/bin/bash", 10, cgroup=UNIT)
    second = process(12, "/usr/bin/t3 serve", 11, cgroup=UNIT)
    assert servers(server, shell, second, holders=(10, 12)) == [10, 12]


def test_a_process_that_has_yet_to_execute_its_program_is_none() -> None:
    server = process(10, "/usr/bin/t3 serve", cgroup=UNIT)
    forked = process(11, "/usr/bin/t3 serve", 10, cgroup=UNIT)
    assert servers(server, forked, holders=(10, 11)) == [10]


@pytest.mark.parametrize(
    ("line", "variables", "base"),
    [
        ("t3 serve", {}, "/home/ann/.t3"),
        ("t3 serve", {"HOME": "/data/ann"}, "/data/ann/.t3"),
        ("t3 serve", {"T3CODE_HOME": "/srv/t3"}, "/srv/t3"),
        ("t3 serve", {"T3CODE_HOME": "~/.t3-nightly"}, "/home/ann/.t3-nightly"),
        ("t3 serve --base-dir /a/b/", {"T3CODE_HOME": "/srv/t3"}, "/a/b"),
        ("t3 serve --base-dir=/a --base-dir=/b", {}, "/b"),
        ("t3 serve --base-dir state/../x", {}, "/work/x"),
        ("t3 serve --base-dir", {}, "/home/ann/.t3"),
        (f"{NODE} /bin/t3 serve --base-dir /a", {}, "/a"),
    ],
)
def test_the_base_directory_is_that_of_the_command_line_else_of_the_environment(
    line: str, variables: dict[str, str], base: str
) -> None:
    assert base_dir_of(process(1, line, environment=variables, cwd="/work"), HOME) == base
