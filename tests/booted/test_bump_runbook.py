"""The runbook of a version bump is followed to the letter: each command that stands in it is run,
and what it shows is what is seen.

In a gate that is the bump itself and a third of the other sections, and in a soak all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import programs
from support.booted import t3_servers
from support.booted.machine import Machine, boot
from support.booted.runbook import Page, Reader
from support.booted.t3_servers import USERS, autoupdate, browser, versions, write_message
from support.booted.users import STORE, server_unit
from support.paths import ROOT
from support.sampling import one_in

PAGE = Page.read(ROOT / "docs" / "runbooks" / "t3-version-bump.md")
JOURNAL = f"{t3_servers.AUTOUPDATE_ROOT}/journal.json"
# Until a move of the bump that was started is in a phase; then what is to come upon it.
_UNTIL = """until grep -q '"phase": "'"$1"'"' "$2" 2>/dev/null; do kill -0 $bump; done"""


@pytest.fixture(scope="module")
def reader(
    suite: str, deb: Path, autoupdate_deb: Path, grown: Callable[[int], Path]
) -> Iterator[Reader]:
    """In a machine with three servers of 0.0.24 as npm has installed it; all of it kept as it was,
    for each test to begin with."""
    with boot(suite, packages=[deb, autoupdate_deb]) as machine:
        t3_servers.set_up_servers(machine, grown(8))
        machine.sh(
            "systemctl stop 't3-serve@*'; mkdir -p /srv/kept; "
            "cp -a /home /etc/default/t3-autoupdate /srv/kept"
        )
        yield Reader(machine, PAGE)


@pytest.fixture
def fresh(reader: Reader) -> Reader:
    """Nothing is taken over, nobody has a snapshot, and 0.0.25 is to be had."""
    machine = reader.machine
    machine.sh(programs.text("begin_bump_afresh.sh"), t3_servers.AUTOUPDATE_ROOT, STORE)
    t3_servers.npm_install_globally(machine, "0.0.24")
    t3_servers.offer_version(machine, "0.0.25")
    serve(machine)
    return reader


@pytest.fixture
def adopted(fresh: Reader) -> Reader:
    """Taken over."""
    assert autoupdate(fresh.machine, "adopt").code == 0
    return fresh


@pytest.fixture
def bumped(adopted: Reader) -> Reader:
    """All are on 0.0.25."""
    done = autoupdate(adopted.machine, "--to", "0.0.25")
    assert done.code == 0, done
    return adopted


def serve(machine: Machine) -> None:
    """Start all servers, and wait until each listens."""
    for user in USERS:
        machine.run("systemctl", "start", server_unit(user))
    for user in USERS:
        machine.until(lambda user=user: t3_servers.is_listening(machine, user), f"server of {user}")


def are_all_on(machine: Machine, version: str) -> bool:
    """Programs, data and servers, which must fit each other."""
    t3_servers.assert_not_mixed(machine)
    return versions(machine) == dict.fromkeys(USERS, version)


@contextmanager
def broken_on_real_servers(machine: Machine, variant: str) -> Iterator[None]:
    """The gate passes 0.0.25, and real servers show what is wrong with it."""
    t3_servers.offer_version(machine, "0.0.25", variant, live_only=True)
    machine.write(t3_servers.LIVE, "")
    try:
        yield
    finally:
        machine.run("rm", "-f", t3_servers.LIVE)


@one_in(3)
def test_a_plain_installation_is_taken_over(fresh: Reader) -> None:
    pids = [fresh.machine.show(server_unit(user), "MainPID") for user in USERS]
    fresh.follow("The first time")
    assert [fresh.machine.show(server_unit(user), "MainPID") for user in USERS] == pids
    assert are_all_on(fresh.machine, "0.0.24")


def test_everybody_comes_to_the_new_version(adopted: Reader) -> None:
    adopted.follow("Which case is it?")
    adopted.follow("Before")
    assert are_all_on(adopted.machine, "0.0.24"), "nothing is changed before"
    adopted.follow("The bump")
    by_night = autoupdate(adopted.machine)
    assert (by_night.code, by_night.out.splitlines()[-1]) == (
        0,
        "t3-autoupdate: all accounts are on 0.0.24 or later",
    )
    assert adopted.machine.run("t3", "--version").out == "t3 v0.0.25\n", (
        "a pin that is still the old one takes nothing down"
    )
    adopted.follow("After")
    assert are_all_on(adopted.machine, "0.0.25")


@one_in(3)
def test_a_version_that_the_gate_turns_away_changes_nothing(adopted: Reader) -> None:
    t3_servers.offer_version(adopted.machine, "0.0.25", "pairing-renamed")
    adopted.follow("The gate turned it away")
    assert are_all_on(adopted.machine, "0.0.24")


@one_in(3)
def test_a_version_that_fails_on_a_real_server_is_looked_into_and_thawed(adopted: Reader) -> None:
    machine = adopted.machine
    with broken_on_real_servers(machine, "no-cookie"):
        adopted.follow("It went back by itself")
    assert are_all_on(machine, "0.0.24")
    assert machine.sh("stat -c '%a %U' /root/alice-postbump-failed.sqlite").out == "600 root\n"
    assert t3_servers.autoupdate_status(machine)["frozen"] is None


@one_in(3)
def test_who_is_at_work_is_waited_for_and_then_not(adopted: Reader) -> None:
    machine = adopted.machine
    assert browser(machine, "carol", "/fake/agent", browser(machine, "carol", "login"), "{}") == 200
    adopted.follow("Somebody was at work")
    assert are_all_on(machine, "0.0.25")


@one_in(3)
def test_a_bump_that_was_killed_is_gone_on_with(adopted: Reader) -> None:
    port = t3_servers.PORTS["alice"]
    script = f"""
    t3-autoupdate --to 0.0.25 >/dev/null 2>&1 & bump=$!
    {_UNTIL}
    until (exec 3<>/dev/tcp/127.0.0.1/{port}) 2>/dev/null; do kill -0 $bump; done
    kill -9 $bump
    """
    adopted.machine.sh(script, "starting", JOURNAL, env={"T3_AUTOUPDATE_SETTLE": "60"})
    adopted.follow("It was interrupted")
    assert are_all_on(adopted.machine, "0.0.25")


@one_in(3)
def test_who_can_be_brought_to_neither_side_is_held_and_brought_up_again(adopted: Reader) -> None:
    machine = adopted.machine
    script = f"""
    t3-autoupdate --to 0.0.25 >/dev/null 2>&1 & bump=$!
    {_UNTIL}
    mv "$3/versions/0.0.24" /srv
    wait $bump && exit 9 || :
    """
    with broken_on_real_servers(machine, "no-cookie"):
        machine.sh(script, "starting", JOURNAL, t3_servers.AUTOUPDATE_ROOT, timeout=600)
        machine.run("systemctl", "start", server_unit("alice"))
        assert machine.show(server_unit("alice"), "ActiveState") == {"ActiveState": "inactive"}, (
            "it is held"
        )
        adopted.follow("An account is down and held")
    assert are_all_on(machine, "0.0.24")


@one_in(3)
def test_who_has_called_a_newer_t3_can_log_in_again(adopted: Reader) -> None:
    machine = adopted.machine
    assert autoupdate(machine, "--to", "0.0.25", "--dry-run").code == 0
    newer = f"{t3_servers.AUTOUPDATE_ROOT}/versions/0.0.25/bin/t3"
    machine.run(
        "runuser",
        "-u",
        "carol",
        "--",
        newer,
        "auth",
        "pairing",
        "list",
        "--base-dir=/home/carol/.t3",
    )
    adopted.follow("A newer t3 was called on an older database")
    assert are_all_on(machine, "0.0.24")


@one_in(3)
def test_the_way_back_by_hand_and_from_there(bumped: Reader) -> None:
    machine = bumped.machine
    cookie = browser(machine, "alice", "login")
    write_message(machine, "alice", cookie)
    bumped.follow("Back by hand")
    assert versions(machine) == {"alice": "0.0.24", "bob": "0.0.25", "carol": "0.0.25"}
    assert browser(machine, "alice", "session", cookie) is False
    again = autoupdate(machine, "--to", "0.0.25", "--dry-run", "--json").document["trials"]
    assert [(trial["subject"], trial["level_before"]) for trial in again] == [
        ("empty", None),
        ("alice", 30),
    ], "not on what 0.0.25 made"
    bumped.follow("Undo a rollback")
    assert are_all_on(machine, "0.0.25")
    assert browser(machine, "alice", "session", cookie) is True


@one_in(3)
def test_one_account_goes_first_and_the_others_follow(adopted: Reader) -> None:
    machine = adopted.machine
    adopted.follow("One account goes first")
    assert are_all_on(machine, "0.0.25")


@one_in(3)
def test_a_bump_to_v2_and_back_and_a_newer_t3_that_was_called_before(adopted: Reader) -> None:
    machine = adopted.machine
    t3_servers.offer_version(machine, "0.1.0")
    assert autoupdate(machine, "--to", "0.1.0", "--dry-run").code == 0
    newer = f"{t3_servers.AUTOUPDATE_ROOT}/versions/0.1.0/bin/t3"
    words = ("auth", "pairing", "list", "--base-dir=/home/bob/.t3")
    machine.run("runuser", "-u", "bob", "--", newer, *words)
    adopted.follow("From V1 to V2")
    assert versions(machine) == dict.fromkeys(USERS, "0.1.0")
    kept = machine.sh("ls /home/bob/.t3/userdata").out
    assert "statev2.sqlite.replaced-" in kept, "what was put aside is kept"


@one_in(3)
def test_a_bump_that_is_at_work_is_asked_to_end(adopted: Reader) -> None:
    machine = adopted.machine
    with machine.start("t3-autoupdate", "--to", "0.0.25") as process:
        assert process.stdout is not None
        while "gate: trying" not in process.stdout.readline():
            assert process.poll() is None
        [pid] = machine.run("pgrep", "-f", "bin/t3-autoupdate --to").out.split()
        adopted.follow("Another one is at work", {"47721": pid})
        assert "stopped; " in process.stdout.read()
        assert process.wait(60) != 0
    assert are_all_on(machine, "0.0.24")


def test_every_step_of_the_page_was_followed() -> None:
    """By the tests above: each heading with commands stands in one of them."""
    assert PAGE.not_followed(Path(__file__)) == set()
    assert sum(len(steps) for steps in PAGE.sections.values()) == PAGE.commands


def test_each_link_of_the_page_leads_to_a_heading() -> None:
    assert PAGE.dead_links == set()
