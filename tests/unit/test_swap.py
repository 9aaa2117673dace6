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
    return live_files.identity()


def lies(live_files: LiveFiles) -> dict[str, str]:
    return {path.name: path.read_text() for path in Path(live_files.folder_path).iterdir()}


def exchanged(live_files: LiveFiles) -> None:
    native.rename_exchange(live_files.folder, ASIDE, LIVE)


def installed(live_files: LiveFiles) -> None:
    native.rename_noreplace(live_files.folder, ASIDE, LIVE)


def sidecars_moved(live_files: LiveFiles) -> None:
    swap._move_sidecars(live_files, LIVE, ASIDE, SIDECARS)


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
    seen = Seen(old, live_files.identity(ASIDE), tuple(live_files.sidecars()))
    for step in case.got:
        step(live_files)
    return seen


def heal(live_files: LiveFiles, seen: Seen, *, begun: bool = True, keep: bool = False) -> Swapped:
    return swap.recover_swap(
        live_files, ASIDE, seen.old, seen.staged, seen.beside, begun=begun, keep=keep
    )


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_it_is_the_old_state_or_the_new_one_and_again_is_harmless(
    live_files: LiveFiles, case: Case
) -> None:
    seen = arrange(live_files, case)
    for _ in range(2):
        assert heal(live_files, seen, begun=case.begun, keep=case.keep) == Swapped(
            case.state, False
        )
        assert lies(live_files) == case.after


# --- somebody else was there meanwhile


def test_what_came_out_stays_while_somebody_has_it_open_and_the_new_one_stays_in_place(
    live_files: LiveFiles,
) -> None:
    """Row 9. They would write to a file that is gone; and the new one may have been worked with
    since."""
    seen = arrange(live_files, CASES["they were exchanged"])
    with (Path(live_files.folder_path) / ASIDE).open():
        assert heal(live_files, seen) == Swapped("new", True)
        assert lies(live_files) == {LIVE: "new", ASIDE: "old"}
    assert heal(live_files, seen) == Swapped("new", False)
    assert lies(live_files) == {LIVE: "new"}


def test_what_is_to_be_kept_may_be_read_by_anybody(live_files: LiveFiles) -> None:
    case = CASES["they were exchanged, and the old one is kept"]
    seen = arrange(live_files, case)
    with (Path(live_files.folder_path) / ASIDE).open():
        assert heal(live_files, seen, keep=True) == Swapped("new", False)
    assert lies(live_files) == case.after


def test_what_somebody_left_beside_the_staged_one_goes_with_it(live_files: LiveFiles) -> None:
    """Row 8. It never joins the live one."""
    seen = arrange(live_files, CASES["it was about to begin"])
    lay(live_files, {f"{ASIDE}-wal": "a -wal of the staged one"})
    assert heal(live_files, seen) == Swapped("old", False)
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
    (Path(live_files.folder_path) / "third").rename(live_files.path)


def test_where_somebody_put_a_third_one_there_nothing_is_removed(live_files: LiveFiles) -> None:
    seen = arrange(live_files, Case(OLD, (), "", {}))
    third(live_files)
    with pytest.raises(
        Failure, match=rf"neither the old nor the restored database; next to it: {ASIDE}:"
    ):
        heal(live_files, seen)
    assert lies(live_files) == {LIVE: "third", ASIDE: "new"}
    live_files.remove(ASIDE)  # somebody has decided
    assert heal(live_files, seen) == Swapped("other", False)
    assert lies(live_files) == {LIVE: "third"}


def test_where_a_server_made_one_of_its_own_it_stays_and_what_was_staged_goes(
    live_files: LiveFiles,
) -> None:
    seen = arrange(live_files, Case({}, (), "", {}))
    third(live_files)
    assert heal(live_files, seen) == Swapped("other", False)
    assert lies(live_files) == {LIVE: "third"}
