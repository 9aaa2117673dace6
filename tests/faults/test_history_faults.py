"""Rows 19, 27, 28 and 37: compaction, merging and pruning may be killed at any call, and any call of theirs may fail.

Every snapshot that was sealed comes out as it was, whatever the moment; the next run clears up, and
comes to the same end as if nothing had been. A step runs in a process of its own, which strace
holds on to from its first call on; nothing of it needs an account.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from support.account_folders import (
    ALL,
    change_pages,
    clean_up,
    data_path,
    database_image,
    list_snapshots,
    maintenance,
    make_page,
    open_account_dir,
    publish_image,
    read_image,
    storage_forms,
)
from support.databases import MIB
from support.fault_injection import needs_strace
from support.filesystems import disk, make_image, mounted, needs_mkfs
from support.processes import BOUND_S, until
from support.sampling import amount, sample
from support.users import needs_root

from t3_backup.errors import Failure
from t3_backup.history.maintenance import DELTA, REFLINK
from t3_backup.history.retention import Policy
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.leftovers import check_catalog
from t3_backup.store.store import Store
from t3_backup.system.disk import used_bytes

pytestmark = [needs_root, needs_strace]

# What may fail: the calls by which files are read, written and named.
FALLIBLE = {
    "openat": ("EIO", "ENOSPC"),
    "linkat": ("EIO", "ENOSPC"),
    "rename": ("EIO", "ENOSPC"),
    "renameat": ("EIO", "ENOSPC"),
    "renameat2": ("EIO", "ENOSPC"),
    "unlinkat": ("EIO",),
    "write": ("EIO", "ENOSPC"),
    "pwrite64": ("EIO", "ENOSPC"),
    "pread64": ("EIO",),
    "preadv": ("EIO",),
    "read": ("EIO",),
    "fsync": ("EIO", "ENOSPC"),
    "ftruncate": ("EIO", "ENOSPC"),
    "copy_file_range": ("EIO", "ENOSPC"),
    "ioctl": ("EIO", "ENOSPC"),
    "getdents64": ("EIO",),
    "newfstatat": ("EIO",),
    "fcntl": ("EIO",),
}
ROUNDS = 8


@dataclass(frozen=True)
class Scenario:
    """An account folder as it is before a step, and the step."""

    name: str
    prepare: Callable[[AccountDir], list[bytes]]  # the images on it afterwards, oldest first
    step: Callable[[AccountDir], object]
    left: Callable[[list[bytes]], list[bytes]]  # the images that are there after the step
    after: str  # the forms after it, newest first


def _days(account_dir: AccountDir, count: int) -> list[bytes]:
    images = [database_image(12)]
    publish_image(account_dir, images[0])
    for day in range(1, count):
        images.append(change_pages(images[-1], [day % 12], day) + make_page(1, day))
        publish_image(account_dir, images[-1])
    return images


def _compacted(account_dir: AccountDir, count: int) -> list[bytes]:
    images = _days(account_dir, count)
    maintenance(account_dir, ALL).tidy()
    return images


def _with_an_end(account_dir: AccountDir) -> list[bytes]:
    """Sizes shrink and grow along it; the second and the third oldest are to go."""
    first = database_image(20, 1) + bytes(5 * 4096) + database_image(9, 2)
    images = [
        first,
        first[: 15 * 4096],
        first[: 12 * 4096] + database_image(4, 3),
        first[: 14 * 4096] + database_image(14, 4),
    ]
    publish_image(account_dir, images[0], label="old")
    for data in images[1:]:
        publish_image(account_dir, data)
    maintenance(account_dir, ALL).tidy()
    return images


NEWEST_AND_LABELLED = replace(ALL, keep=1)


def _policy(policy: Policy, mode: str = DELTA) -> Callable[[AccountDir], object]:
    return lambda account_dir: maintenance(account_dir, policy, mode).tidy()


def _again(account_dir: AccountDir) -> None:
    """The second day's image, under a label, if it isn't there."""
    if not any(snapshot.label == "again" for snapshot in list_snapshots(account_dir)):
        publish_image(
            account_dir, change_pages(database_image(12), [1], 1) + make_page(1, 1), label="again"
        )


def _named_twice(account_dir: AccountDir) -> list[bytes]:
    """One image by two names, and a newer one, by which both are to be deltas."""
    data = database_image(12)
    for label in ("one", "two"):
        publish_image(account_dir, data, label=label)
    newer = change_pages(data, [3], 1)
    publish_image(account_dir, newer)
    return [data, data, newer]


SCENARIOS = [
    Scenario(
        "compaction",
        lambda account_dir: _days(account_dir, 3),
        _policy(ALL),
        lambda images: images,
        "pdd",
    ),
    Scenario(
        "a merge and a pruning",
        _with_an_end,
        _policy(NEWEST_AND_LABELLED),
        lambda images: [images[0], images[3]],
        "pd",
    ),
    Scenario(
        "a second name",
        lambda account_dir: _compacted(account_dir, 2),
        _again,
        lambda images: [*images, images[-1]],
        "ppd",
    ),
    Scenario("both names of one go", _named_twice, _policy(ALL), lambda images: images, "pdd"),
]


class ScenarioStore:
    """The account folder of a scenario, in a store of its own, as often as wanted."""

    def __init__(self, folder: Path, scenario: Scenario) -> None:
        self.folder, self.scenario = folder, scenario
        self.template = folder / "template"
        with open_account_dir(self.template) as account_dir:
            self.images = scenario.prepare(account_dir)
            self.sealed = {
                s.name: data
                for s, data in zip(reversed(list_snapshots(account_dir)), self.images, strict=True)
            }
        self.store = folder / "store"

    def fresh(self) -> None:
        """The account folder as it was, hard links and all."""
        shutil.rmtree(self.store, ignore_errors=True)
        subprocess.run(["cp", "-a", self.template / "store", self.store], check=True)

    def account_dir(self) -> AccountDir:
        with Store.open(self.store) as store:
            account_dir = store.account_dir("alice")
            assert account_dir is not None
            return account_dir

    def run(self, *strace: str) -> tuple[int, str]:
        """The step, in a process that strace has hold of; how it ended (as waitpid says), and
        strace's words."""
        words = self.folder / "words"
        words.unlink(missing_ok=True)
        child = os.fork()
        if child == 0:
            code = 70
            try:
                os.kill(os.getpid(), signal.SIGSTOP)
                with self.account_dir() as account_dir:
                    self.scenario.step(account_dir)
                code = 0
            except (OSError, Failure):
                code = 1
            finally:
                os._exit(code)
        os.waitpid(child, os.WUNTRACED)
        line = ["strace", "-f", "-qq", "-o", str(words), *strace, "-p", str(child)]
        with subprocess.Popen(line, stderr=subprocess.DEVNULL) as tracer:
            try:
                until(
                    lambda: (
                        not re.search(r"TracerPid:\t0\n", Path(f"/proc/{child}/status").read_text())
                    ),
                    "tracer",
                )
                os.kill(child, signal.SIGCONT)
                _, status = os.waitpid(child, 0)
            finally:
                tracer.wait(BOUND_S)
        return status, words.read_text() if words.exists() else ""

    def calls(self) -> Counter[str]:
        """How often the step makes each call; of those that threads share, the most that one of
        them makes."""
        self.fresh()
        status, words = self.run("-e", "trace=all")
        assert status == 0, words[-2000:]
        counts: Counter[tuple[str, str]] = Counter(
            re.findall(r"^(\d+) +(\w+)\(", words, re.MULTILINE)
        )
        most: Counter[str] = Counter()
        for (_, name), count in counts.items():
            most[name] = max(most[name], count)
        return most

    def must_be_whole(self, what: str) -> None:
        """All that was sealed and is there is what it was, and nothing that is to stay is
        missing; nor does the catalog miss what was let go."""
        with self.account_dir() as account_dir:
            catalog = account_dir.read_catalog()
            assert (catalog.lost(account_dir.read_listing()), catalog.problem) == ((), ""), what
            found = {
                snapshot.name: read_image(account_dir, snapshot)
                for snapshot in list_snapshots(account_dir)
            }
            kept = self.scenario.left(self.images)
            for name, data in self.sealed.items():
                assert found.get(name, data) == data, f"{what}: {name}"
                assert name in found or data not in kept, f"{what}: {name} is gone"

    def must_heal(self, what: str) -> None:
        """The next run comes to the end that it would have come to."""
        with self.account_dir() as account_dir:
            clean_up(account_dir)
            assert check_catalog(account_dir, account_dir.read_listing()) == ((), ""), what
            self.scenario.step(account_dir)
            known = account_dir.read_catalog().entries.values()
            sealed = {entry.name for entry in known if entry.state == "sealed"}
            assert sealed == {snapshot.name for snapshot in list_snapshots(account_dir)}, what
            # A manifest that could not be read for once leaves two snapshots with one number: their
            # order is not known then.
            assert sorted(
                read_image(account_dir, snapshot) for snapshot in list_snapshots(account_dir)
            ) == sorted(self.scenario.left(self.images)), what
            assert storage_forms(account_dir) == self.scenario.after, what
            names = {name for name in os.listdir(account_dir.fd) if not name.endswith(".pages")}
            assert len(names) == 2 * len(list_snapshots(account_dir)), f"{what}: {sorted(names)}"


