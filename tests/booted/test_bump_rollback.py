"""Back by hand: a week later, out of a compacted history; and where a newer `t3` was called on the
database of an older server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import programs
from support.booted import t3_servers
from support.booted.t3_deployment import Deployment, deploy, list_account_snapshots
from support.booted.t3_servers import (
    USERS,
    autoupdate,
    autoupdate_status,
    browser,
    history_of,
    read_content,
    versions,
    write_message,
)

OLD, NEW = "0.0.24", "0.0.25"
LATER = "/run/days-later"


@pytest.fixture(scope="module")
def deployment(
    suite: str, deb: Path, autoupdate_deb: Path, grown: Callable[[int], Path]
) -> Iterator[Deployment]:
    with deploy(suite, deb, autoupdate_deb, grown(8)) as found:
        found.machine.write(
            "/usr/lib/python3/dist-packages/days_later.py", programs.text("days_later.py")
        )
        found.machine.write("/usr/lib/python3/dist-packages/days-later.pth", "import days_later\n")
        t3_servers.offer_version(found.machine, NEW)
        yield found


def later(deployment: Deployment, days: int) -> None:
    deployment.machine.write(LATER, str(days))


def test_a_newer_t3_that_was_called_on_an_older_database_is_noticed_and_what_is_said_to_do_helps(
    deployment: Deployment,
) -> None:
    machine = deployment.machine
    assert autoupdate(machine, "adopt").code == 0
    assert autoupdate(machine, "--to", NEW, "--dry-run").code == 0, (
        "it is on the disk now, and nobody's"
    )
    machine.run("t3-backup-state", "run")
    before = read_content(machine, "bob")
    assert (autoupdate(machine, "status").code, before["level"]) == (0, 30)
    newer = machine.run(
        f"{t3_servers.AUTOUPDATE_ROOT}/versions/{NEW}/bin/t3",
        "auth",
        "pairing",
        "list",
        "--base-dir",
        "/home/bob/.t3",
        user="bob",
    )
    assert "Running migration 31" in newer.err
    assert t3_servers.running_version(machine, "bob") == OLD, "it runs on, as if nothing were"

    said = autoupdate(machine, "status")
    assert said.code == 1
    [line] = [line for line in said.out.splitlines() if "bob: " in line]
    why = f"the database is of level 31, above 30 of {OLD}: a newer t3 was called on it"
    assert f"WARN: bob: {OLD}, level 31, running: {why}" in line
    todo = f"t3-autoupdate rollback --user bob --to {OLD}"
    assert f"{todo};" in line
    found = {one["user"]: one for one in autoupdate_status(machine)["accounts"]}
    assert (found["bob"]["level"], found["bob"]["expected"], todo in found["bob"]["trouble"]) == (
        31,
        30,
        True,
    )
    assert [found[user]["trouble"] for user in ("alice", "carol")] == ["", ""]
    checked = autoupdate(machine, "check", "--user", "bob")
    assert checked.code == 1, "nobody can log in there"
    assert todo in checked.out
    warned = machine.run("t3-backup-state", "status", "--nagios", check=False)
    assert warned.code == 1
    assert f"bob: nobody can log in to T3 {OLD} (since " in warned.out, "the backup knows it"
    nightly = autoupdate(machine)
    assert (nightly.code, f"all accounts are on {OLD}" in nightly.out, todo in nightly.out) == (
        1,
        True,
        True,
    ), "an alarm in the night"

    assert autoupdate(machine, *todo.split()[1:], "--yes").code == 0
    after = read_content(machine, "bob")
    assert (after["level"], history_of(after)) == (30, history_of(before))
    assert browser(machine, "bob", "session", deployment.cookies["bob"]) is True, (
        "who was logged in then is again"
    )
    assert (autoupdate(machine, "status").code, autoupdate(machine, "check").code) == (0, 0)
    assert machine.run("t3-backup-state", "status", "--nagios", check=False).code == 0
    assert versions(machine) == dict.fromkeys(USERS, OLD)


def test_a_week_later_it_is_rolled_back_out_of_a_compacted_history_and_that_is_undone(
    deployment: Deployment,
) -> None:
    machine, user = deployment.machine, "alice"
    assert autoupdate(machine, "--to", NEW).code == 0
    deployment.login()
    for day in range(1, 9):
        later(deployment, day)
        write_message(machine, user, deployment.cookies[user])
        machine.run("t3-backup-state", "run")
    kept = next(
        one for one in list_account_snapshots(machine, user) if one["label"] == f"prebump-{NEW}"
    )
    assert (kept["form"], kept["t3_level"]) == ("delta", 30)
    here = read_content(machine, user)

    planned = autoupdate(machine, "rollback", "--user", user, "--dry-run")
    assert planned.code == 0, planned
    data = f"the data of {kept['taken_at']} (level 30, {kept['name']})"
    assert f"{user}: from {NEW} back to {OLD}, with {data}" in planned.out
    assert f"{user}: will be lost: 9 messages, 9 events" in planned.out
    refused = autoupdate(machine, "rollback", "--user", user)
    assert (refused.code, "say --yes, or --dry-run" in refused.err) == (2, True)
    assert "will be lost: 9 messages, 9 events" in refused.out, "before it asks"
    assert read_content(machine, user) == here

    answered = machine.run(
        "script",
        "-qec",
        f"t3-autoupdate rollback --user {user}",
        "/dev/null",
        stdin="n\n",
        check=False,
    )
    assert (
        answered.code,
        "Do that? [y/N]" in answered.out,
        "nothing was changed" in answered.out,
    ) == (1, True, True)
    assert read_content(machine, user) == here
    done = machine.run(
        "script",
        "-qec",
        f"t3-autoupdate rollback --user {user}",
        "/dev/null",
        stdin="y\n",
        check=False,
    )
    assert done.code == 0, done
    assert versions(machine) == {"alice": OLD, "bob": NEW, "carol": NEW}
    t3_servers.assert_not_mixed(machine)
    then = read_content(machine, user)
    assert (then["level"], t3_servers.running_version(machine, user)) == (30, OLD)
    assert history_of(then) != history_of(here)
    checked = autoupdate(machine, "check", "--json")
    assert checked.code == 0, "the old one is logged in to beside the new ones"
    assert checked.document["accounts"][user]["endpoint"] == "/api/auth/bootstrap"
    assert checked.document["accounts"]["bob"]["endpoint"] == "/api/auth/browser-session"
    assert machine.run("t3", "--version", user=user).out == f"t3 v{OLD}\n"

    undone = autoupdate(machine, "rollback", "--undo", "--yes")
    assert undone.code == 0, undone
    assert versions(machine) == dict.fromkeys(USERS, NEW)
    assert history_of(read_content(machine, user)) == history_of(here), (
        "with the data of the whole week"
    )
    assert browser(machine, user, "session", deployment.cookies[user]) is True
    t3_servers.assert_not_mixed(machine)
    assert autoupdate(machine, "check").code == 0
    assert autoupdate(machine, "status").code == 0
