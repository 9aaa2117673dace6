"""Whatever an exchange that was interrupted left is completed or undone: a table of all that there may be, on real files.

Row 27. The old state and the new one are told apart by their content; a sidecar goes where its
database goes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.filesystems import immutable

from t3_backup.errors import Failure, InUse
from t3_backup.store.replacement import Replacement
from t3_backup.system import native
from t3_backup.system.file_identity import FileIdentity
from t3_backup.system.sqlite import SIDECARS
from t3_backup.t3.databases import SUCCESSOR
from t3_backup.t3.files import DATABASE_NAME
from t3_backup.worker.child import swap, swap_recovery
from t3_backup.worker.child.live_files import LiveFiles
from t3_backup.worker.operations.restore import Swapped

ENDING = ".replaced-x"
LIVE, V2 = DATABASE_NAME, SUCCESSOR
ASIDE, V2_ASIDE = LIVE + ENDING, V2 + ENDING
OLD = {LIVE: "old"}
WAL, JOURNAL = f"{LIVE}-wal", f"{LIVE}-journal"
BROKEN = OLD | {WAL: "old wal", JOURNAL: "old journal"}  # what could not be checkpointed
MOVED = {f"{ASIDE}-wal": "old wal", f"{ASIDE}-journal": "old journal"}


@pytest.fixture
def live_files(tmp_path: Path) -> Iterator[LiveFiles]:
    opened = LiveFiles.open(tmp_path, os.geteuid(), create=True)
    yield opened
    os.close(opened.folder)


def lay(live_files: LiveFiles, files: dict[str, str]) -> FileIdentity | None:
    """Make these files; the identity of the live one."""
    for name, text in files.items():
        (Path(live_files.folder_path) / name).write_text(text)
    return live_files.identity(LIVE)


def lies(live_files: LiveFiles) -> dict[str, str]:
    return {path.name: path.read_text() for path in Path(live_files.folder_path).iterdir()}


def exchanged(live_files: LiveFiles) -> None:
    native.rename_exchange(live_files.folder, ASIDE, LIVE)


def installed(live_files: LiveFiles) -> None:
    native.rename_noreplace(live_files.folder, ASIDE, LIVE)


def sidecars_moved(live_files: LiveFiles) -> None:
    swap.move_sidecars(live_files, LIVE, ASIDE, SIDECARS)


def one_sidecar_moved(live_files: LiveFiles) -> None:
    native.rename_noreplace(live_files.folder, WAL, f"{ASIDE}-wal")


def nothing(_: LiveFiles) -> None:
    """It got no further."""


@dataclass(frozen=True)
class Case:
    """What lay there, how far it got, and what must lie there once it is healed."""

    before: dict[str, str]
    got: tuple[Callable[[LiveFiles], None], ...]
    state: str
    after: dict[str, str]
    staged: bool = True
    begun: bool = True
    keep: bool = False


CASES = {
    "nothing was staged": Case(OLD, (), "old", OLD, staged=False, begun=False),
    "it was staged": Case(OLD, (), "old", OLD, begun=False),
    "it was staged beside what is broken": Case(BROKEN, (), "old", BROKEN, begun=False),
    "it was staged where nothing is": Case({}, (), "old", {}, begun=False),
    "it was about to begin": Case(OLD, (nothing,), "old", OLD),
    "it was about to begin, and is to be kept": Case(BROKEN, (nothing,), "old", BROKEN, keep=True),
    "one sidecar was moved": Case(BROKEN, (one_sidecar_moved,), "old", BROKEN, keep=True),
    "all sidecars were moved": Case(BROKEN, (sidecars_moved,), "old", BROKEN, keep=True),
    "they were exchanged": Case(OLD, (exchanged,), "new", {LIVE: "new"}),
    "they were exchanged, and the old one is kept": Case(
        BROKEN, (sidecars_moved, exchanged), "new", {LIVE: "new", ASIDE: "old"} | MOVED, keep=True
    ),
    "the old one was removed": Case(
        OLD, (exchanged, lambda live_files: live_files.remove(ASIDE)), "new", {LIVE: "new"}
    ),
    "nothing was there, and it was about to begin": Case({}, (nothing,), "old", {}),
    "nothing was there, and it was installed": Case({}, (installed,), "new", {LIVE: "new"}),
    "only a -wal was there, and it was about to begin": Case(
        {WAL: "w"}, (nothing,), "old", {WAL: "w"}
    ),
    "only a -wal was there, and it was moved": Case(
        {WAL: "w"}, (sidecars_moved,), "old", {WAL: "w"}
    ),
    "only a -wal was there, and it was installed": Case(
        {WAL: "w"}, (sidecars_moved, installed), "new", {LIVE: "new", f"{ASIDE}-wal": "w"}
    ),
}


@dataclass(frozen=True)
class Seen:
    """What the intent says: the live database before, what was staged, and what was beside."""

    old: FileIdentity | None
    staged: FileIdentity | None
    beside: tuple[str, ...]


def arrange(live_files: LiveFiles, case: Case) -> Seen:
    """As it was interrupted; what the intent says of it."""
    old = lay(live_files, case.before)
    if case.staged:
        lay(live_files, {ASIDE: "new"})
    seen = Seen(old, live_files.identity(ASIDE), tuple(live_files.sidecars(LIVE)))
    for step in case.got:
        step(live_files)
    return seen


def heal(live_files: LiveFiles, seen: Seen, *, begun: bool = True, keep: bool = False) -> Swapped:
    one = Replacement(LIVE, seen.old, seen.staged, seen.beside, keep)
    return swap_recovery.recover_swap(live_files, ENDING, [one], begun=begun)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_it_is_the_old_state_or_the_new_one_and_again_is_harmless(
    live_files: LiveFiles, case: Case
) -> None:
    seen = arrange(live_files, case)
    for _ in range(2):
        assert heal(live_files, seen, begun=case.begun, keep=case.keep) == Swapped(case.state)
        assert lies(live_files) == case.after


# --- somebody else was there meanwhile


def test_what_came_out_stays_while_somebody_has_it_open_and_the_new_one_stays_in_place(
    live_files: LiveFiles,
) -> None:
    """Row 9. They would write to a file that is gone; and the new one may have been worked with
    since."""
    seen = arrange(live_files, CASES["they were exchanged"])
    with (Path(live_files.folder_path) / ASIDE).open():
        assert heal(live_files, seen) == Swapped("new", held=(LIVE,))
        assert lies(live_files) == {LIVE: "new", ASIDE: "old"}
    assert heal(live_files, seen) == Swapped("new")
    assert lies(live_files) == {LIVE: "new"}


def test_what_is_to_be_kept_may_be_read_by_anybody(live_files: LiveFiles) -> None:
    case = CASES["they were exchanged, and the old one is kept"]
    seen = arrange(live_files, case)
    with (Path(live_files.folder_path) / ASIDE).open():
        assert heal(live_files, seen, keep=True) == Swapped("new")
    assert lies(live_files) == case.after


def test_what_somebody_left_beside_the_staged_one_goes_with_it(live_files: LiveFiles) -> None:
    """Row 8. It never joins the live one."""
    seen = arrange(live_files, CASES["it was about to begin"])
    lay(live_files, {f"{ASIDE}-wal": "a -wal of the staged one"})
    assert heal(live_files, seen) == Swapped("old")
    assert lies(live_files) == OLD


def test_what_was_beside_it_is_not_moved_back_to_what_was_written_to_without_it(
    live_files: LiveFiles,
) -> None:
    """Row 8. A server that was started in between has gone on from the main file alone."""
    seen = arrange(live_files, CASES["all sidecars were moved"])
    lay(live_files, {LIVE: "old, and written to"})
    before = lies(live_files)
    with pytest.raises(Failure, match=rf"written to without {ASIDE}-wal, {ASIDE}-journal"):
        heal(live_files, seen, keep=True)
    assert lies(live_files) == before


def test_what_was_staged_and_cannot_be_removed_keeps_no_server_down(
    live_files: LiveFiles,
) -> None:
    """Row 48. The old state is in place, whole."""
    seen = arrange(live_files, CASES["it was about to begin"])
    with immutable(Path(live_files.folder_path) / ASIDE):
        found = heal(live_files, seen)
    assert (found.state, lies(live_files)) == ("old", OLD | {ASIDE: "new"})
    assert found.stuck[0].endswith(f"next: rm -f {live_files.folder_path}/{ASIDE}")


def test_what_came_out_and_cannot_be_removed_ends_nothing(live_files: LiveFiles) -> None:
    """Row 48."""
    seen = arrange(live_files, CASES["they were exchanged"])
    with immutable(Path(live_files.folder_path) / ASIDE):
        found = heal(live_files, seen)
    assert (found.state, found.changed) == ("new", (LIVE,))
    assert "could not be removed" in found.stuck[0]
    assert lies(live_files) == {LIVE: "new", ASIDE: "old"}


def test_what_came_out_and_has_a_second_name_stays(live_files: LiveFiles) -> None:
    """Somebody may work with it by that."""
    seen = arrange(live_files, CASES["they were exchanged"])
    folder = Path(live_files.folder_path)
    os.link(folder / ASIDE, folder / "second")
    assert heal(live_files, seen) == Swapped("new", changed=(LIVE,))
    assert (folder / ASIDE).read_text() == "old"


def test_where_the_live_one_is_gone_nothing_else_goes(live_files: LiveFiles) -> None:
    seen = arrange(live_files, CASES["it was about to begin"])
    live_files.remove(LIVE)
    with pytest.raises(
        Failure, match=rf"neither the old nor the restored database; next to it: {ASIDE}:"
    ):
        heal(live_files, seen)
    assert lies(live_files) == {ASIDE: "new"}


def third(live_files: LiveFiles) -> None:
    (Path(live_files.folder_path) / "third").write_text("third")
    (Path(live_files.folder_path) / "third").rename(live_files.path_of(LIVE))


def test_where_somebody_put_a_third_one_there_nothing_is_removed(live_files: LiveFiles) -> None:
    seen = arrange(live_files, Case(OLD, (), "", {}))
    third(live_files)
    with pytest.raises(
        Failure, match=rf"neither the old nor the restored database; next to it: {ASIDE}:"
    ):
        heal(live_files, seen)
    assert lies(live_files) == {LIVE: "third", ASIDE: "new"}
    live_files.remove(ASIDE)  # somebody has decided
    assert heal(live_files, seen) == Swapped("other")
    assert lies(live_files) == {LIVE: "third"}


def test_where_a_server_made_one_of_its_own_it_stays_and_what_was_staged_goes(
    live_files: LiveFiles,
) -> None:
    seen = arrange(live_files, Case({}, (), "", {}))
    third(live_files)
    assert heal(live_files, seen) == Swapped("other")
    assert lies(live_files) == {LIVE: "third"}


# --- several databases

THIRD = "third.sqlite"
BOTH = {V2: "old v2", LIVE: "old", THIRD: "old third"}
NEW = {V2: "new v2", LIVE: "new"}


def plan(live_files: LiveFiles, *, keep: tuple[str, ...] = ()) -> list[Replacement]:
    """All three lie there; two are staged, and the third is to go aside."""
    lay(live_files, BOTH | {V2_ASIDE: "new v2", ASIDE: "new"})
    return [
        Replacement(
            name,
            live_files.identity(name),
            live_files.identity(name + ENDING),
            keep=name in keep,
        )
        for name in (V2, LIVE, THIRD)
    ]


def steps(databases: list[Replacement]) -> list[tuple[Replacement, ...]]:
    """What may have been done by the time that it was interrupted: nothing, to all of it."""
    return [tuple(databases[:count]) for count in range(len(databases) + 1)]


@pytest.mark.parametrize("count", range(4))
@pytest.mark.parametrize("keep", [(), (THIRD,), (V2, THIRD)], ids=lambda kept: f"{len(kept)} kept")
def test_of_several_all_are_old_or_all_are_new(
    live_files: LiveFiles, count: int, keep: tuple[str, ...]
) -> None:
    databases = plan(live_files, keep=keep)
    for one in steps(databases)[count]:
        swap.exchange(live_files, ENDING, one)
    aside = {name + ENDING: BOTH[name] for name in keep}
    for _ in range(2):
        state = swap_recovery.recover_swap(live_files, ENDING, databases, begun=True).state
        assert state == ("new" if count else "old")
        assert lies(live_files) == (NEW | aside if count else BOTH)


def test_what_was_staged_of_several_goes_where_it_was_not_begun(live_files: LiveFiles) -> None:
    databases = [Replacement(name, None, None) for name in (V2, LIVE)]
    plan(live_files)
    assert swap_recovery.recover_swap(live_files, ENDING, databases, begun=False) == Swapped("old")
    assert lies(live_files) == BOTH


def test_one_that_was_written_to_before_the_rest_was_exchanged_stays_aside_with_its_wal(
    live_files: LiveFiles,
) -> None:
    """What a person did with the old one meanwhile is in no snapshot."""
    databases = plan(live_files)
    swap.exchange(live_files, ENDING, databases[0])
    lay(live_files, {LIVE: "old, and more", f"{LIVE}-wal": "of it"})
    assert swap_recovery.recover_swap(live_files, ENDING, databases, begun=True) == Swapped(
        "new", changed=(LIVE,)
    )
    assert lies(live_files) == NEW | {ASIDE: "old, and more", f"{ASIDE}-wal": "of it"}


def test_one_that_is_open_is_never_taken_out_of_its_place(live_files: LiveFiles) -> None:
    """Who has it open would write its -wal beside the new one: it is tried again."""
    databases = plan(live_files)
    swap.exchange(live_files, ENDING, databases[0])
    before = lies(live_files)
    with Path(live_files.path_of(LIVE)).open(), pytest.raises(InUse, match="open in another"):
        swap_recovery.recover_swap(live_files, ENDING, databases, begun=True)
    assert lies(live_files) == before
    assert swap_recovery.recover_swap(live_files, ENDING, databases, begun=True) == Swapped("new")
    assert lies(live_files) == NEW


def test_where_one_of_several_is_another_nothing_is_removed_until_a_person_has_decided(
    live_files: LiveFiles,
) -> None:
    databases = plan(live_files)
    swap.exchange(live_files, ENDING, databases[0])
    third(live_files)
    before = lies(live_files)
    with pytest.raises(Failure, match=rf"next to it: {ASIDE}:"):
        swap_recovery.recover_swap(live_files, ENDING, databases, begun=True)
    assert lies(live_files) == before
    live_files.remove(ASIDE)
    assert swap_recovery.recover_swap(live_files, ENDING, databases, begun=True) == Swapped("new")
    assert lies(live_files) == {V2: "new v2", LIVE: "third"}


class Broken:
    """Breaks the lease on one file, as who opens it does, when the exchange of another begins."""

    def __init__(self, live_files: LiveFiles, opened: str, at: str) -> None:
        self.path, self.at = live_files.path_of(opened), at
        self.calls: list[str] = []

    def __call__(self, place: LiveFiles, ending: str, one: Replacement) -> None:
        exchange(place, ending, one)
        self.calls.append(one.file)
        if one.file == self.at:
            with contextlib.suppress(BlockingIOError):
                os.open(self.path, os.O_RDWR | os.O_NONBLOCK)


exchange = swap.exchange


@pytest.fixture
def sound(monkeypatch: pytest.MonkeyPatch) -> None:
    """The files here hold texts: none is read as a database."""
    monkeypatch.setattr(swap, "read_census", lambda *_: None)


@pytest.mark.parametrize("at", [V2, LIVE, THIRD])
@pytest.mark.parametrize("opened", [V2 + ENDING, LIVE, THIRD])
def test_who_opens_an_old_one_at_any_time_has_all_put_back(
    live_files: LiveFiles, monkeypatch: pytest.MonkeyPatch, sound: None, opened: str, at: str
) -> None:
    """By the name that it has by then."""
    databases = plan(live_files)
    order = [V2, LIVE, THIRD]
    gone = opened in order and order.index(opened) <= order.index(at)
    broken = Broken(live_files, opened + ENDING if gone else opened, at)
    monkeypatch.setattr(swap, "exchange", broken)
    with pytest.raises(InUse, match="was opened by another process in between"):
        swap.swap_databases(live_files, ENDING, databases)
    assert lies(live_files) == BOTH | {V2_ASIDE: "new v2", ASIDE: "new"}
    assert broken.calls == order[: order.index(at) + 1], "none is exchanged after that"


@pytest.mark.parametrize("at", [V2, LIVE])
def test_who_opens_a_new_one_keeps_it_and_finds_no_old_one_beside_it(
    live_files: LiveFiles, monkeypatch: pytest.MonkeyPatch, sound: None, at: str
) -> None:
    databases = plan(live_files)

    calls = []

    def counted(place: LiveFiles, ending: str, one: Replacement) -> None:
        exchange(place, ending, one)
        calls.append(one.file)
        if one.file == at:
            for name in (at, at + ENDING):
                with contextlib.suppress(BlockingIOError):
                    os.open(live_files.path_of(name), os.O_RDWR | os.O_NONBLOCK)

    monkeypatch.setattr(swap, "exchange", counted)
    with pytest.raises(InUse):
        swap.swap_databases(live_files, ENDING, databases)
    assert calls == [V2, LIVE, THIRD]
    assert lies(live_files) == NEW | {name + ENDING: text for name, text in BOTH.items()}


def test_several_change_places_and_what_nothing_takes_the_place_of_goes_aside(
    live_files: LiveFiles, sound: None
) -> None:
    assert swap.swap_databases(live_files, ENDING, plan(live_files)) == Swapped("new")
    assert lies(live_files) == NEW | {name + ENDING: text for name, text in BOTH.items()}


@pytest.mark.parametrize("name", [V2, LIVE, THIRD, V2_ASIDE, ASIDE])
def test_while_one_of_them_is_open_nothing_is_changed(
    live_files: LiveFiles, sound: None, name: str
) -> None:
    databases = plan(live_files)
    before = lies(live_files)
    with (
        Path(live_files.path_of(name)).open(),
        pytest.raises(InUse, match=f"{name} is open in another process"),
    ):
        swap.swap_databases(live_files, ENDING, databases)
    assert lies(live_files) == before
