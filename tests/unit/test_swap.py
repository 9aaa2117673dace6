"""Whatever an exchange that was interrupted left is completed or undone: a table of all that there may be, on real files.

Row 27. The old state and the new one are told apart by their content; a sidecar goes where its
database goes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from t3_backup.errors import Failure
from t3_backup.system import native
from t3_backup.system.file_identity import FileIdentity
from t3_backup.system.sqlite import SIDECARS
from t3_backup.t3.files import DATABASE_NAME
from t3_backup.worker.child import swap
from t3_backup.worker.child.live_files import LiveFiles
from t3_backup.worker.operations.restore import Swapped

ASIDE = "state.sqlite.replaced-x"
LIVE = DATABASE_NAME
OLD = {LIVE: "old"}
WAL, JOURNAL = f"{LIVE}-wal", f"{LIVE}-journal"
BROKEN = OLD | {WAL: "old wal", JOURNAL: "old journal"}  # what could not be folded
MOVED = {f"{ASIDE}-wal": "old wal", f"{ASIDE}-journal": "old journal"}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[LiveFiles]:
    opened = LiveFiles.open(tmp_path, os.geteuid(), create=True)
    yield opened
    os.close(opened.folder)


def lay(place: LiveFiles, files: dict[str, str]) -> FileIdentity | None:
    """Make these files; the identity of the live one."""
    for name, text in files.items():
        (Path(place.folder_path) / name).write_text(text)
    return place.identity()


def lies(place: LiveFiles) -> dict[str, str]:
    return {path.name: path.read_text() for path in Path(place.folder_path).iterdir()}


def exchanged(place: LiveFiles) -> None:
    native.rename_exchange(place.folder, ASIDE, LIVE)


def installed(place: LiveFiles) -> None:
    native.rename_noreplace(place.folder, ASIDE, LIVE)


def sidecars_moved(place: LiveFiles) -> None:
    swap._move_sidecars(place, LIVE, ASIDE, SIDECARS)


def one_sidecar_moved(place: LiveFiles) -> None:
    native.rename_noreplace(place.folder, WAL, f"{ASIDE}-wal")


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
        OLD, (exchanged, lambda place: place.remove(ASIDE)), "new", {LIVE: "new"}
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


def arrange(place: LiveFiles, case: Case) -> Seen:
    """As it was interrupted; what the intent says of it."""
    old = lay(place, case.before)
    if case.staged:
        lay(place, {ASIDE: "new"})
    seen = Seen(old, place.identity(ASIDE), tuple(place.sidecars()))
    for step in case.got:
        step(place)
    return seen


def heal(place: LiveFiles, seen: Seen, *, begun: bool = True, keep: bool = False) -> Swapped:
    return swap.recover_swap(
        place, ASIDE, seen.old, seen.staged, seen.beside, begun=begun, keep=keep
    )


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_it_is_the_old_state_or_the_new_one_and_again_is_harmless(
    place: LiveFiles, case: Case
) -> None:
    seen = arrange(place, case)
    for _ in range(2):
        assert heal(place, seen, begun=case.begun, keep=case.keep) == Swapped(case.state, False)
        assert lies(place) == case.after


# --- somebody else was there meanwhile


def test_what_came_out_stays_while_somebody_has_it_open_and_the_new_one_stays_in_place(
    place: LiveFiles,
) -> None:
    """Row 9. He would write to a file that is gone; and the new one may have been worked with
    since."""
    seen = arrange(place, CASES["they were exchanged"])
    with (Path(place.folder_path) / ASIDE).open():
        assert heal(place, seen) == Swapped("new", True)
        assert lies(place) == {LIVE: "new", ASIDE: "old"}
    assert heal(place, seen) == Swapped("new", False)
    assert lies(place) == {LIVE: "new"}


def test_what_is_to_be_kept_may_be_read_by_anybody(place: LiveFiles) -> None:
    case = CASES["they were exchanged, and the old one is kept"]
    seen = arrange(place, case)
    with (Path(place.folder_path) / ASIDE).open():
        assert heal(place, seen, keep=True) == Swapped("new", False)
    assert lies(place) == case.after


def test_what_somebody_left_beside_the_staged_one_goes_with_it(place: LiveFiles) -> None:
    """Row 8. It never joins the live one."""
    seen = arrange(place, CASES["it was about to begin"])
    lay(place, {f"{ASIDE}-wal": "a -wal of the staged one"})
    assert heal(place, seen) == Swapped("old", False)
    assert lies(place) == OLD


def test_what_was_beside_it_is_not_moved_back_to_what_was_written_to_without_it(
    place: LiveFiles,
) -> None:
    """Row 8. A server that was started in between has gone on from the main file alone."""
    seen = arrange(place, CASES["all sidecars were moved"])
    lay(place, {LIVE: "old, and written to"})
    before = lies(place)
    with pytest.raises(Failure, match=rf"written to without {ASIDE}-wal, {ASIDE}-journal"):
        heal(place, seen, keep=True)
    assert lies(place) == before


def test_where_the_live_one_is_gone_nothing_else_goes(place: LiveFiles) -> None:
    seen = arrange(place, CASES["it was about to begin"])
    place.remove(LIVE)
    with pytest.raises(
        Failure, match=rf"neither the old nor the restored database; next to it: {ASIDE}:"
    ):
        heal(place, seen)
    assert lies(place) == {ASIDE: "new"}


def third(place: LiveFiles) -> None:
    (Path(place.folder_path) / "third").write_text("third")
    (Path(place.folder_path) / "third").rename(place.path)


def test_where_somebody_put_a_third_one_there_nothing_is_removed(place: LiveFiles) -> None:
    seen = arrange(place, Case(OLD, (), "", {}))
    third(place)
    with pytest.raises(
        Failure, match=rf"neither the old nor the restored database; next to it: {ASIDE}:"
    ):
        heal(place, seen)
    assert lies(place) == {LIVE: "third", ASIDE: "new"}
    place.remove(ASIDE)  # somebody has decided
    assert heal(place, seen) == Swapped("other", False)
    assert lies(place) == {LIVE: "third"}


def test_where_a_server_made_one_of_its_own_it_stays_and_what_was_staged_goes(
    place: LiveFiles,
) -> None:
    seen = arrange(place, Case({}, (), "", {}))
    third(place)
    assert heal(place, seen) == Swapped("other", False)
    assert lies(place) == {LIVE: "third"}