@pytest.fixture(params=SCENARIOS, ids=[scenario.name for scenario in SCENARIOS])
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> ScenarioStore:
    return ScenarioStore(tmp_path, request.param)


def test_undisturbed_it_comes_to_its_end(stored: ScenarioStore) -> None:
    stored.fresh()
    status, _ = stored.run("-e", "trace=none")
    assert status == 0
    stored.must_be_whole("undisturbed")
    with stored.account_dir() as account_dir:
        assert storage_forms(account_dir) == stored.scenario.after


def test_killed_at_any_call_nothing_is_lost_and_the_next_run_ends_it(
    stored: ScenarioStore, tell: Callable[[str], None]
) -> None:
    """Row 27: at every call there is, of whatever name."""
    points: Counter[str] = Counter()
    for name, count in sorted(stored.calls().items()):
        for number in sample(range(1, count + 1), 10, f"{stored.scenario.name} killed at {name}"):
            what = f"killed at {name} {number}"
            stored.fresh()
            status, _ = stored.run(
                "-e", f"trace={name}", "-e", f"inject={name}:signal=KILL:when={number}"
            )
            if not os.WIFSIGNALED(status):
                continue  # by that time there are fewer
            points[name] += 1
            stored.must_be_whole(what)
            stored.must_heal(what)
    assert points.total() > amount(100, 8)
    assert {"fsync", "linkat", "unlinkat", "write", "pread64"} & set(
        points
    ) or stored.scenario.name == "one of two names goes"
    tell(f"{stored.scenario.name}: killed at {points.total()} calls: {dict(points.most_common())}")


