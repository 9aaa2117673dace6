"""Which versions are on the disk, who needs each, and that none is removed that somebody can go
back to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from t3_backup.autoupdate import journal
from t3_backup.autoupdate.context import Context
from t3_backup.autoupdate.journal import Journal, Move
from t3_backup.autoupdate.programs.stored_versions import find_need, read_versions, remove_versions
from t3_backup.autoupdate.rollback_plan import find_before
from t3_backup.errors import Failure

OLD, NEW, NEXT = "0.0.24", "0.0.25", "0.0.26"


def move(user: str, before: str, program: str, phase: str = journal.DONE) -> Move:
    return Move(user, before, program, "a-label", phase=phase, kept="state-1")


def bump(*moves: Move, kind: str = "bump") -> Journal:
    return Journal(kind, moves[0].program, "2026-11-27T05:47:50Z", moves)


@pytest.fixture
def told() -> list[str]:
    """What is said to a person."""
    return []


@pytest.fixture
def three(machine: Context, told: list[str]) -> Context:
    """A machine with three versions, on the first of which all are."""
    program = machine.installations.prefix(NEXT) / "bin/t3"
    program.parent.mkdir(parents=True)
    program.write_bytes(b"x" * 5000)
    program.chmod(0o755)
    return replace(machine, say=told.append)


def needed(context: Context) -> dict[str, str]:
    return {one.version: str(one.needed) for one in read_versions(context)}


def test_a_version_is_needed_by_who_is_on_it_and_by_who_was_on_it_before(three: Context) -> None:
    assert needed(three) == {OLD: "the default; alice, bob on it", NEW: "", NEXT: ""}
    three.installations.link_version("alice", NEW)
    three.journals.end(bump(move("alice", OLD, NEW), move("bob", OLD, NEW, journal.REVERTED)))
    three.installations.link_version("bob", NEXT)
    assert needed(three) == {
        OLD: "the default; alice can go back to it",
        NEW: "alice on it",
        NEXT: "bob on it",
    }


def test_only_the_newest_move_of_an_account_is_one_to_go_back_from() -> None:
    history = [
        bump(move("alice", NEW, NEXT)),
        bump(move("alice", OLD, NEW), move("bob", OLD, NEW)),
    ]
    programs = {"alice": NEXT, "bob": NEW}
    assert find_need(OLD, programs, NEXT, history, None).back == ("bob",)
    assert find_need(NEW, programs, NEXT, history, None).back == ("alice",)
    assert find_need(OLD, {"alice": NEXT}, NEXT, history, None).back == (), "bob is no more"


def test_what_a_rollback_came_from_is_kept_for_its_undo() -> None:
    history = [bump(move("alice", NEW, OLD), kind="rollback"), bump(move("alice", OLD, NEW))]
    assert find_need(NEW, {"alice": OLD}, OLD, history, None).back == ("alice",)


def test_what_a_second_undo_would_bring_back_is_kept() -> None:
    back = [
        bump(move("alice", NEW, OLD), kind="rollback"),
        bump(move("alice", NEXT, NEW), kind="rollback"),
    ]
    history = [bump(move("alice", OLD, NEW), kind="undo"), *back]
    for version in (OLD, NEXT):
        assert find_need(version, {"alice": NEW}, None, history, None).back == ("alice",)


def test_what_is_below_the_end_of_a_rollback_is_kept() -> None:
    """Whoever went back one version may go back another."""
    history = [
        bump(move("alice", NEXT, NEW), kind="rollback"),
        bump(move("alice", NEW, NEXT)),
        bump(move("alice", OLD, NEW)),
    ]
    assert find_before(history, "alice", NEW) == OLD
    assert find_need(OLD, {"alice": NEW}, None, history, None).back == ("alice",)


@pytest.mark.parametrize("phase", journal.PHASES)
def test_both_versions_of_a_move_that_has_not_ended_are_needed(phase: str) -> None:
    under_way = bump(move("alice", OLD, NEXT, phase))
    for version, users in ((OLD, ("alice",)), (NEXT, ("alice",)), (NEW, ())):
        assert find_need(version, {}, None, [], under_way).under_way == users


def test_what_nobody_needs_is_removed_with_what_is_known_of_it(
    three: Context, told: list[str]
) -> None:
    three.installations.save_about(replace(three.installations.about(NEXT), origin="npm x"))
    remove_versions(three, [])
    assert three.installations.installed_versions() == [OLD]
    assert sorted(path.name for path in (three.installations.root / "versions").iterdir()) == [OLD]
    assert [line.rpartition(",")[0] for line in told] == [
        f"T3 {NEW} was removed",
        f"T3 {NEXT} was removed",
    ]
    remove_versions(three, [])
    assert told[-1] == "there is no version that nobody needs"


def test_a_version_that_somebody_needs_is_refused_by_who_and_none_is_removed(
    three: Context,
) -> None:
    why = f"T3 {OLD} is needed: the default; alice, bob on it; nothing was removed"
    with pytest.raises(Failure, match=why):
        remove_versions(three, [NEW, OLD])
    with pytest.raises(Failure, match=r"T3 0\.9\.9 is not in "):
        remove_versions(three, [NEW, "0.9.9"])
    assert three.installations.installed_versions() == [OLD, NEW, NEXT]
    remove_versions(three, [NEW])
    assert three.installations.installed_versions() == [OLD, NEXT]


def test_accounts_without_a_link_need_the_default(three: Context) -> None:
    three.user_map.write_text("c@example=carol\n")
    assert needed(three) == {OLD: "the default; alice, bob, carol on it", NEW: "", NEXT: ""}


def test_the_list_tells_size_level_and_where_from(three: Context) -> None:
    three.installations.save_about(
        replace(three.installations.about(NEXT), origin="npm t3@0.0.26", level=32)
    )
    found = read_versions(three)[-1]
    assert found.bytes >= 5000
    assert found.line().startswith(f"{NEXT}: ")
    assert found.line().endswith(
        f"level 32, npm t3@0.0.26; nobody needs it: t3-autoupdate versions --remove {NEXT}"
    )
