"""What becomes a delta on what, in a real account folder: nothing goes before what takes its place
gives it back."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from support import account_folders
from support.account_folders import (
    ALL,
    PAGE,
    change_pages,
    clean_up,
    data_path,
    database_image,
    list_snapshots,
    maintenance,
    publish_image,
    publish_images,
    read_image,
    stat_data,
    storage_forms,
)
from support.manifests import make_manifest

from t3_backup.errors import Failure
from t3_backup.history import chain, compaction, delta, page_hashes, retention
from t3_backup.history.compaction import Compaction
from t3_backup.history.delta import Header
from t3_backup.history.page_hashes import PageHashes
from t3_backup.history.retention import Policy
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.faults import SOUND
from t3_backup.store.manifest import Manifest, StoredDatabase
from t3_backup.store.names import DATA, DELTA, PAGES
from t3_backup.system import native


@pytest.fixture
def account_dir(tmp_path: Path) -> Iterator[AccountDir]:
    with account_folders.open_account_dir(tmp_path) as account_dir:
        yield account_dir


def days(account_dir: AccountDir, count: int, pages: int = 40) -> list[bytes]:
    """So many images, one a day, each with two pages more and one changed; oldest first."""
    images = [database_image(pages)]
    publish_image(account_dir, images[0])
    for day in range(1, count):
        images.append(
            change_pages(images[-1], [day % pages], day)
            + account_folders.make_page(1, day)
            + account_folders.make_page(2, day)
        )
        publish_image(account_dir, images[-1])
    return images


def must_hold(account_dir: AccountDir, images: list[bytes]) -> None:
    """The snapshots that are there are those of `images`, oldest first."""
    assert [
        read_image(account_dir, snapshot) for snapshot in reversed(list_snapshots(account_dir))
    ] == images


def test_what_each_hangs_on_is_the_nearest_newer_verified_one() -> None:
    verdicts = ["verified", "verified", "suspect", "verified", "damaged", "verified", "suspect"]
    snapshots = [
        numbered(sequence, verdict=verdict) for sequence, verdict in enumerate(verdicts, 1)
    ]
    to = compaction.choose_bases(snapshots)
    found = {
        snapshot.sequence: to[snapshot.name].sequence
        for snapshot in snapshots
        if snapshot.name in to
    }
    assert found == {1: 2, 2: 4, 3: 4, 4: 6, 5: 6}, (
        "6 is the newest verified one, and 7 came after it"
    )


def test_where_nothing_is_verified_all_stay_plain() -> None:
    assert (
        compaction.choose_bases([numbered(1, verdict="damaged"), numbered(2, verdict="suspect")])
        == {}
    )


def test_nothing_hangs_on_what_is_known_to_fail_and_the_newest_sound_one_stays_plain() -> None:
    """Row 58."""
    images = [numbered(sequence) for sequence in (1, 2, 3, 4)]
    to = compaction.choose_bases(images, {images[3].snapshot.name, images[1].snapshot.name})
    assert {name: base.sequence for name, base in to.items()} == {
        images[0].name: 3,
        images[1].name: 3,
    }


def numbered(sequence: int, **more: Any) -> StoredDatabase:
    """One whose image's SHA-256 is its number, and its name has it, too."""
    keys = {"label": f"s{sequence}", "sha256": str(sequence)} | more
    return make_manifest(sequence, **keys).live_image


def headers(**on: str) -> dict[str, Header | None]:
    """By name: `s1="2"` hangs on the second."""
    return {
        numbered(int(label[1:])).name: Header(delta.FORMAT, PAGE, 0, "", 0, base)
        if base != "plain"
        else None
        for label, base in on.items()
    }


def test_what_hung_on_one_that_goes_hangs_on_the_next() -> None:
    s = {n: numbered(n) for n in range(1, 6)}
    on = headers(s1="2", s2="3", s3="4", s4="5", s5="plain")
    assert compaction.plan_rebases([s[5], s[2], s[1]], [s[4], s[3]], on) == ([(s[2], s[5])], set())
    assert compaction.plan_rebases([s[5], s[4], s[3], s[2]], [s[1]], on) == ([], set())