def test_where_any_call_fails_nothing_is_lost_and_the_next_run_ends_it(
    stored: ScenarioStore, tell: Callable[[str], None]
) -> None:
    """Rows 19 and 29: EIO and ENOSPC."""
    points: Counter[str] = Counter()
    calls = stored.calls()
    for name, errors in FALLIBLE.items():
        for number in (
            sample(range(1, calls[name] + 1), 8, f"{stored.scenario.name}: a failure of {name}")
            if calls[name]
            else ()
        ):
            for error in errors:
                what = f"{error} of {name} {number}"
                stored.fresh()
                status, _ = stored.run(
                    "-e", f"trace={name}", "-e", f"inject={name}:error={error}:when={number}"
                )
                assert os.WIFEXITED(status), what
                assert os.WEXITSTATUS(status) in (0, 1), f"{what}: not an error of ours"
                points[f"{error} {name}"] += 1
                stored.must_be_whole(what)
                stored.must_heal(what)
    assert points.total() > amount(50, 6)
    tell(f"{stored.scenario.name}: {points.total()} calls failed: {dict(points.most_common())}")


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_after_a_power_cut_every_sealed_snapshot_comes_out(
    tmp_path: Path, kind: str, tell: Callable[[str], None]
) -> None:
    """Row 28: the disk is frozen at random moments of compaction and merging, and mounted again."""
    needs_mkfs(kind)
    chance = random.Random(37)
    found: Counter[str] = Counter()
    with disk(tmp_path, "xfs", 1024 * MIB) as below:
        for scenario in SCENARIOS[:2]:
            stored = ScenarioStore(tmp_path / "on-root" / str(scenario.after), scenario)
            (below / "image").unlink(missing_ok=True)
            make_image(below / "image", kind, 24 * MIB)
            with mounted(below / "image", tmp_path / "live", "-o", "loop") as live:
                for turn in range(ROUNDS):
                    shutil.rmtree(live / "store", ignore_errors=True)
                    subprocess.run(
                        ["cp", "-a", stored.template / "store", live / "store"], check=True
                    )
                    os.sync()
                    stored.store = live / "store"
                    frozen = below / f"frozen-{turn}"
                    _cut(stored, below / "image", frozen, chance)
                    with mounted(
                        frozen, tmp_path / "after", "-o", "loop,nouuid" if kind == "xfs" else "loop"
                    ) as after:
                        stored.store = after / "store"
                        with stored.account_dir() as account_dir:
                            found[storage_forms(account_dir)] += 1
                        stored.must_be_whole(f"{kind}, cut {turn}")
                        stored.must_heal(f"{kind}, cut {turn}")
                    frozen.unlink()
    tell(f"{kind}: {found.total()} power cuts; forms found: {dict(found)}")
    assert len(found) > 2, "all cuts came at the same moment"


