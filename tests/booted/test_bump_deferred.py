"""Who is at work stays on their version, wholly, whatever happens to their server in the meantime;
and comes later."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.booted import t3_servers
from support.booted.machine import Machine
from support.booted.t3_deployment import Deployment, deploy
from support.booted.t3_servers import (
    USERS,
    autoupdate,
    autoupdate_status,
    browser,
    history_of,
    read_content,
    versions,
)
from support.booted.users import server_unit

OLD, NEW = "0.0.24", "0.0.25"
# an agent runs beneath bob's unit, a turn is in flight in carol's database; alice is idle
BUSY = ("bob", "carol")
ENDPOINTS = {OLD: "/api/auth/bootstrap", NEW: "/api/auth/browser-session"}
TEXTFILES = "/var/lib/prometheus/node-exporter"


@pytest.fixture(scope="module")
def deployment(
    suite: str, deb: Path, autoupdate_deb: Path, grown: Callable[[int], Path]
) -> Iterator[Deployment]:
    with deploy(suite, deb, autoupdate_deb, grown(8)) as found:
        found.machine.run("mkdir", "-p", TEXTFILES)
        t3_servers.offer_version(found.machine, NEW)
        yield found


def phases(machine: Machine) -> dict[str, str]:
    """Of each account, as the journal on the disk has it now; none where there is none."""
    found = machine.run("cat", f"{t3_servers.AUTOUPDATE_ROOT}/journal.json", check=False)
    return (
        {move["user"]: move["phase"] for move in json.loads(found.out)["moves"]}
        if found.code == 0
        else {}
    )


def restart_and_call(deployment: Deployment) -> None:
    """Bob's server dies and is started again by systemd, carol's is restarted by hand, and both
    call `t3`."""
    machine, before = deployment.machine, deployment.main_pids()
    machine.run("kill", "-9", before["bob"])
    machine.run("systemctl", "restart", server_unit("carol"))
    for user in BUSY:
        machine.until(
            lambda user=user: deployment.main_pids()[user] not in ("0", before[user]), "new server"
        )
        machine.until(lambda user=user: t3_servers.is_listening(machine, user), "server")
        assert machine.run("t3", "--version", user=user).out == f"t3 v{OLD}\n"
        listed = machine.run(
            "t3", "auth", "pairing", "list", "--base-dir", f"/home/{user}/.t3", user=user
        )
        assert "Running migration" not in listed.text


def assert_old(
    deployment: Deployment, users: tuple[str, ...], before: dict[str, dict[str, Any]]
) -> None:
    """They are on the old version with the old data, and everybody who was logged in still is."""
    for user in users:
        found = read_content(deployment.machine, user)
        assert (found["level"], found["scopes"]) == (30, False)
        assert history_of(found) == history_of(before[user])
        deployment.machine.until(
            lambda user=user: t3_servers.is_listening(deployment.machine, user), "server"
        )
        assert t3_servers.running_version(deployment.machine, user) == OLD
        assert browser(deployment.machine, user, "session", deployment.cookies[user]) is True


def assert_on(machine: Machine, expected: dict[str, str], everybody: str) -> None:
    """Who is on what, by link, server and login; `everybody`: the `t3` of whoever has none of their
    own."""
    assert versions(machine) == expected
    t3_servers.assert_not_mixed(machine)
    checked = autoupdate(machine, "check", "--json")
    assert checked.code == 0, checked
    assert checked.document["accounts"] == {
        user: {"paired": True, "endpoint": ENDPOINTS[version]} for user, version in expected.items()
    }
    assert machine.run("t3", "--version").out == f"t3 v{everybody}\n"


def test_the_busy_stay_on_their_version_though_their_servers_restart_and_they_call_t3_in_the_middle(
    deployment: Deployment,
) -> None:
    machine = deployment.machine
    assert browser(machine, "bob", "/fake/agent", deployment.cookies["bob"], "{}") == 200
    assert (
        browser(machine, "carol", "/fake/turn", deployment.cookies["carol"], '{"state": "running"}')
        == 200
    )
    before, pids = deployment.content(), deployment.main_pids()
    with machine.start("t3-autoupdate", "--to", NEW) as process:
        machine.until(
            lambda: phases(machine).get("alice") in ("stopping", "switching", "starting"),
            "move",
            120,
        )
        assert deployment.main_pids()["bob"] == pids["bob"], "nobody but alice has lost a server"
        restart_and_call(deployment)
        during = phases(machine).get("alice")
        out, _ = process.communicate(timeout=120)
    assert process.returncode == 0, out
    assert during != "done", "that was in the middle"
    assert f"bob: stays on {OLD} for now: sleep (pid " in out
    assert f"carol: stays on {OLD} for now: 1 turns are in flight" in out
    assert_old(deployment, BUSY, before)
    assert_on(machine, {"alice": NEW, "bob": OLD, "carol": OLD}, OLD)
    restart_and_call(deployment)
    assert_old(deployment, BUSY, before)
    assert phases(machine) == {"alice": "done", "bob": "deferred", "carol": "deferred"}
    assert [one["phase"] for one in autoupdate_status(machine)["accounts"]] == [
        "done",
        "deferred",
        "deferred",
    ]
    assert autoupdate(machine, "status").code == 0, "that somebody is at work wants no look"


def test_a_drain_moves_who_is_idle_by_now_and_the_program_of_everybody_last(
    deployment: Deployment,
) -> None:
    machine = deployment.machine
    assert browser(machine, "bob", "/fake/agent", deployment.cookies["bob"], "{}") == 200, (
        "the first went with the server that died"
    )
    before = deployment.content()
    machine.start_unit("t3-autoupdate-drain.service")
    assert_old(deployment, BUSY, before)
    assert "t3_autoupdate_deferred 2.0\n" in machine.read(f"{TEXTFILES}/t3_autoupdate.prom")
    assert browser(machine, "bob", "/fake/no-agent", deployment.cookies["bob"], "{}") == 200
    machine.start_unit("t3-autoupdate-drain.service")
    assert_old(deployment, ("carol",), before)
    assert_on(machine, {"alice": NEW, "bob": NEW, "carol": OLD}, OLD)
    assert (
        browser(
            machine, "carol", "/fake/turn", deployment.cookies["carol"], '{"state": "completed"}'
        )
        == 200
    )
    drained = autoupdate(machine, "drain", "--json")
    assert drained.code == 0, drained
    assert_on(machine, dict.fromkeys(USERS, NEW), NEW)
    assert drained.document["journal"] is None
    assert drained.document["last"]["result"] == "done"
    assert "t3_autoupdate_deferred 0.0\n" in machine.read(f"{TEXTFILES}/t3_autoupdate.prom")
    for user in USERS:
        assert history_of(read_content(machine, user)) == history_of(before[user])
