"""A bump on a machine with three users whose servers run: to a good version, to every kind of a bad
one, and back."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_t3 import GATE_STEPS, STEPS
from support.booted import t3_servers
from support.booted.t3_deployment import Deployment, deploy, list_account_snapshots
from support.booted.t3_servers import (
    USERS,
    autoupdate,
    autoupdate_status,
    browser,
    history_of,
    measure_outages,
    read_content,
    versions,
    write_message,
)
from support.booted.users import server_unit
from support.sampling import sample

# What goes wrong while the server runs; how it stops is seen when it is taken back only, and what
# it makes of the data in the gate.
BROKEN_LIVE = sample(
    [name for name, step in STEPS.items() if step not in ("stop", "data")],
    9,
    "broken on real servers",
)
TURNED_AWAY = sample(list(GATE_STEPS), 12, "turned away by the gate")
PATIENCE_S = 5  # with a server
# without a server, beyond stop, copies and start; it is printed, and not judged on a machine with
# other work
ALLOWED_S = 5


@pytest.fixture(scope="module")
def deployment(
    suite: str, deb: Path, autoupdate_deb: Path, grown: Callable[[int], Path]
) -> Iterator[Deployment]:
    with deploy(suite, deb, autoupdate_deb, grown(8)) as found:
        yield found


@pytest.mark.releases
def test_a_plain_installation_is_taken_over_and_nothing_is_restarted(
    deployment: Deployment,
) -> None:
    before = deployment.main_pids()
    assert autoupdate(deployment.machine, "adopt").code == 0
    assert deployment.main_pids() == before
    assert versions(deployment.machine) == dict.fromkeys(USERS, "0.0.24")
    deployment.machine.run("systemctl", "restart", server_unit("bob"))
    deployment.machine.until(lambda: t3_servers.is_listening(deployment.machine, "bob"), "server")
    program = deployment.machine.sh(
        'tr "\\0" "\\n" <"/proc/$1/cmdline"', deployment.main_pids()["bob"]
    ).out
    assert f"{t3_servers.AUTOUPDATE_ROOT}/bob/current/bin/t3" in program
    assert deployment.machine.run("t3", "--version").out == "t3 v0.0.24\n"
    assert autoupdate_status(deployment.machine)["accounts"][0]["version"] == "0.0.24"
    assert autoupdate(deployment.machine).code == 0, "all are where the pin wants them"


def test_a_drop_in_that_has_the_last_word_over_ours_is_told_before_anything_is_changed(
    deployment: Deployment,
) -> None:
    """As `systemctl edit` makes one: the server would go on with that program, whatever its
    account's link says."""
    machine, before = deployment.machine, deployment.main_pids()
    override = "/etc/systemd/system/t3-serve@.service.d/override.conf"
    machine.write(override, "[Service]\nExecStart=\nExecStart=/opt/t3 serve\n")
    machine.run("systemctl", "daemon-reload")
    try:
        answer = autoupdate(machine, "--to", "0.0.25")
        told = {
            account["user"]: account["trouble"]
            for account in autoupdate_status(machine)["accounts"]
        }
    finally:
        machine.run("rm", override)
        machine.run("systemctl", "daemon-reload")
    assert (answer.code, "runs /opt/t3, and not the program of its account" in answer.err) == (
        1,
        True,
    ), answer
    assert all("runs /opt/t3" in told[user] for user in USERS)
    assert deployment.main_pids() == before
    assert versions(machine) == dict.fromkeys(USERS, "0.0.24")


@pytest.mark.parametrize("variant", TURNED_AWAY)
def test_the_gate_turns_a_bad_version_away_and_nothing_is_touched(
    deployment: Deployment, variant: str
) -> None:
    t3_servers.offer_version(deployment.machine, "0.0.25", variant)
    deployment.forget("0.0.25")
    before, pids = deployment.content(), deployment.main_pids()
    answer = t3_servers.autoupdate_in_a_hurry(deployment.machine, "--to", "0.0.25")
    assert answer.code == 1, answer
    assert f"turned away by the gate at {GATE_STEPS[variant]}" in answer.err
    assert (deployment.content(), deployment.main_pids()) == (before, pids)
    assert versions(deployment.machine) == dict.fromkeys(USERS, "0.0.24")
    assert not any(
        "prebump" in snapshot["name"]
        for snapshot in list_account_snapshots(deployment.machine, "alice")
    )


