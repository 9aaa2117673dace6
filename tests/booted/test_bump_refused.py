"""What is no version's fault, and no bump then.

That is a full disk, an npm that fails, a snapshot that doesn't prove, a unit that doesn't stop.
Everybody goes on working: no server is restarted, no program and no row changes, and the next bump
may come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fake_t3
import pytest
from support import programs
from support.booted import t3_servers
from support.booted.interrupted_bump import NEW, OLD, USERS, InterruptedBump, killable_command
from support.booted.machine import Machine, Result, boot
from support.booted.t3_servers import AUTOUPDATE_ROOT, FREEZE, autoupdate
from support.booted.users import STORE, database_path, server_unit
from support.sampling import sample


@pytest.fixture(scope="module", params=["bookworm"])
def bump(
    request: pytest.FixtureRequest, deb: Path, autoupdate_deb: Path, grown: Callable[[int], Path]
) -> Iterator[InterruptedBump]:
    with boot(request.param, packages=[deb, autoupdate_deb]) as machine:
        found = InterruptedBump(machine)
        found.set_up(grown(8))
        t3_servers.offer_version(machine, NEW)
        yield found


def state(bump: InterruptedBump) -> dict[str, Any]:
    """All that a refused bump must leave as it is."""
    machine = bump.machine
    found: dict[str, Any] = {user: bump.inspect(user) for user in USERS}
    for user in USERS:
        assert found[user]["session"], user
        found[f"server of {user}"] = machine.show(
            server_unit(user), "MainPID", "NRestarts", "ActiveState"
        )
    found["t3"] = machine.run("readlink", "-f", "/usr/local/bin/t3").out
    paths = (FREEZE, f"{AUTOUPDATE_ROOT}/journal.json", "/etc/systemd/system/t3-serve@.service.d")
    found["there"] = [
        path for path in paths if machine.run("test", "-e", path, check=False).code == 0
    ]
    return found


def refused(bump: InterruptedBump, why: str, run: Callable[[], Result] | None = None) -> Result:
    """Have a bump refused in one line of error that says why; what it printed."""
    for user in USERS:
        t3_servers.write_message(bump.machine, user, bump.cookies[user])
    before = state(bump)
    answer = run() if run else autoupdate(bump.machine, "--to", NEW)
    assert answer.code == 1, answer
    assert why in answer.err, answer
    assert len(answer.err.splitlines()) == 1, answer
    assert state(bump) == before, answer
    assert FREEZE not in before["there"]
    return answer


@contextmanager
def npm_is(machine: Machine, script: str) -> Iterator[None]:
    """Another npm, for as long as the block."""
    good = machine.read("/usr/local/bin/npm")
    machine.write("/usr/local/bin/npm", f"#!/bin/bash\n{script}\n", 0o755)
    try:
        yield
    finally:
        machine.write("/usr/local/bin/npm", good, 0o755)


@contextmanager
def small(machine: Machine, path: str, spare: str) -> Iterator[None]:
    """A folder on a disk of its own, with what it has, and no more room than `spare`."""
    machine.sh(programs.text("fill_disk.sh"), path, spare)
    try:
        yield
    finally:
        machine.run("umount", "--lazy", path)


def test_a_disk_without_room_for_the_programs_leaves_a_plain_installation_as_it_is(
    bump: InterruptedBump,
) -> None:
    with small(bump.machine, AUTOUPDATE_ROOT, "8K"):
        refused(bump, "No space left on device")


def test_a_disk_without_room_for_another_version_is_told_before_anything_is_fetched(
    bump: InterruptedBump,
) -> None:
    assert autoupdate(bump.machine, "adopt").code == 0
    with small(bump.machine, AUTOUPDATE_ROOT, "30M"):
        answer = refused(bump, "make room")
    assert "installed" not in answer.text


@pytest.mark.parametrize(
    ("npm", "why"),
    [
        (
            "echo 'npm ERR! network' >&2; exit 1",
            "npm could not install /srv/t3-0.0.25.tgz: network",
        ),
        ("echo 'npm ERR! 404 Not Found - GET t3' >&2; exit 1", "404 Not Found"),
        ("exec sleep 600", "it took too long"),
        ("exit 0", "has no program t3 in it"),
        ("head -c 3000000 /dev/zero; exit 1", "npm could not install"),
        ("head -c 900M /dev/zero >~/x; exec sleep 600", "it took more than 64 MiB of the disk"),
        ("mkdir ~/x; cd ~/x; touch {1..9999}; exec sleep 600", "it made more than 2000 files"),
        ("head -c 900M /dev/zero >/tmp/x; exec sleep 600", "it took more than 64 MiB of the disk"),
    ],
)
def test_an_npm_that_fails_changes_nothing(bump: InterruptedBump, npm: str, why: str) -> None:
    machine = bump.machine
    limit = f"t3_backup.autoupdate.programs.npm._SECONDS={3 if 'too long' in why else 60}"
    room = ("_MOST_BYTES=67108864", "_MOST_FILES=2000")
    limits = [limit, *(f"t3_backup.autoupdate.programs.npm_cell.{one}" for one in room)]
    words = (*limits, "t3_backup.autoupdate.main", "--to", NEW)
    line = programs.booted_line("call_with.py", *words)
    with npm_is(machine, npm):
        refused(bump, why, lambda: machine.run(*line, check=False))
    assert machine.run("systemctl", "list-units", "--all", "--no-legend", "t3-fetch*").out == ""
    assert machine.run("ls", f"{AUTOUPDATE_ROOT}/versions").lines == [OLD, f"{OLD}.json"]


@pytest.mark.parametrize(
    ("how", "node", "why"),
    [
        ({"form": "launcher-alone"}, "", "the launcher has no program: t3 needs one of @t3code/"),
        (
            {"form": "node", "engines": ">=22.13 <23 || >=24.10"},
            "echo v18.19.0",
            "T3 0.0.25 wants node >=22.13 <23 || >=24.10, and /usr/local/bin/node is v18.19.0: ",
        ),
        ({"form": "node", "engines": ">=24"}, "", "wants node >=24, and there is none in "),
    ],
)
def test_a_program_that_cannot_run_is_told_before_it_is_tried(
    bump: InterruptedBump, how: dict[str, str], node: str, why: str
) -> None:
    machine = bump.machine
    if node:
        machine.write("/usr/local/bin/node", f"#!/bin/sh\n{node}\n", 0o755)
    t3_servers.offer_version(machine, NEW, **how)  # type: ignore[arg-type]
    try:
        answer = refused(bump, why)
        assert "gate:" not in answer.text
    finally:
        t3_servers.offer_version(machine, NEW)
        machine.run("rm", "-f", "/usr/local/bin/node")


@pytest.mark.parametrize("form", sample(["executable", "launcher"], 2, "forms of T3's program"))
def test_each_form_of_the_program_is_installed_and_passes_the_gate(
    bump: InterruptedBump, form: str
) -> None:
    machine = bump.machine
    t3_servers.offer_version(machine, NEW, form=form)
    try:
        answer = autoupdate(machine, "--to", NEW, "--dry-run")
        assert answer.code == 0, answer
        assert "passed on the data of bob" in answer.out
    finally:
        t3_servers.offer_version(machine, NEW)
        machine.run("t3-autoupdate", "versions", "--remove", NEW)


def test_a_store_without_room_is_told_before_anything_is_switched(bump: InterruptedBump) -> None:
    machine = bump.machine
    machine.run("t3-backup-state", "run")
    with small(machine, STORE, "100K"):
        refused(bump, "no snapshot could be taken")


def test_a_bump_that_is_killed_while_npm_runs_is_in_nobodys_way(bump: InterruptedBump) -> None:
    machine = bump.machine
    machine.run(
        "rm", "-rf", f"{AUTOUPDATE_ROOT}/versions/{NEW}", f"{AUTOUPDATE_ROOT}/versions/{NEW}.json"
    )
    before = state(bump)
    with (
        npm_is(machine, "exec sleep 600"),
        killable_command(machine, "t3-autoupdate", "--to", NEW) as (_, kill),
    ):
        machine.until(lambda: machine.run("pgrep", "-x", "sleep", check=False).out, "npm")
        kill(False)
    answer = autoupdate(machine, "resume")
    assert answer.code == 0, answer
    assert f"an installation of T3 {NEW} was interrupted: removed" in answer.out
    assert "nothing was interrupted" not in answer.out
    assert machine.run("pgrep", "-x", "sleep", check=False).out == ""
    assert machine.run("ls", "/var/lib/private").out == ""
    answer = autoupdate(machine, "--to", NEW, "--dry-run")
    assert answer.code == 0, answer
    assert "interrupted" not in answer.out
    assert state(bump) == before


@contextmanager
def unit_with(machine: Machine, user: str, text: str) -> Iterator[None]:
    """The unit of a user's server, with something more in it, which holds from its next stop on."""
    folder = f"/etc/systemd/system/{server_unit(user)}.d"
    machine.write(f"{folder}/60-test.conf", f"[Service]\n{text}\n")
    machine.run("systemctl", "daemon-reload")
    try:
        yield
    finally:
        machine.run("rm", "-r", folder)
        machine.run("systemctl", "daemon-reload")


