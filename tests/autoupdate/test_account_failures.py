"""One account that can't be moved, or isn't there at all, keeps nobody else from it, and is told.
Real users, a real store, no servers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import fake_t3
import pytest
from support import programs
from support.host import Answer, Host
from support.users import needs_root

from demo.users import User
from t3_backup.autoupdate.journal import DONE, Journal, Journals, Move
from t3_backup.autoupdate.programs.installations import GLOBAL, Installations

pytestmark = needs_root

OLD, NEW = "0.0.24", "0.0.25"
GHOST = "t3-ghost-of-nobody"


@dataclass
class Autoupdate:
    """Both versions are there."""

    host: Host

    @property
    def programs(self) -> Installations:
        return Installations(self.host.folder / "root")

    def call(self, *words: str) -> Answer:
        root = self.programs.root
        more = {
            "T3_AUTOUPDATE_ROOT": str(root),
            "T3_AUTOUPDATE_FREEZE": str(self.host.folder / "freeze"),
            "T3_BIN": f"{root}/bin/t3",
        }
        line = programs.line("autoupdate.py", *words, isolated=False)
        return Answer.of(line, self.host.env(**more))

    def on(self, version: str, *names: str) -> None:
        for name in names:
            self.programs.link_version(name, version)


@pytest.fixture
def ann(make_user: Callable[..., User], host: Host, small: Path) -> User:
    """One with data, whom the map names alone; of a name of their own: other tests may be run at
    the same time."""
    user = make_user("out-ann", small)
    host.write_map(user)
    return user


@pytest.fixture
def autoupdate(host: Host) -> Autoupdate:
    made = Autoupdate(host)
    for version in (OLD, NEW):
        made.programs.prefix(version).mkdir(parents=True)
        fake_t3.unpack(made.programs.prefix(version), version)
    made.programs.write_launcher()
    made.on(NEW, GLOBAL)
    return made


def test_a_rollback_of_all_passes_over_who_cannot_go_back(
    autoupdate: Autoupdate, ann: User, make_user: Callable[..., User]
) -> None:
    """A user who is in the map alone, and one who has no database yet."""
    carol = make_user("out-carol")
    autoupdate.host.write_map(GHOST, carol, ann)
    autoupdate.on(NEW, carol.name, ann.name)
    shown = autoupdate.call("rollback", "--dry-run")
    assert f"WARN: {GHOST}: no such user on this system: nothing is done with this one" in shown.out
    assert f"{carol.name}: from {NEW} back to {OLD}; there is no database yet" in shown.out
    assert (shown.code, autoupdate.programs.linked_version(ann.name)) == (1, NEW)
    done = autoupdate.call("rollback", "--yes")
    assert (done.code, done.err) == (1, ""), done
    assert [
        autoupdate.programs.linked_version(name) for name in (carol.name, ann.name, GLOBAL)
    ] == [
        OLD,
        OLD,
        OLD,
    ]


def test_who_is_not_in_the_map_is_refused_by_their_name(
    autoupdate: Autoupdate, ann: User, make_user: Callable[..., User]
) -> None:
    other = make_user("out-other")
    for command in ("rollback", "check"):
        answer = autoupdate.call(command, "--user", other.name)
        assert (answer.code, answer.out) == (2, "")
        assert answer.err == f"t3-autoupdate: {other.name} is not in {autoupdate.host.map}\n"


def test_whose_database_has_gone_stays_as_before(autoupdate: Autoupdate, ann: User) -> None:
    """Its disk may come back, and with it data that no other program was tried on."""
    assert autoupdate.host.t3("run").code == 0
    ann.database.parent.rename(ann.home / "elsewhere")
    autoupdate.on(OLD, ann.name)
    gone = f"{ann.database} is gone, and there are 1 snapshots of it: bring it back first"
    why = f"{ann.name}: stays on {OLD}: {gone}"
    bumped = autoupdate.call("--to", NEW)
    assert (bumped.code, bumped.err) == (0, "")
    assert f"WARN: {why}" in bumped.out
    assert (
        bumped.out.splitlines()[-1]
        == f"t3-autoupdate: all accounts are on {NEW} or later, except {ann.name}"
    )
    assert autoupdate.programs.linked_version(ann.name) == OLD
    autoupdate.on(NEW, ann.name)
    back = autoupdate.call("rollback", "--yes")
    assert (back.code, "is gone, and there are 1 snapshots of it" in back.err) == (1, True)
    assert autoupdate.programs.linked_version(ann.name) == NEW


def test_an_undo_is_of_whom_it_names_alone(
    autoupdate: Autoupdate, make_user: Callable[..., User]
) -> None:
    users = [make_user(name) for name in ("out-ann", "out-bob")]
    autoupdate.host.write_map(*users)
    autoupdate.on(OLD, *(user.name for user in users))
    moves = tuple(
        Move(user.name, NEW, OLD, f"prerollback-{OLD}", phase=DONE, kept="state-x")
        for user in users
    )
    Journals(autoupdate.programs.root).end(
        Journal("rollback", OLD, "2026-11-27T05:00:00Z", moves, "done", "2026-11-27T05:01:00Z")
    )
    answer = autoupdate.call("rollback", "--undo", "--user", users[1].name, "--dry-run", "--json")
    assert [plan["move"]["user"] for plan in answer.document["plans"]] == [users[1].name]
    assert (
        autoupdate.call("rollback", "--undo", "--dry-run").out.count("again, with the data of") == 2
    )


def test_a_check_fails_where_somebody_of_the_map_is_not_there(
    autoupdate: Autoupdate, ann: User
) -> None:
    autoupdate.host.write_map(ann, GHOST)
    answer = autoupdate.call("check", "--json")
    assert (answer.code, answer.document["accounts"]) == (
        1,
        {
            ann.name: {"paired": None, "reason": f"there is no unit t3-serve@{ann.name}"},
            GHOST: {"paired": False, "reason": f"{GHOST}: no such user on this system"},
        },
    )
    told = autoupdate.call("check").out
    assert f"WARN: {GHOST}: no such user on this system; next: mend {autoupdate.host.map}" in told
    untried = f"{ann.name}: not tried: there is no unit t3-serve@{ann.name}; next: systemctl "
    assert f"t3-autoupdate: {untried}" in told
    named = autoupdate.call("check", "--user", ann.name)
    assert (named.code, named.out.startswith(f"t3-autoupdate: WARN: {untried}")) == (1, True)


def test_a_check_passes_over_who_has_no_server(autoupdate: Autoupdate, ann: User) -> None:
    """Unless they were named: then that is what was asked for."""
    assert autoupdate.call("check").code == 0
    assert autoupdate.call("check", "--user", ann.name).code == 1


def test_a_line_of_the_map_that_makes_no_sense_is_told_once_and_wants_a_look(
    autoupdate: Autoupdate, ann: User
) -> None:
    with autoupdate.host.map.open("a") as file:
        file.write("bob:bob\n")
    for command in (["status"], ["check"], ["--to", NEW]):
        autoupdate.on(NEW, ann.name)
        answer = autoupdate.call(*command)
        assert answer.out.count("'bob:bob'") == 1, answer
        assert answer.code == (1 if command == ["status"] else 0)
    assert "'bob:bob'" in autoupdate.call("status", "--json").document["warnings"][-1]


def test_a_canary_is_named_as_one_until_the_others_follow_or_it_goes_back(
    autoupdate: Autoupdate, ann: User, make_user: Callable[..., User]
) -> None:
    """The timer leaves it where it is, and who is asked for alone is moved alone."""
    bob = make_user("out-bob")
    autoupdate.host.write_map(ann, bob)
    autoupdate.on(OLD, GLOBAL, bob.name)
    autoupdate.on(NEW, ann.name)
    move = Move(ann.name, OLD, NEW, f"prebump-{NEW}", phase=DONE, kept="state-x")
    at = "2026-11-27T05:00:00Z"
    journals = Journals(autoupdate.programs.root)
    journals.end(Journal("bump", NEW, at, (move,), "done", at, canary=True))

    def named() -> list[str]:
        answer = autoupdate.call("status")
        lines = [line for line in answer.out.splitlines() if line.endswith(", canary")]
        accounts = autoupdate.call("status", "--json").document["accounts"]
        assert len(lines) == sum(one["canary"] for one in accounts)
        return [one["user"] for one in accounts if one["canary"]]

    assert named() == [ann.name]
    night = autoupdate.call()
    assert (night.code, f"{ann.name}: stays on {NEW}, as a canary" in night.out) == (0, True)
    again = autoupdate.call("--to", NEW, "--user", ann.name)
    assert (again.code, again.out) == (0, f"t3-autoupdate: {ann.name}: on {NEW} already\n")
    autoupdate.on(OLD, ann.name)
    assert named() == [], "it has gone back"
    autoupdate.on(NEW, ann.name, GLOBAL)
    assert named() == [], "the others have followed"


def test_an_open_bump_of_a_canary_goes_on_alone(autoupdate: Autoupdate, ann: User) -> None:
    autoupdate.on(OLD, GLOBAL, ann.name)
    move = Move(ann.name, OLD, NEW, f"prebump-{NEW}", phase="deferred", reason="an agent runs")
    plan = Journal("bump", NEW, "2026-11-27T05:00:00Z", (move,), canary=True)
    Journals(autoupdate.programs.root).save(plan)
    done = autoupdate.call("--to", NEW, "--user", ann.name)
    assert done.code == 0, done
    assert f"{ann.name}: the canary on {NEW}; next: t3-autoupdate --to {NEW}, for all" in done.out
    linked = autoupdate.programs.linked_version
    assert (linked(ann.name), linked(GLOBAL)) == (NEW, OLD)


def test_an_open_bump_beyond_the_pin_is_no_failure_of_a_night(
    autoupdate: Autoupdate, ann: User
) -> None:
    autoupdate.on(OLD, ann.name)
    move = Move(ann.name, OLD, NEW, f"prebump-{NEW}", phase="deferred", reason="an agent runs")
    Journals(autoupdate.programs.root).save(Journal("bump", NEW, "2026-11-27T05:00:00Z", (move,)))
    night = autoupdate.call()
    assert (night.code, night.err) == (0, "")
    assert (
        f"the bump to {NEW} has not ended (1 deferred): t3-autoupdate drain continues it"
        in night.out
    )
    by_hand = autoupdate.call("--to", "0.0.26")
    assert (
        by_hand.code,
        "t3-autoupdate drain continues it; with --include-busy it does not wait" in by_hand.err,
    ) == (1, True)


@pytest.mark.parametrize("command", ["status", "check"])
def test_an_account_whose_name_is_that_of_a_folder_of_ours_ends_no_look(
    command: str, autoupdate: Autoupdate, ann: User
) -> None:
    """Debian has a user `bin`."""
    autoupdate.on(NEW, ann.name)
    autoupdate.host.write_map("bin", ann)
    answer = autoupdate.call(command)
    assert answer.out.count("an account of this name can't have a program") == 1, answer
    assert ann.name in answer.out, answer