def test_one_that_nothing_can_stand_in_for_stays() -> None:
    old, base = numbered(1), numbered(2)
    assert compaction.plan_rebases([old], [base], headers(s1="2")) == ([], {base.name})


def test_of_a_base_with_two_names_one_may_go() -> None:
    old, base, same = numbered(1), numbered(2), numbered(3, sha256="2")
    assert compaction.plan_rebases([same, old], [base], headers(s1="2", s3="plain")) == ([], set())


def test_all_but_the_newest_become_deltas_and_all_come_back(account_dir: AccountDir) -> None:
    images = days(account_dir, 8)
    done = maintenance(account_dir, ALL).tidy()
    assert (len(done.compacted), done.warnings, storage_forms(account_dir)) == (7, [], "pddddddd")
    must_hold(account_dir, images)
    assert maintenance(account_dir, ALL).tidy().compacted == []


def test_a_new_one_hangs_the_one_before_on_it_by_hashes_alone(
    account_dir: AccountDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = days(account_dir, 2)
    monkeypatch.delattr(native, "differing_pages")
    read = native.read_pages
    pages = 0

    def counted(
        one: int, other: int, from_other: bytes, numbers: Sequence[int], page_size: int
    ) -> bytearray:
        nonlocal pages
        pages += len(numbers)
        return read(one, other, from_other, numbers, page_size)

    monkeypatch.setattr(native, "read_pages", counted)
    assert maintenance(account_dir, ALL).tidy().compacted
    monkeypatch.undo()
    assert pages == 4 * 3, (
        "of each image the three that differ, and as much again to prove it; 40 are the same"
    )
    must_hold(account_dir, images)


def test_the_hashes_of_the_newest_alone_are_kept(account_dir: AccountDir) -> None:
    days(account_dir, 3)
    maintenance(account_dir, ALL).tidy()
    assert [name for name in os.listdir(account_dir.fd) if name.endswith(PAGES)] == [
        list_snapshots(account_dir)[0].name + PAGES
    ]


@pytest.mark.parametrize("spoil", ["gone", "cut", "of another", "wrong"])
def test_without_right_hashes_pages_are_compared(account_dir: AccountDir, spoil: str) -> None:
    images = days(account_dir, 2)
    newest, older = list_snapshots(account_dir)
    path = account_dir.path / (older.name + PAGES)
    found = page_hashes.read_page_hashes(account_dir, older.live_image)
    assert found is not None
    path.unlink()
    if spoil == "cut":
        path.write_bytes(b"{}\n")
    elif spoil != "gone":
        other = page_hashes.read_page_hashes(account_dir, newest.live_image)
        assert other is not None
        hashes = replace(other, sha256=older.live.sha256 if spoil == "wrong" else "0" * 64)
        with open(path, "wb") as file:
            hashes.write(file.fileno())
    assert maintenance(account_dir, ALL).tidy().compacted == [older.name]
    must_hold(account_dir, images)


def test_a_base_that_the_disk_no_longer_holds_takes_nothing_with_it(
    account_dir: AccountDir,
) -> None:
    """Rot in the newest: whatever could hang on it stays plain, and says so."""
    images = days(account_dir, 2)
    newest, older = list_snapshots(account_dir)
    path = data_path(account_dir, newest)
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(30 * PAGE + 5)
        file.write(b"\xff")
    done = maintenance(account_dir, ALL).tidy()
    assert done.compacted == []
    assert len(done.warnings) == 1
    assert f"{older.name} stays a plain copy: {newest.name} has" in done.warnings[0]
    assert (storage_forms(account_dir), read_image(account_dir, older)) == ("pp", images[0])


def test_what_the_disk_made_of_a_delta_is_looked_at_before_anything_goes(
    account_dir: AccountDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a fault in the packing: what it wrote is a sound delta, of something else."""
    images = days(account_dir, 2)
    write = delta.write_delta

    def wrong(
        fd: int,
        header: Header,
        pages: Any,
        image: delta.ReadPages,
        base: delta.ReadPages,
        check: Callable[[], None],
    ) -> int:
        return write(fd, header, list(pages)[1:], image, base, check)

    monkeypatch.setattr(delta, "write_delta", wrong)
    done = maintenance(account_dir, ALL).tidy()
    assert (done.compacted, storage_forms(account_dir)) == ([], "pp")
    assert "when it is put together, another was sealed" in done.warnings[0]
    must_hold(account_dir, images)


def test_one_that_is_too_different_is_packed_by_itself_and_others_hang_on_it(
    account_dir: AccountDir,
) -> None:
    images = [
        database_image(40, 1),
        change_pages(database_image(40, 1), [3], 9),
        database_image(40, 2),
    ]
    for data in images:
        publish_image(account_dir, data)
    maintenance(account_dir, ALL).tidy()
    assert storage_forms(account_dir) == "pdd"
    _, middle, oldest = list_snapshots(account_dir)
    on = [
        chain.read_header(account_dir, account_dir.read_listing(), snapshot)
        for snapshot in (middle, oldest)
    ]
    assert [header and header.base_sha256 for header in on] == [None, middle.live.sha256]
    must_hold(account_dir, images)


def test_one_that_takes_no_less_room_packed_stays_plain_and_is_left_alone(
    account_dir: AccountDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = Random(1)
    images = [
        account_folders.HEADER + random.randbytes(40 * PAGE - len(account_folders.HEADER))
        for _ in range(2)
    ]
    for data in images:
        publish_image(account_dir, data)
    assert maintenance(account_dir, ALL).tidy().compacted == []
    assert [snapshot.live.stays_plain for snapshot in list_snapshots(account_dir)] == [False, True]
    monkeypatch.delattr(compaction.Compaction, "pack_image")
    assert maintenance(account_dir, ALL).tidy().warnings == []
    must_hold(account_dir, images)


def test_pages_of_another_size_are_not_compared(account_dir: AccountDir) -> None:
    images = [database_image(40, 1), database_image(44, 1)]
    publish_image(account_dir, images[0], page_size=2 * PAGE)
    publish_image(account_dir, images[1])
    maintenance(account_dir, ALL).tidy()
    assert storage_forms(account_dir) == "pd"
    must_hold(account_dir, images)


def test_bad_ones_hang_on_good_ones_and_nothing_on_them(account_dir: AccountDir) -> None:
    images = [database_image(40, 1)]
    publish_image(account_dir, images[0])
    for seed, verdict in enumerate(("damaged", "suspect", "verified", "damaged"), 2):
        images.append(change_pages(images[-1], [seed], seed))
        publish_image(account_dir, images[-1], verdict=verdict)
    maintenance(account_dir, ALL).tidy()
    assert storage_forms(account_dir) == "ppddd"
    good = list_snapshots(account_dir)[1]
    assert [
        chain.read_chain(account_dir, account_dir.read_listing(), snapshot.live_image)[1].snapshot
        for snapshot in list_snapshots(account_dir)[2:]
    ] == [
        good,
        good,
        good,
    ]
    must_hold(account_dir, images)


def sizes_of(account_dir: AccountDir) -> list[int]:
    return [snapshot.live.page_count for snapshot in reversed(list_snapshots(account_dir))]


def test_a_merged_delta_gives_back_what_shrank_and_grew(account_dir: AccountDir) -> None:
    """Row 37. Where the middle one had ended, the newer one has something else, and the older one
    nothing or zeros."""
    first = database_image(60, 1) + bytes(20 * PAGE) + database_image(40, 2)
    images = [
        first,
        first[: 50 * PAGE],
        change_pages(first[: 50 * PAGE], [7], 3) + database_image(50, 4),
    ]
    for data in images:
        publish_image(account_dir, data)
    maintenance(account_dir, ALL).tidy()
    assert (storage_forms(account_dir), sizes_of(account_dir)) == ("pdd", [120, 50, 100])
    done = maintenance(account_dir, WITHOUT_SECOND).tidy()
    assert (len(done.pruned), done.warnings, storage_forms(account_dir)) == (1, [], "pd")
    must_hold(account_dir, [images[0], images[2]])


WITHOUT_SECOND = replace(ALL, yearly=7)  # of those here, the second oldest alone goes by it


@pytest.fixture(autouse=True)
def _second(monkeypatch: pytest.MonkeyPatch) -> None:
    decide = retention.decide_retention

    def chosen(snapshots: Any, policy: Policy, unsound: Any = SOUND) -> Any:
        decisions = decide(snapshots, policy, unsound)
        if policy is WITHOUT_SECOND:
            decisions[-2] = replace(decisions[-2], keep=False)
        return decisions

    monkeypatch.setattr(retention, "decide_retention", chosen)


def test_the_middle_of_a_chain_goes_and_all_others_come_back(account_dir: AccountDir) -> None:
    images = days(account_dir, 9)
    maintenance(account_dir, ALL).tidy()
    while len(images) > 2:
        assert maintenance(account_dir, WITHOUT_SECOND).tidy().warnings == []
        del images[1]
        must_hold(account_dir, images)


def test_where_the_older_one_cannot_be_hung_elsewhere_nothing_goes(
    account_dir: AccountDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = days(account_dir, 4)
    maintenance(account_dir, ALL).tidy()

    def fail(*_: object) -> bool:
        raise Failure("it can't be")

    monkeypatch.setattr(compaction.Compaction, "pack_image", fail)
    done = maintenance(account_dir, WITHOUT_SECOND).tidy()
    assert done.pruned == []
    assert done.warnings == [
        f"alice: the base of {list_snapshots(account_dir)[-1].name} can't be pruned: it can't be"
    ]
    must_hold(account_dir, images)


def test_the_reserve_is_not_written_into(account_dir: AccountDir) -> None:
    images = days(account_dir, 3)
    free = iter([10 << 20, 9 << 20] + [5 << 20] * 100)
    done = maintenance(
        account_dir,
        ALL,
        limits=replace(account_folders.GENEROUS, reserve=6 << 20, free_bytes=lambda: next(free)),
    ).tidy()
    assert done.compacted == []
    assert all("must stay so (T3_BACKUP_RESERVE)" in warning for warning in done.warnings)
    must_hold(account_dir, images)


def test_where_others_have_written_into_the_reserve_room_is_made(account_dir: AccountDir) -> None:
    images = days(account_dir, 3)
    done = maintenance(
        account_dir, ALL, limits=replace(account_folders.GENEROUS, reserve=2 << 40)
    ).tidy()
    assert (len(done.compacted), done.warnings) == (2, [])
    must_hold(account_dir, images)


@pytest.mark.parametrize("size", [0, 1, -4096, 1000, 1 << 20])
def test_a_damaged_one_of_no_page_size_stays_plain(account_dir: AccountDir, size: int) -> None:
    """A worker says what it is, and the worker is its user's."""
    images = [database_image(9), change_pages(database_image(9), [3], 1)]
    publish_image(
        account_dir,
        images[0],
        page_size=size,
        verdict="damaged",
        accepted_at="2026-11-25T12:00:00Z",
    )
    publish_image(account_dir, images[1])
    done = maintenance(account_dir, ALL).tidy()
    assert (done.warnings, storage_forms(account_dir)) == ([], "pp")
    must_hold(account_dir, images)


def test_a_delta_that_cannot_be_read_keeps_what_it_hangs_on_and_stops_nothing_else(
    account_dir: AccountDir,
) -> None:
    images = days(account_dir, 5)
    maintenance(account_dir, ALL).tidy()
    oldest, second = list_snapshots(account_dir)[-1], list_snapshots(account_dir)[-2]
    path = data_path(account_dir, oldest)
    whole = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(b"\0" * len(whole))
    # As one that is held for its pin, so that only those between go.
    account_dir.replace_manifest(replace(oldest, pinned_at="2026-11-25T12:00:00Z"))
    done = maintenance(account_dir, replace(ALL, keep=1)).tidy()
    assert len(done.warnings) == 1
    assert f"{oldest.name} can't be read, so the snapshots it needs are kept" in done.warnings[0]
    assert len(done.pruned) == 2
    assert second.name not in done.pruned
    path.write_bytes(whole)
    must_hold(account_dir, [*images[:2], images[4]])


def test_what_hangs_on_one_without_a_manifest_comes_out_all_the_same(
    account_dir: AccountDir,
) -> None:
    """Of the newest, which is plain, and of one in the middle of the chain."""
    images = days(account_dir, 4)
    maintenance(account_dir, ALL).tidy()
    for place in (0, 2):
        snapshots = list_snapshots(account_dir)
        manifest = account_dir.path / f"{snapshots[place].name}.json"
        manifest.rename(manifest.with_suffix(".away"))
        assert read_image(account_dir, snapshots[3]) == images[0]
        manifest.with_suffix(".away").rename(manifest)


def test_a_manifest_that_cannot_be_read_for_once_costs_nothing(account_dir: AccountDir) -> None:
    """The one that is sealed meanwhile gets a number of its own."""
    images = days(account_dir, 3)
    newest = list_snapshots(account_dir)[0]
    manifest = account_dir.path / f"{newest.name}.json"
    text = manifest.read_bytes()
    manifest.chmod(0o600)
    manifest.write_bytes(b"{")
    images.append(change_pages(images[-1], [7], 7))
    publish_image(account_dir, images[-1], days=9)
    maintenance(account_dir, ALL).tidy()
    manifest.write_bytes(text)
    assert len({snapshot.sequence for snapshot in list_snapshots(account_dir)}) == 4
    for _ in range(2):
        maintenance(account_dir, ALL).tidy()
        must_hold(account_dir, images)


def test_two_with_one_number_lose_nothing(account_dir: AccountDir) -> None:
    """As an older store that was copied into a new one has them."""
    images = days(account_dir, 4)
    for snapshot in list_snapshots(account_dir)[:3]:
        account_dir.replace_manifest(replace(snapshot, sequence=2))
    for _ in range(2):
        maintenance(account_dir, ALL).tidy()
        assert sorted(
            read_image(account_dir, snapshot) for snapshot in list_snapshots(account_dir)
        ) == sorted(images)


def test_a_label_may_end_as_a_file_does(account_dir: AccountDir) -> None:
    images = [
        database_image(9),
        change_pages(database_image(9), [3], 1),
        change_pages(database_image(9), [4], 1),
    ]
    for data, label in zip(images, ("x", "x.delta", "x.sqlite"), strict=True):
        publish_image(account_dir, data, label=label, days=1)
    for _ in range(2):
        must_hold(account_dir, images)
        maintenance(account_dir, ALL).tidy()


def test_what_came_back_is_found_by_its_pages_where_both_are_deltas(
    account_dir: AccountDir,
) -> None:
    """A restore makes A, B, A again: the first hangs on what it is equal to, whatever goes in
    between."""
    images = [
        database_image(40),
        change_pages(database_image(40), [3], 1),
        change_pages(database_image(40), [4], 1),
        database_image(40),
        change_pages(database_image(40), [5], 1),
    ]
    for data in images:
        publish_image(account_dir, data)
    maintenance(account_dir, ALL).tidy()
    assert maintenance(account_dir, WITHOUT_SECOND).tidy().warnings == []
    assert all(
        stat_data(account_dir, snapshot).st_size < 4 * PAGE
        for snapshot in list_snapshots(account_dir)[1:]
    )
    must_hold(account_dir, [images[0], *images[2:]])


def test_an_older_version_takes_no_manifest_of_a_delta_for_a_leftover(
    account_dir: AccountDir,
) -> None:
    """It removes what it can read and finds no plain data of: so it must not be able to read it."""
    days(account_dir, 2)
    older = list_snapshots(account_dir)[1]
    path = account_dir.path / f"{older.name}.json"
    value = json.loads(replace(older, format=2).to_text())
    del value["checksum"]
    path.chmod(0o600)
    path.write_text(json.dumps(value | {"format": 1}))
    assert maintenance(account_dir, ALL).tidy().compacted == [older.name]
    assert json.loads(path.read_text())["format"] == 2


def test_with_compaction_off_all_stay_plain_and_what_is_compacted_is_read(
    account_dir: AccountDir,
) -> None:
    images = days(account_dir, 3)
    assert maintenance(account_dir, ALL, "off").tidy().compacted == []
    maintenance(account_dir, ALL).tidy()
    images.append(change_pages(images[-1], [5], 77))
    publish_image(account_dir, images[-1])
    maintenance(account_dir, WITHOUT_SECOND, "off").tidy()
    assert storage_forms(account_dir) == "ppd"
    must_hold(account_dir, [images[0], *images[2:]])


def test_a_delta_beside_its_plain_data_is_cleared(account_dir: AccountDir) -> None:
    """As a crash leaves them, between the name of the one and the end of the other: the plain one
    counts."""
    images = days(account_dir, 2)
    older = list_snapshots(account_dir)[1]
    maintenance(account_dir, ALL).tidy()
    (account_dir.path / (older.name + DATA)).write_bytes(images[0])
    must_hold(account_dir, images)
    clean_up(account_dir)
    assert not (account_dir.path / (older.name + DELTA)).exists()
    must_hold(account_dir, images)
    assert maintenance(account_dir, ALL).tidy().compacted == [older.name]


def test_a_chain_that_is_broken_says_where(account_dir: AccountDir) -> None:
    images = days(account_dir, 4)
    maintenance(account_dir, ALL).tidy()
    newest, third, second, oldest = list_snapshots(account_dir)
    path = data_path(account_dir, second)
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    for snapshot in (second, oldest):
        with pytest.raises(Failure, match=f"{second.name}.delta: it is not what was written"):
            read_image(account_dir, snapshot)
    assert [read_image(account_dir, newest), read_image(account_dir, third)] == [
        images[3],
        images[2],
    ]
    path.unlink()
    with pytest.raises(
        Failure,
        match=f"{oldest.name} needs a newer snapshot of SHA-256 {second.live.sha256}, which is missing",
    ):
        read_image(account_dir, oldest)


def test_manifests_tell_the_same_before_and_after(account_dir: AccountDir) -> None:
    days(account_dir, 3)
    before = list_snapshots(account_dir)
    maintenance(account_dir, ALL).tidy()
    assert list_snapshots(account_dir) == before


def hashes_of(data: bytes) -> PageHashes:
    return PageHashes("", PAGE, native.hash_pages(data, PAGE))


def test_hashes_tell_the_pages_that_differ_where_sizes_do() -> None:
    one = database_image(10) + bytes(2 * PAGE) + database_image(2, 5)
    other = change_pages(database_image(10), [4], 8)
    assert (
        hashes_of(one).find_changes(hashes_of(other))
        == hashes_of(other).find_changes(hashes_of(one))
        == [4, 12, 13]
    )


def test_what_is_the_same_as_the_newest_takes_no_room_and_later_a_delta_each(
    account_dir: AccountDir,
) -> None:
    """Two names of one image are one file as long as the newest is the same."""
    data = database_image(40)
    first: Manifest = publish_image(account_dir, data, label="one").snapshot
    second: Manifest = publish_image(account_dir, data, label="two").snapshot
    assert stat_data(account_dir, first).st_ino == stat_data(account_dir, second).st_ino
    assert maintenance(account_dir, ALL).tidy().compacted == []
    assert stat_data(account_dir, first).st_ino == stat_data(account_dir, second).st_ino
    newest = change_pages(data, [7], 1)
    publish_image(account_dir, newest)
    assert maintenance(account_dir, ALL).tidy().compacted == [first.name, second.name]
    assert stat_data(account_dir, first).st_size < 1000
    must_hold(account_dir, [data, data, newest])


def test_what_one_without_a_manifest_hangs_on_stays(account_dir: AccountDir) -> None:
    """It counts for nothing, and yet its manifest may come back."""
    images = days(account_dir, 4)
    maintenance(account_dir, ALL).tidy()
    _, _, second, oldest = list_snapshots(account_dir)
    manifest = account_dir.path / f"{oldest.name}.json"
    manifest.rename(manifest.with_suffix(".away"))
    done = maintenance(account_dir, replace(ALL, keep=1, daily=1)).tidy()
    assert second.name not in done.pruned
    assert len(done.pruned) == 1
    manifest.with_suffix(".away").rename(manifest)
    must_hold(account_dir, [*images[:2], images[3]])


def test_of_two_with_one_number_none_hangs_on_the_other() -> None:
    """As a manifest that could not be read for a moment leaves them."""
    one, two, newest, oldest = numbered(2), numbered(2, label="twin"), numbered(3), numbered(1)
    assert compaction.choose_bases([oldest, one, two, newest]) == {
        one.name: newest,
        two.name: newest,
        oldest.name: two,
    }


def test_nothing_hangs_on_what_would_not_be_found_again(account_dir: AccountDir) -> None:
    images = days(account_dir, 2)
    newest, older = list_snapshots(account_dir)
    account_dir.replace_manifest(replace(newest, sequence=older.sequence))
    with pytest.raises(Failure, match="would not be found as the base"):
        Compaction(account_dir, account_dir.read_listing(), lambda: None).pack_image(
            older.live_image, newest.live_image
        )
    assert sorted(
        read_image(account_dir, snapshot) for snapshot in list_snapshots(account_dir)
    ) == sorted(images)


def test_one_that_lost_its_live_image_keeps_what_an_older_one_needs(
    account_dir: AccountDir,
) -> None:
    """It is lost; and once that is accepted, the image of its other database is still a base."""
    v1, v2 = "state.sqlite", "statev2.sqlite"
    old, new = database_image(60), database_image(60, 1)
    publish_images(account_dir, {v1: old, v2: new}, v2)
    publish_images(account_dir, {v1: change_pages(old, [7], 2), v2: change_pages(new, [7], 2)}, v2)
    maintenance(account_dir, ALL).tidy()
    newest, older = list_snapshots(account_dir)
    account_dir.remove_file(newest.live_image.name + DATA)
    account_dir.change_catalog(lambda known: [replace(known[newest.name], state="removed")])
    clean_up(account_dir)
    listing, image = account_dir.read_listing(), older.image_of(v1)
    assert image is not None
    assert listing.data_name(image) == image.name + DELTA
    with chain.build_image(account_dir, listing, image, lambda: None) as built:
        assert built.hash_content().sha256 == image.sha256
    # once nobody needs it, it goes
    account_dir.remove_snapshot(older)
    clean_up(account_dir)
    assert account_dir.read_names() == frozenset()


def test_what_stays_for_one_of_its_databases_keeps_what_its_others_hang_on(
    account_dir: AccountDir,
) -> None:
    """Row 37. The second stays for the first one's old database, and so its own new one must, too,
    though the third goes."""
    v1, v2 = "state.sqlite", "statev2.sqlite"
    old, new = database_image(60), database_image(60, 1)
    images = [{v1: change_pages(old, [9], day), v2: change_pages(new, [9], day)} for day in (1, 2)]
    images += [{v2: change_pages(new, [9], day)} for day in (3, 4)]
    for state in images:
        publish_images(account_dir, state, v2)
        maintenance(account_dir, ALL).tidy()
    first = list_snapshots(account_dir)[-1]
    account_dir.replace_manifest(replace(first, pinned_at="2026-11-24T12:00:00Z"))
    policy = Policy(keep=1, daily=0, weekly=0, monthly=0, yearly=0, labelled=1)
    done = maintenance(account_dir, policy).tidy()
    assert [snapshot.sequence for snapshot in done.listing.snapshots] == [4, 2, 1]
    listing = account_dir.read_listing()
    for image in listing.images:
        with chain.build_image(account_dir, listing, image, lambda: None) as built:
            assert built.hash_content().sha256 == image.sha256, image.name