def test_a_final_snapshot_that_can_not_be_made_starts_the_server_again(
    bump: InterruptedBump,
) -> None:
    """The store is full when alice's server is down already: alice goes on as before, and the
    bump ends."""
    machine = bump.machine
    bump.prepare()
    before = {user: bump.inspect(user) for user in USERS}
    with small(machine, STORE, "100K"):
        answer = autoupdate(machine, "drain")
    assert answer.code == 1, answer
    assert "alice: nothing was changed, still on 0.0.24: no snapshot could be taken" in answer.out
    assert {user: bump.inspect(user) for user in USERS} == before
    assert "frozen until: t3-autoupdate thaw" in answer.err, (
        "a server was down for it: not again each night"
    )


def test_a_server_that_outlives_the_stop_of_its_unit_is_told_and_keeps_nobody_else(
    bump: InterruptedBump,
) -> None:
    """While it is there, nobody knows that the data is at rest. Once it has gone, all goes on."""
    machine = bump.machine
    bump.reset()
    before = bump.inspect("alice")
    with unit_with(machine, "alice", "KillSignal=SIGCONT\nSendSIGKILL=no\nTimeoutStopSec=1"):
        answer = autoupdate(machine, "drain")
    assert answer.code == 1, answer
    left = machine.show(server_unit("alice"), "MainPID")["MainPID"]
    assert left == "0"
    assert "t3-serve@alice.service was stopped, and t3 (pid " in answer.text
    assert bump.inspect("alice") == before
    assert t3_servers.running_version(machine, "bob") == NEW
    accounts = {one["user"]: one for one in t3_servers.autoupdate_status(machine)["accounts"]}
    not_ended = "its move has not ended; unless one is running: t3-autoupdate resume; frozen: "
    assert accounts["alice"]["trouble"].startswith(not_ended)
    assert accounts["bob"]["trouble"] == ""
    machine.run("pkill", "-KILL", "-u", "alice", "-f", "t3 serve")
    ended = bump.finish()
    assert (ended.code, "or later, except alice" in ended.text) == (1, True), ended
    assert bump.inspect("alice")["running"] == OLD
    assert autoupdate(machine, "thaw", "--user", "alice").code == 0
    ended = bump.finish(("t3-autoupdate", "--to", NEW))
    assert ended.code == 0, ended
    assert bump.assert_whole(bump.write(), ended) == dict.fromkeys(USERS, NEW)


