"""Three people go from V1 to V2, back, and there again, while they write: nothing is lost anywhere.

One test is one chapter, and goes on from where the one before has ended. All that a server has
taken is in a ledger, which is held against every database and snapshot at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import programs
from support.booted import t3_servers
from support.booted.machine import Result
from support.booted.t3_deployment import Deployment, deploy
from support.booted.t3_servers import USERS, autoupdate, browser, versions
from support.booted.writes import WriteLedger

OLD, NEW = "0.0.42", "0.1.0"
V1, V2 = "state.sqlite", "statev2.sqlite"
LEVELS = {OLD: 52, NEW: 62}
SETTINGS = (
    # of seconds
    "T3_NPM_SPEC=/srv/t3-{version}.tgz\n"
    "T3_AUTOUPDATE_WATCH=1\nT3_AUTOUPDATE_PATIENCE=20\nT3_AUTOUPDATE_SETTLE=0\n"
)


class Story:
    """The machine, and what has been written and told there so far."""

    def __init__(self, deployment: Deployment) -> None:
        self.machine = deployment.machine
        self.ledger = WriteLedger(self.machine, deployment.cookies)

    def autoupdate(self, *words: str, code: int = 0) -> Result:
        """Run the command while everybody writes: the moment has the name of its first words."""
        with self.ledger.all_write(
            "-".join([f"{len(self.ledger.told)}", *words]).replace("--", "")
        ):
            answer = autoupdate(self.machine, *words)
        self.ledger.told.append(answer.text)
        assert answer.code == code, answer
        return answer

    def write(self, moment: str) -> None:
        """Everybody writes for a while."""
        with self.ledger.all_write(moment):
            self.machine.run("sleep", "0.5")

    def assert_on(self, **expected: str) -> None:
        """Each is on that version, with its database, and is logged in."""
        assert versions(self.machine) == expected
        for user, version in expected.items():
            assert t3_servers.running_version(self.machine, user) == version
            found = self.ledger.read_files(user)
            assert found[live(version)]["level"] == LEVELS[version], (user, found.keys())
            assert found[V1]["level"] == LEVELS[OLD], "V1's keeps its level"
            assert browser(self.machine, user, "session", self.ledger.cookies[user]) is True
        assert autoupdate(self.machine, "check").code == 0

    def texts(self, user: str, version: str) -> set[str]:
        """What a user finds there."""
        return set(self.ledger.read_files(user)[live(version)]["texts"])


def live(version: str) -> str:
    return V2 if version == NEW else V1


@pytest.fixture(scope="module")
def story(
    suite: str, deb: Path, autoupdate_deb: Path, grown: Callable[[int], Path]
) -> Iterator[Story]:
    with deploy(suite, deb, autoupdate_deb, grown(8), OLD) as found:
        machine, modules = found.machine, "/usr/lib/python3/dist-packages"
        machine.write("/etc/default/t3-autoupdate", SETTINGS)
        machine.write(f"{modules}/days_later.py", programs.text("days_later.py"))
        machine.write(f"{modules}/days-later.pth", "import days_later\n")
        t3_servers.offer_version(machine, NEW, "not-authenticated", live_only=True)
        assert autoupdate(machine, "adopt").code == 0
        yield Story(found)


def test_one_goes_first_and_is_named_until_the_others_follow(story: Story) -> None:
    story.autoupdate("--to", NEW, "--user", "alice")
    story.assert_on(alice=NEW, bob=OLD, carol=OLD)
    told = autoupdate(story.machine, "status").text
    assert "canary" in told, told
    assert story.machine.run("t3", "--version").out == f"t3 v{OLD}\n"


def test_one_whose_server_breaks_late_is_taken_back_with_all_that_was_said(story: Story) -> None:
    story.machine.write(t3_servers.LIVE, "carol")
    try:
        answer = story.autoupdate("--to", NEW, code=1)
    finally:
        story.machine.run("rm", t3_servers.LIVE)
    assert f"carol: {NEW} failed" in answer.text
    story.autoupdate("thaw")
    story.assert_on(alice=NEW, bob=NEW, carol=OLD)


def test_the_others_follow_to_v2_and_nobody_is_a_canary_then(story: Story) -> None:
    story.autoupdate("--to", NEW)
    story.assert_on(**dict.fromkeys(USERS, NEW))
    assert "canary" not in autoupdate(story.machine, "status").text


def test_days_later_all_go_back_and_what_is_put_aside_is_told(story: Story) -> None:
    for day in (1, 2, 8):
        story.machine.write("/run/days-later", str(day))
        story.write(f"day-{day}")
        story.machine.run("t3-backup-state", "run")
    answer = story.autoupdate("rollback", "--yes")
    for user in USERS:
        assert f"{user}: will be lost:" in answer.text
        assert V2 not in story.ledger.read_files(user), "no later T3 goes on with it"
    story.assert_on(**dict.fromkeys(USERS, OLD))
    story.write("back-on-v1")


def test_a_rollback_of_all_is_undone_with_the_data_of_all_days(story: Story) -> None:
    story.autoupdate("rollback", "--undo", "--yes")
    story.assert_on(**dict.fromkeys(USERS, NEW))
    for user in USERS:
        wanted = {text for day in (1, 2, 8) for text in story.ledger.since(user, f"day-{day}")}
        assert wanted
        assert story.texts(user, NEW) >= wanted


def test_a_stale_database_of_v2_is_told_of_and_is_in_no_later_bumps_way(story: Story) -> None:
    """Bob is back on V1 and calls a newer T3 by hand: what he writes from then on, V2 never sees."""
    machine = story.machine
    story.autoupdate("rollback", "--user", "bob", "--yes")
    newer = f"{t3_servers.AUTOUPDATE_ROOT}/versions/{NEW}/bin/t3"
    words = ("auth", "session", "list", "--base-dir", "/home/bob/.t3")
    machine.run(newer, *words, user="bob")
    story.write("beside-a-stale-one")
    told = autoupdate(machine, "status")
    assert (told.code, f"bob: {OLD}" in told.text, V2 in told.text) == (1, True, True), told
    answer = story.autoupdate("--to", NEW)
    assert any("bob: " in line and f"{V2}." in line for line in answer.text.splitlines()), answer
    story.assert_on(**dict.fromkeys(USERS, NEW))
    assert story.texts("bob", NEW) >= set(story.ledger.since("bob", "beside-a-stale-one")) != set()


def test_no_row_is_lost_anywhere(story: Story, tell: Callable[[str], None]) -> None:
    story.write("last")
    found = story.ledger.assert_nothing_is_lost(V2)
    tell(f"{sum(found.values())} messages: " + ", ".join(f"{n} {w}" for w, n in found.items()))
    assert found["live"]
    assert found["snapshot"]