def _cut(stored: ScenarioStore, image: Path, frozen: Path, chance: random.Random) -> None:
    """Clone the image of the disk at a random one of the step's syncs and namings."""
    number = chance.randrange(1, 9)
    name = chance.choice(["fsync", "linkat", "unlinkat", "renameat"])
    clone = f"cp --reflink=always {image} {frozen}"
    child = os.fork()
    if child == 0:
        try:
            os.kill(os.getpid(), signal.SIGSTOP)
            with stored.account_dir() as account_dir:
                stored.scenario.step(account_dir)
        finally:
            os._exit(0)
    os.waitpid(child, os.WUNTRACED)
    line = [
        "strace",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        f"trace={name}",
        "-e",
        f"inject={name}:signal=STOP:when={number}",
    ]
    with subprocess.Popen([*line, "-p", str(child)], stderr=subprocess.DEVNULL) as tracer:
        until(
            lambda: not re.search(r"TracerPid:\t0\n", Path(f"/proc/{child}/status").read_text()),
            "tracer",
        )
        os.kill(child, signal.SIGCONT)
        until(lambda: _state(child) in "TtZ", "stop or end")
        subprocess.run(clone.split(), check=True)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        tracer.wait(BOUND_S)


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_where_extents_can_be_shared_all_stay_plain_and_share_them(
    tmp_path: Path, kind: str, tell: Callable[[str], None]
) -> None:
    """Measured by the file system's own count of what is free, mounted anew: xfs gives back late
    what it had set apart for writing."""
    needs_mkfs(kind)
    chance = random.Random(1)
    pages = 4000
    images = [database_image(1) + chance.randbytes(pages * 4096)]
    disk_image, where = tmp_path / "image", tmp_path / "disk"
    make_image(disk_image, kind, 400 * MIB)
    with mounted(disk_image, where, "-o", "loop"), open_account_dir(where) as account_dir:
        assert maintenance(account_dir, ALL, REFLINK).shares_extents()
        publish_image(account_dir, images[0], share=True)
    with mounted(disk_image, where, "-o", "loop"), open_account_dir(where) as account_dir:
        first, first_used = _free(where), used_bytes(account_dir.fd)
        for day in range(1, 8):
            spots = sorted(chance.sample(range(1, pages), pages // 100))
            images.append(change_pages(images[-1], spots, day) + chance.randbytes(20 * 4096))
            publish_image(account_dir, images[-1], share=True)
            assert maintenance(account_dir, ALL, REFLINK).tidy().warnings == []
    with mounted(disk_image, where, "-o", "loop"), open_account_dir(where) as account_dir:
        taken = first - _free(where)
        # What is counted of it by this tool: as the disk has it, but for its own bookkeeping.
        assert abs(used_bytes(account_dir.fd) - first_used - taken) < 2 * MIB
        assert storage_forms(account_dir) == "p" * 8
        assert [
            read_image(account_dir, snapshot) for snapshot in reversed(list_snapshots(account_dir))
        ] == images
        tool = (
            ["btrfs", "filesystem", "du", "-s", "--raw", account_dir.path]
            if kind == "btrfs"
            else ["filefrag", data_path(account_dir, list_snapshots(account_dir)[0])]
        )
        said = subprocess.run(tool, check=True, capture_output=True, text=True).stdout
        for snapshot in list_snapshots(account_dir)[1:-1]:
            account_dir.remove_snapshot(snapshot)
        newest, oldest = list_snapshots(account_dir)
        assert (read_image(account_dir, newest), read_image(account_dir, oldest)) == (
            images[-1],
            images[0],
        )
    share = taken / sum(len(data) for data in images[1:])
    tell(
        f"{kind}: 7 more days took {taken} bytes of the disk, {share:.3f} of full "
        f"copies\n{said.rstrip()}"
    )
    assert share < 0.1


def _free(where: Path) -> int:
    subprocess.run(["sync", "-f", str(where)], check=True)
    status = os.statvfs(where)
    return status.f_bfree * status.f_frsize


def test_on_a_file_system_that_shares_none_reflink_says_so(tmp_path: Path) -> None:
    with disk(tmp_path, "ext4", 16 * MIB) as where, open_account_dir(where) as account_dir:
        _days(account_dir, 2)
        keeper = maintenance(account_dir, ALL, REFLINK)
        assert not keeper.shares_extents()
        assert "shares no extents" in keeper.tidy().warnings[0]
        assert storage_forms(account_dir) == "pp"