def test_a_server_that_must_be_killed_is_at_rest_then_and_is_moved(bump: InterruptedBump) -> None:
    """Nothing that it had said is lost with it."""
    bump.reset()
    work = bump.write()
    with unit_with(bump.machine, "alice", "KillSignal=SIGCONT\nTimeoutStopSec=1"):
        answer = autoupdate(bump.machine, "drain")
        assert answer.code == 0, answer
        assert bump.assert_whole(work, answer) == dict.fromkeys(USERS, NEW)


def test_a_user_who_moved_themselves_is_left_alone_and_the_others_go_on(
    bump: InterruptedBump, tmp_path: Path
) -> None:
    """Their server runs what `t3 update` has moved; no program of ours is called on their data."""
    machine = bump.machine
    bump.reset()
    own = "/home/bob/.t3/runtime/versions/0.0.26"
    fake_t3.install_own(tmp_path, "0.0.26")
    machine.copy_tree(tmp_path / ".t3/runtime", "/home/bob/.t3/runtime", "bob")
    machine.run("ln", "-sfn", f"{own}/t3", "/home/bob/.local-t3")
    options = "--host 127.0.0.1 --port ${T3_PORT} --base-dir /home/bob/.t3"
    with unit_with(machine, "bob", f"ExecStart=\nExecStart=/home/bob/.local-t3 serve {options}"):
        machine.run("systemctl", "restart", server_unit("bob"))
        machine.until(lambda: t3_servers.is_listening(machine, "bob"), "server of bob")
        before = bump.inspect("bob")
        assert before["running"] == "0.0.26"
        answer = autoupdate(machine, "drain")
        assert answer.code == 0, answer
        told = "bob: runs T3 of their own (/home/bob/.local-t3), and not the program that is linked for them"
        assert f"WARN: {told} (0.0.24): left alone; next: " in answer.out, answer
        found = {user: bump.inspect(user) for user in USERS}
        assert (found["alice"]["running"], found["alice"]["program"]) == (NEW, NEW)
        assert found["bob"] == before
        status = autoupdate(machine, "status")
        assert told.removeprefix("bob: ") in status.out
        assert told in autoupdate(machine, "--to", "0.0.26").text
        assert told in autoupdate(machine, "rollback", "--dry-run").text
        assert bump.inspect("bob") == before


