"""A restore on disks that are full, that lose their power, and that can share what two files have
in common."""

from __future__ import annotations

import os
import random
import re
import select
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.databases import MIB, REAL, make_snapshots
from support.filesystems import disk, fill_disk, make_image, mounted, needs_mkfs
from support.host import Host
from support.live_database import (
    change_database,
    dump_copy,
    dump_database,
    hash_state_files,
    leave_newer_rows_in_a_wal,
    leave_unreadable_wal,
)
from support.sampling import amount
from support.users import needs_root

from demo.users import User

pytestmark = needs_root


@contextmanager
def at_home_on(where: Path, user: User) -> Iterator[None]:
    """The user's `.t3` lies on another disk: what is mounted there is no symlink."""
    place = user.home / ".t3"
    moved = where / "t3"
    shutil.copytree(place, moved)
    for path in (moved, *moved.rglob("*")):
        user.give(path)
    subprocess.run(["mount", "--bind", moved, place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@pytest.fixture
def rex(host: Host, make_user: Callable[..., User]) -> User:
    user = make_user("flt-max", REAL)
    host.write_map(user)
    return user


def test_where_the_file_system_can_share_extents_nothing_is_copied(
    host: Host, make_user: Callable[..., User], small: Path, tell: Callable[[str], None]
) -> None:
    """Home and store on one xfs: the restored file is a clone of the snapshot, and the safety
    snapshot one of the old state."""
    with disk(host.folder, "xfs", 400 * MIB) as where:
        user = make_user("flt-kim", small)
        there = Host(where, host.environ | {"T3_BACKUP_MAP": str(host.map)})
        host.write_map(user)
        with at_home_on(where, user):
            make_snapshots(there, user, 1)
            change_database(user)
            old = blocks(user.database)
            answer = there.t3("restore", user.name, "--yes")
            assert answer.code == 0, answer
            [snapshot, kept] = sorted(
                there.snapshots(user), key=lambda path: "prerestore" in path.name
            )
            assert len(blocks(user.database) & blocks(snapshot)) == snapshot.stat().st_size // 4096
            # All but the first page, which says in one of the two that there is a -wal.
            assert len(blocks(kept) & old) >= len(old) - 1
            change_database(
                user, "CREATE TABLE later (x)"
            )  # what one writes the other does not see
            assert there.t3("verify").code == 0
    tell(f"xfs: {len(old)} blocks of the old state and all of the snapshot are shared, not copied")


def assert_as_before(user: User, before: dict[str, str]) -> None:
    """Who compares the live database with a snapshot may leave an empty -wal, as a backup may."""
    after = hash_state_files(user)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) <= {"state.sqlite-wal"}
    assert not any(path.stat().st_size for path in user.database.parent.glob("*-wal"))


def blocks(path: Path) -> set[int]:
    """The blocks of the disk that a file lies in (filefrag(8))."""
    subprocess.run(["sync", "-f", path], check=True)
    out = subprocess.run(
        ["filefrag", "-v", path], check=True, capture_output=True, text=True
    ).stdout
    extents = re.findall(r"^ *\d+: *\d+\.\. *\d+: *(\d+)\.\. *(\d+):", out, re.MULTILINE)
    return {block for first, last in extents for block in range(int(first), int(last) + 1)}


def test_without_room_nothing_is_changed(host: Host, rex: User) -> None:
    """Row 19. In the home, for what is staged."""
    make_snapshots(host, rex, 1)
    change_database(rex, "CREATE TABLE later (x)")
    with disk(host.folder, "ext4", 16 * MIB) as where, at_home_on(where, rex):
        before = hash_state_files(rex)
        filler = fill_disk(where)
        answer = host.t3("restore", rex.name, "--yes")
        assert_as_before(rex, before)
        filler.unlink()
        assert host.t3("restore", rex.name, "--yes").code == 0
    assert answer.code == 1, answer
    assert "No space left" in answer.err or "no room" in answer.err, answer
    assert "next: make room on the disk of the home" in answer.err
    assert [path.name for path in host.store.glob("*restore*")] == []


@pytest.mark.parametrize(
    "leave", [leave_newer_rows_in_a_wal, leave_unreadable_wal], ids=["wal", "unreadable"]
)
@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_after_a_power_cut_it_is_the_old_state_or_the_new_one(
    host: Host, rex: User, kind: str, leave: Callable[[User], None], tell: Callable[[str], None]
) -> None:
    """Row 28: home and store on one disk, frozen at a random moment of a restore, mounted again;
    then the next command heals."""
    needs_mkfs(kind)
    chance = random.Random(28)
    make_snapshots(host, rex, 1)
    new = dump_database(host.snapshots(rex)[0])
    change_database(rex, "CREATE TABLE later (x)")
    leave(rex)
    old = dump_copy(rex, host.folder / "work")
    files = hash_state_files(rex)
    found = {"old": 0, "new": 0}
    cuts = amount(8, 3)
    with disk(host.folder, "xfs", 1024 * MIB) as below:
        image = below / "image"
        make_image(image, kind, 24 * MIB)
        with mounted(image, host.folder / "disk-live", "-o", "loop") as live:
            shutil.copytree(host.store, live / "store", copy_function=shutil.copy)
            (live / "store").chmod(0o700)
            for path in (live / "store").rglob("*"):
                path.chmod(0o700 if path.is_dir() else 0o400)
            there = Host(live, host.environ | {"T3_BACKUP_MAP": str(host.map)})
            subprocess.run(["cp", "-a", rex.home / ".t3", live / "fresh"], check=True)
            subprocess.run(["cp", "-a", live / "store", live / "fresh-store"], check=True)
            (live / "t3").mkdir()
            for n in range(cuts):
                with bound(live / "t3", rex):
                    for name, place in (("fresh", live / "t3"), ("fresh-store", live / "store")):
                        refill(live / name, place)
                    subprocess.run(["sync", "-f", live], check=True)
                    process = there.start("restore", rex.name, "--yes")
                    pidfd = os.pidfd_open(process.pid)
                    select.select([pidfd], [], [], chance.uniform(0.15, 0.75))
                    os.close(pidfd)
                    subprocess.run(
                        ["cp", "--reflink=always", image, below / f"frozen-{n}"], check=True
                    )
                    process.communicate()
        for n in range(cuts):
            options = "loop,nouuid" if kind == "xfs" else "loop"
            with (
                mounted(below / f"frozen-{n}", host.folder / "disk-after", "-o", options) as after,
                bound(after / "t3", rex),
            ):
                again = Host(after, there.environ)
                answer = again.t3("accept", rex.name)
                assert answer.code == 0, f"cut {n}: {answer}"
                now = dump_copy(rex, host.folder / "work")
                assert now in (old, new), f"cut {n}: neither old nor new"
                found["new" if now == new else "old"] += 1
                if now == old and leave is leave_unreadable_wal:
                    assert hash_state_files(rex) == files, f"cut {n}"
                assert again.t3("verify", rex.name).code == 0
            (below / f"frozen-{n}").unlink()
    tell(f"{kind}, {leave.__name__}: {sum(found.values())} power cuts of a restore: {found}")


@contextmanager
def bound(where: Path, user: User) -> Iterator[None]:
    """The same, for what lies there already."""
    subprocess.run(["mount", "--bind", where, user.home / ".t3"], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", user.home / ".t3"], check=True)


def refill(source: Path, place: Path) -> None:
    """Make the content of a folder that of another, with owners and modes."""
    for path in place.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    subprocess.run(["cp", "-a", f"{source}/.", place], check=True)
