"""A history that is stored as deltas, with real databases, users and runs: it is smaller, and
nothing else about it is different."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest
from support import sandbox
from support.databases import MIB
from support.host import Answer, Host, list_snapshots
from support.live_database import dump_database
from support.processes import until
from support.sampling import amount, sample
from support.users import needs_root

from demo.grow import add_day, grow
from demo.users import User
from t3_backup.text import format_time, utc_now

pytestmark = [needs_root, pytest.mark.skipif(sandbox.ACTIVE, reason="looks into the store")]

AUTO = {"T3_BACKUP_COMPACT": "auto"}
DAYS = 5


@pytest.fixture
def hana(host: Host, make_user: Callable[..., User], tmp_path: Path) -> User:
    """A user whose database has grown to some size."""
    grown = tmp_path / "grown.sqlite"
    grow(grown, 12_000_000)
    user = make_user("hist-hana", grown)
    host.environ |= AUTO
    host.write_map(user)
    return user


def work(user: User, seed: int) -> None:
    """A day of it."""
    add_day(user.database, seed=seed)
    for path in user.database.parent.iterdir():
        user.give(path)


def history(host: Host, user: User, days: int = DAYS) -> list[tuple[str, str]]:
    """Name and dump of a snapshot of each of so many days, oldest first."""
    found = []
    for day in range(days):
        if day:
            work(user, day)
        answer = host.t3("run", "--json")
        assert answer.code == 0, answer
        [snapshot] = answer.account(user.name)["snapshots"]
        found.append((snapshot["name"], dump_database(Path(snapshot["path"]))))
    return found


def used(host: Host, user: User) -> int:
    return int(host.t3("du", user.name, "--json").account(user.name)["stored_bytes"])


def flip(path: Path, at: int) -> None:
    mode = path.stat().st_mode
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(at)
        [byte] = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 16]))
    path.chmod(mode)


def test_five_days_take_hardly_more_than_one_and_all_come_back(
    host: Host, hana: User, tmp_path: Path
) -> None:
    days = history(host, hana)
    assert [snapshot["form"] for snapshot in list_snapshots(host, hana)] == [
        "plain",
        "delta",
        "delta",
        "delta",
        "delta",
    ]
    assert used(host, hana) < 1.06 * list_snapshots(host, hana)[0]["bytes"]  # type: ignore[operator]
    assert host.t3("verify", hana.name).code == 0
    for name, there in days:
        target = tmp_path / name
        assert host.t3("restore", hana.name, "--at", name, "--to", str(target)).code == 0
        assert dump_database(target) == there
    # In the place of the live database, and back.
    now = dump_database(hana.database)
    assert host.t3("restore", hana.name, "--at", days[0][0], "--yes").code == 0
    assert dump_database(hana.database) == days[0][1]
    assert host.t3("restore", hana.name, "--label", "prerestore", "--yes").code == 0
    assert dump_database(hana.database) == now


def test_what_is_unchanged_is_not_kept_twice_and_counts_as_fresh(host: Host, hana: User) -> None:
    history(host, hana, 2)
    before = {path.name: path.stat().st_mtime_ns for path in host.account_dir(hana).iterdir()}
    taken_at = str(list_snapshots(host, hana)[0]["taken_at"])
    until(
        lambda: format_time(utc_now()) > taken_at,
        "later second, by which the run is told from the snapshot",
    )
    answer = host.t3("run", "--json")
    entry = answer.account(hana.name)
    assert (answer.code, entry["outcome"], entry["snapshots"][0]["name"]) == (
        0,
        "unchanged",
        list_snapshots(host, hana)[0]["name"],
    )
    assert f"unchanged {hana.name}: still what {entry['snapshots'][0]['name']} holds" in answer.err
    assert {
        path.name: path.stat().st_mtime_ns for path in host.account_dir(hana).iterdir()
    } == before
    status = host.t3("status", "--json").account(hana.name)
    assert status["last_attempt"]["outcome"] == "unchanged"
    assert (
        status["last_good"]
        == status["last_attempt"]["at"]
        > entry["snapshots"][0]["taken_at"]
        == taken_at
    )


def test_a_label_on_what_is_unchanged_costs_a_manifest(host: Host, hana: User) -> None:
    history(host, hana, 2)
    before = used(host, hana)
    assert host.t3("run", "--label", "prebump-0.0.25").code == 0
    assert used(host, hana) - before < 20_000
    newest, older, _ = list_snapshots(host, hana)
    assert (newest["label"], newest["form"], older["form"]) == ("prebump-0.0.25", "plain", "plain")
    paths = [Path(str(one["path"])) for one in (newest, older)]
    assert paths[0].samefile(paths[1])
    assert host.t3("verify", hana.name).code == 0


def test_pruning_in_the_middle_says_why_and_loses_nothing_else(
    host: Host, hana: User, tmp_path: Path
) -> None:
    days = history(host, hana)
    assert host.t3("pin", hana.name, days[0][0], days[2][0]).code == 0
    plan = host.t3("prune", hana.name, "--dry-run", T3_BACKUP_KEEP="1")
    assert plan.code == 0
    assert [line.split(" (")[0].split()[0] for line in plan.out.splitlines()] == [
        "keep",
        "would",
        "keep",
        "would",
        "keep",
    ]
    assert "(outside: recent 1, days 1)" in plan.out
    assert len(list_snapshots(host, hana)) == DAYS, "it was only said"
    done = host.t3("prune", hana.name, T3_BACKUP_KEEP="1")
    assert (done.code, done.out.count("pruned ")) == (0, 2), done
    assert [snapshot["name"] for snapshot in list_snapshots(host, hana)] == [
        days[4][0],
        days[2][0],
        days[0][0],
    ]
    assert host.t3("verify", hana.name).code == 0
    for name, there in (days[0], days[2], days[4]):
        assert host.t3("restore", hana.name, "--at", name, "--to", str(tmp_path / name)).code == 0
        assert dump_database(tmp_path / name) == there


def test_a_bit_that_flips_in_any_file_is_found_and_costs_only_what_hangs_on_it(
    host: Host, hana: User, tmp_path: Path
) -> None:
    """Of every file of the account folder, one after the other."""
    days = history(host, hana, 4)
    names = [name for name, _ in days]  # oldest first: each hangs on all that come after it
    account_dir = host.account_dir(hana)
    kept = tmp_path / "kept"
    shutil.copytree(account_dir, kept, copy_function=shutil.copy2)
    places = [
        (path, at)
        for path in sorted(kept.iterdir())
        for size in [path.stat().st_size]
        for at in sorted({10, size // 2, size - 3})
    ]
    assert len(places) >= 3 * (2 * len(days) + 1)
    for kind in sorted({path.suffix for path, _ in places}):
        for path, at in sample(
            [place for place in places if place[0].suffix == kind], 8, f"flipped bits {kind}"
        ):
            flip(account_dir / path.name, at)
            answer = host.t3("verify", hana.name)
            about = f"{path.name}, byte {at}"
            stem = path.name.rpartition(".")[0]
            assert answer.code == 1, about
            assert re.search(rf"^WARN: {hana.name} {re.escape(stem)}", answer.out, re.MULTILINE), (
                f"{about}: {answer}"
            )
            last = names.index(stem)
            for place, (name, there) in enumerate(days):
                # What a manifest says is lost with it, and the data is not: those that hang on that
                # come out all the same.
                hangs = (
                    place == last
                    if path.suffix == ".json"
                    else place <= last and path.suffix != ".pages"
                )
                if not hangs:
                    target = tmp_path / "target"
                    assert (
                        host.t3("restore", hana.name, "--at", name, "--to", str(target)).code == 0
                    ), f"{about}: {name}"
                    assert dump_database(target) == there
                    target.unlink()
            shutil.copy2(path, account_dir / path.name) if not (
                account_dir / path.name
            ).unlink() else None
    assert host.t3("verify", hana.name).code == 0


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    image, where = folder / "image", folder / "disk"
    where.mkdir()
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(where)], check=True)
    try:
        yield where
    finally:
        subprocess.run(["umount", "-l", str(where)], check=True)


class LowestFreeSpace:
    """The lowest free space of a file system, looked at all the time."""

    def __init__(self, where: Path) -> None:
        self._where, self._ended = where, threading.Event()
        self.bytes = 1 << 60
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._ended.is_set():
            status = os.statvfs(self._where)
            self.bytes = min(self.bytes, status.f_bavail * status.f_frsize)
            self._ended.wait(0.001)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def test_the_reserve_of_a_small_disk_is_held_whatever_happens_on_it(
    host: Host, hana: User, tell: Callable[[str], None]
) -> None:
    """Rows 15 and 19: full copies first, then compaction, pruning, a restore and a proof, until a
    copy has no room any more."""
    with small_disk(host.folder, 300 * MIB) as where:
        total = os.statvfs(where).f_blocks * os.statvfs(where).f_frsize
        there = Host(
            where,
            host.environ
            | {
                "T3_BACKUP_MAP": str(host.map),
                "T3_BACKUP_RESERVE": "auto",
                "T3_BACKUP_LOG": "/dev/null",
            },
        )
        reserve = int(total * 0.05)
        grow(big := host.folder / "big.sqlite", 60_000_000)
        shutil.copyfile(big, hana.database)
        hana.give(hana.database)
        answers: list[Answer] = []
        with LowestFreeSpace(where) as lowest:
            for day in range(4):
                work(hana, day)
                answers.append(there.t3("run", T3_BACKUP_COMPACT="off"))
            work(hana, 9)
            refused = there.t3("run", T3_BACKUP_COMPACT="off")
            # what is too much for plain copies makes room by compaction first
            answers.append(there.t3("run"))
            answers += [there.t3("verify"), there.t3("prune", "--keep", "2")]
            for day in range(20, 24):
                work(hana, day)
                answers.append(there.t3("run"))
            answers.append(there.t3("verify"))
            answers.append(
                there.t3(
                    "restore",
                    hana.name,
                    "--at",
                    str(list_snapshots(there, hana)[-1]["name"]),
                    "--yes",
                )
            )
        assert [answer.code for answer in answers] == [0] * len(answers), answers
        assert refused.code == 1
        assert re.search(
            r"no room: the copy needs \d+ bytes, \d+ are free, and \d+ of them must stay so \(T3_BACKUP_RESERVE\)",
            refused.out,
        )
        assert lowest.bytes >= reserve
        tell(f"300 MiB: never less than {lowest.bytes} bytes free, {reserve} of them the reserve")


def test_whoever_fills_the_disk_at_any_moment_costs_no_snapshot(
    host: Host, hana: User, tell: Callable[[str], None]
) -> None:
    """Row 19: somebody else takes all there is and gives it back, again and again, while runs go
    on."""
    with small_disk(host.folder, 120 * MIB) as where:
        there = Host(
            where,
            host.environ
            | {
                "T3_BACKUP_MAP": str(host.map),
                "T3_BACKUP_RESERVE": "0",
                "T3_BACKUP_LOG": "/dev/null",
            },
        )
        sealed: dict[str, str] = {}
        ended = threading.Event()

        def greedy() -> None:
            while not ended.is_set():
                with (where / "filler").open("wb", buffering=0) as file:
                    try:
                        while not ended.wait(0.002):
                            file.write(b"\xff" * MIB)
                    except OSError:
                        ended.wait(0.05)
                (where / "filler").unlink()
                ended.wait(0.15)

        thread = threading.Thread(target=greedy)
        thread.start()
        codes = []
        try:
            for day in range(amount(14, 6)):
                work(hana, day)
                answer = there.t3("run", "--json", T3_BACKUP_KEEP="5")
                codes.append(answer.code)
                snapshots = answer.account(hana.name)["snapshots"] if answer.out.strip() else []
                sealed |= {snapshot["name"]: snapshot["sha256"] for snapshot in snapshots}
        finally:
            ended.set()
            thread.join()
        assert there.t3("run", T3_BACKUP_KEEP="5").code == 0, "the next run heals"
        assert there.t3("verify").code == 0
        found = list_snapshots(there, hana)
        assert {snapshot["name"] for snapshot in found} >= set(list(sealed)[-4:]), (
            "of the last five none is gone"
        )
        tell(
            f"a disk that is full time and again: {codes.count(0)} of {len(codes)} runs went well, "
            f"{len(found)} snapshots are whole"
        )


def test_an_account_may_take_no_more_than_it_is_allowed(host: Host, hana: User) -> None:
    history(host, hana, 2)
    size = int(str(list_snapshots(host, hana)[0]["bytes"]))
    work(hana, 7)
    refused = host.t3("run", T3_BACKUP_MAX_BYTES=str(size // 2))
    assert refused.code == 1
    assert re.search(
        r"no room: the copy needs \d+ bytes, and \d+ are left to the account \(T3_BACKUP_MAX_BYTES\)",
        refused.out,
    )
    assert host.t3("run", T3_BACKUP_MAX_BYTES=str(2 * size)).code == 0
    assert len(list_snapshots(host, hana)) == 3


def test_a_vacuumed_database_is_packed_by_itself(host: Host, hana: User, tmp_path: Path) -> None:
    days = history(host, hana, 2)
    with sqlite3.connect(hana.database) as connection:
        connection.execute("DELETE FROM orchestration_events WHERE rowid % 5 = 0")
    connection.execute("VACUUM")
    connection.close()
    for path in hana.database.parent.iterdir():
        hana.give(path)
    assert host.t3("run").code == 0
    newest, before, oldest = host.t3("du", hana.name, "--json").account(hana.name)["snapshots"]
    assert (newest["form"], before["form"], before["base"], oldest["base"]) == (
        "plain",
        "packed",
        None,
        before["name"],
    )
    assert before["stored_bytes"] < before["bytes"] / 2
    assert host.t3("verify", hana.name).code == 0
    assert (
        host.t3("restore", hana.name, "--at", days[0][0], "--to", str(tmp_path / "out")).code == 0
    )
    assert dump_database(tmp_path / "out") == days[0][1]


def test_what_is_listed_says_how_it_is_kept(host: Host, hana: User) -> None:
    history(host, hana, 2)
    newest, older = list_snapshots(host, hana)
    for snapshot in (newest, older):
        path = Path(str(snapshot["path"]))
        assert (
            path.name
            == f"{snapshot['name']}.{'sqlite' if snapshot['form'] == 'plain' else 'delta'}"
        )
        assert (
            json.loads((path.parent / f"{snapshot['name']}.json").read_text())["databases"][0]
            | {"path": str(path), "form": snapshot["form"]}
            == snapshot["databases"][0]
        )
        assert snapshot["databases"][0]["sha256"] == snapshot["sha256"]
    plain = Path(str(newest["path"]))
    assert hashlib.sha256(plain.read_bytes()).hexdigest() == newest["sha256"]
    du = host.t3("du", hana.name)
    assert du.code == 0
    assert re.search(
        rf"^{hana.name}: 2 snapshots in .* as full copies .* times as much$", du.out, re.MULTILINE
    )