def test_the_service_brings_everybody_to_the_pin_within_its_sandbox(
    bump: InterruptedBump,
) -> None:
    machine = bump.machine
    bump.reset()
    machine.run(
        "rm",
        "-r",
        f"{AUTOUPDATE_ROOT}/journal.json",
        f"{AUTOUPDATE_ROOT}/versions/{NEW}",
        f"{AUTOUPDATE_ROOT}/versions/{NEW}.json",
    )
    machine.sh('echo "T3_PIN=$1" >>/etc/default/t3-autoupdate', NEW)
    work = bump.write()
    machine.start_unit("t3-autoupdate.service")
    unit = machine.show("t3-autoupdate.service", "Result", "ExecMainStatus")
    assert unit == {"Result": "success", "ExecMainStatus": "0"}
    said = "\n".join(
        str(entry["MESSAGE"]) for entry in machine.journal(unit="t3-autoupdate.service")
    )
    assert bump.assert_whole(work, Result(0, said, "")) == dict.fromkeys(USERS, NEW), said
    assert f"all accounts are on {NEW}" in said
    assert "WARN" not in said


def test_a_database_of_which_no_snapshot_proves_costs_that_account_alone(
    bump: InterruptedBump,
) -> None:
    """It is told before any server is stopped; all others are moved."""
    machine = bump.machine
    bump.reset()
    machine.run("rm", f"{AUTOUPDATE_ROOT}/journal.json")
    path = database_path("bob")
    machine.run("systemctl", "stop", server_unit("bob"))
    machine.run(*programs.booted_line("damage_index.py", path), user="bob")
    machine.run("systemctl", "start", server_unit("bob"))
    machine.until(lambda: t3_servers.is_listening(machine, "bob"), "server of bob")
    main = machine.show(server_unit("bob"), "MainPID")
    answer = autoupdate(machine, "--to", NEW)
    assert answer.code == 1, answer
    assert "bob: left out: the snapshot state-" in answer.out
    assert "it alone is frozen; next: t3-autoupdate thaw --user bob" in answer.out
    assert machine.show(server_unit("bob"), "MainPID") == main, "it was not stopped"
    found = {
        one["user"]: (one["version"], bool(one["frozen"]))
        for one in t3_servers.autoupdate_status(machine)["accounts"]
    }
    assert found == {"alice": (NEW, False), "bob": (OLD, True)}
    assert t3_servers.autoupdate_status(machine)["frozen"] is None