@pytest.mark.parametrize("variant", BROKEN_LIVE)
def test_a_version_that_fails_on_a_real_server_is_taken_back_with_the_data(
    deployment: Deployment, variant: str, tell: Callable[[str], None]
) -> None:
    """The gate can't see it: it is broken on the real servers alone."""
    machine = deployment.machine
    deployment.forget("0.0.25")
    t3_servers.offer_version(machine, "0.0.25", variant, live_only=True)
    for user in USERS:
        write_message(machine, user, deployment.cookies[user])
    before = deployment.content()
    machine.write(t3_servers.LIVE, "")
    try:
        with measure_outages(machine) as gaps:
            answer = autoupdate(
                machine, "--to", "0.0.25", env={"T3_AUTOUPDATE_PATIENCE": str(PATIENCE_S)}
            )
    finally:
        machine.run("rm", "-f", t3_servers.LIVE)
    assert answer.code == 1, answer
    told = re.search(
        r"(\w+): 0\.0\.25 failed: .*, ([\d.]+) s without a server \((.*)\)", answer.text
    )
    assert told, answer.text
    steps = {
        step: float(seconds) for step, seconds in (part.split() for part in told[3].split(", "))
    }
    tell(
        f"{variant}: the longest without a server: "
        + ", ".join(f"{user} {gap:.1f} s" for user, gap in gaps.items())
    )
    tell(f"  {told[1]}: {told[3]} ({ALLOWED_S} s are allowed for the trial)")
    assert steps.keys() == {"stop", "copies", "trial", "start"}
    assert steps["trial"] < 2 * (PATIENCE_S + steps["start"]), (
        "one that hangs is not waited for any longer"
    )
    assert gaps[told[1]] < float(told[2]) + 1, "what it says is what its user sees"
    assert "frozen until: t3-autoupdate thaw" in answer.err
    assert "back on 0.0.24 with the data of state-" in answer.text
    after = deployment.content()
    for user in USERS:
        changed = {"auth_sessions"}  # by the check itself, which logs in
        assert {k: v for k, v in after[user].items() if k not in changed} == {
            k: v for k, v in before[user].items() if k not in changed
        }
        assert browser(machine, user, "session", deployment.cookies[user]) is True, (
            "who was logged in still is"
        )
        assert t3_servers.running_version(machine, user) == "0.0.24"
    assert versions(machine) == dict.fromkeys(USERS, "0.0.24")
    again = autoupdate(machine, "--to", "0.0.25")
    assert again.code == 1
    assert "frozen" in again.err
    assert autoupdate(machine).code == 0, "the timer says it, and does nothing"
    assert autoupdate(machine, "thaw").code == 0


@pytest.mark.releases
def test_a_good_version_is_switched_to_and_everybody_can_log_in(deployment: Deployment) -> None:
    machine = deployment.machine
    deployment.forget("0.0.25")
    t3_servers.offer_version(machine, "0.0.25")
    before = deployment.content()
    with measure_outages(machine) as gaps:
        answer = autoupdate(machine, "--to", "0.0.25", "--json")
    assert answer.code == 0, answer
    assert all(trial["passed"] for trial in answer.document["trials"])
    assert [trial["subject"] for trial in answer.document["trials"]] == ["empty", *USERS]
    assert versions(machine) == dict.fromkeys(USERS, "0.0.25")
    assert machine.run("t3", "--version").out == "t3 v0.0.25\n", (
        "the program of every account without one of its own moves last"
    )
    t3_servers.assert_not_mixed(machine)
    for user in USERS:
        assert history_of(read_content(machine, user)) == history_of(before[user])
        names = [
            snapshot["name"]
            for snapshot in list_account_snapshots(machine, user)
            if snapshot["label"] == "prebump-0.0.25"
        ]
        assert len(names) >= 2, "one before, and one of what the old server left"
    assert autoupdate_status(machine)["last"]["result"] == "done"
    told = dict(re.findall(r"(\w+): on 0\.0\.25, .*, ([\d.]+) s without a server", answer.err))
    assert told.keys() == set(USERS), answer
    assert all(gaps[user] < float(told[user]) + 1 for user in USERS), (gaps, told)
    assert autoupdate(machine, "check").code == 0
    assert autoupdate(machine, "--to", "0.0.25").code == 0, "again is harmless"
    assert autoupdate(machine).code == 0, "the pin is lower: that is no reason to go down"
    deployment.login()


def test_a_rollback_says_what_is_lost_and_is_undone_by_one_command(deployment: Deployment) -> None:
    machine = deployment.machine
    cookie = deployment.cookies["alice"]
    write_message(machine, "alice", cookie)
    here = read_content(machine, "alice")
    planned = autoupdate(machine, "rollback", "--user", "alice", "--dry-run")
    assert planned.code == 0, planned
    assert "will be lost: " in planned.out
    assert "messages" in planned.out
    assert read_content(machine, "alice") == here
    refused = autoupdate(machine, "rollback", "--user", "alice")
    assert refused.code == 2
    assert "say --yes" in refused.err
    done = autoupdate(machine, "rollback", "--user", "alice", "--yes")
    assert done.code == 0, done
    t3_servers.assert_not_mixed(machine)
    assert versions(machine) == {"alice": "0.0.24", "bob": "0.0.25", "carol": "0.0.25"}
    assert history_of(read_content(machine, "alice")) != history_of(here)
    undone = autoupdate(machine, "rollback", "--undo", "--yes")
    assert undone.code == 0, undone
    assert versions(machine) == dict.fromkeys(USERS, "0.0.25")
    assert history_of(read_content(machine, "alice")) == history_of(here)
    assert browser(machine, "alice", "session", cookie) is True
    t3_servers.assert_not_mixed(machine)
