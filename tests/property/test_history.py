"""An account folder against a model of it: whatever is sealed, let go, compacted, interrupted or
cut off by a clock, what is there is whole.

The model knows the image of every snapshot, and what retention decides. Steps end early at a check
between two of them, or at a call to the disk, as a full one or a stop would end them.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from support.account_folders import (
    GENEROUS,
    START,
    change_pages,
    clean_up,
    database_image,
    list_snapshots,
    maintenance,
    publish_image,
    read_image,
    strays_of,
)

from t3_backup.errors import Cancelled, Failure
from t3_backup.history import retention
from t3_backup.history.maintenance import DELTA, OFF
from t3_backup.history.retention import Policy
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.store import Store
from t3_backup.system import native
from t3_backup.text import format_time

POLICIES = st.builds(
    Policy,
    keep=st.integers(1, 6),
    daily=st.integers(0, 5),
    weekly=st.integers(0, 3),
    monthly=st.integers(0, 3),
    yearly=st.integers(0, 2),
    labelled=st.integers(0, 3),
)
YEARS = 3650
STEPS = {"count": 0}  # how many there were, for who wants to know


@contextmanager
def failing(number: int) -> Iterator[Callable[[], None]]:
    """Let the call of that `number` that changes the disk fail; what it gives is a check that
    counts as one, too."""
    left = number

    def count() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise OSError(28, "No space left on device")

    def counted(function: Any) -> Any:
        def call(*args: Any, **more: Any) -> Any:
            count()
            return function(*args, **more)

        return call

    with ExitStack() as stack:
        for module, name in [
            *((os, name) for name in ("unlink", "rename", "link", "write", "pwrite")),
            *((native, name) for name in ("sync_file", "sync_directory", "link_unnamed", "copy")),
        ]:
            function = getattr(module, name)
            setattr(module, name, counted(function))
            stack.callback(setattr, module, name, function)
        yield count


class History(RuleBasedStateMachine):
    """Of one account."""

    @initialize(seed=st.integers(0, 1 << 30))
    def begin(self, seed: int) -> None:
        self.random = Random(seed)
        self.folder = Path(tempfile.mkdtemp())
        self.store = Store.open(self.folder / "store", create=True)
        account_dir = self.store.account_dir("alice", create=True)
        assert account_dir is not None
        self.account_dir: AccountDir = account_dir
        self.day = 0
        self.newest = database_image(self.random.randrange(2, 12))
        self.images: dict[str, bytes] = {}
        self.pinned: set[str] = set()

    def mutate(self) -> None:
        """A day of work; or a VACUUM, or a server that began anew."""
        random, data = self.random, self.newest
        if random.random() < 0.1:
            self.newest = database_image(random.randrange(1, 14), random.randrange(1000))
            return
        data = change_pages(
            data,
            [page for page in range(len(data) // 4096) if random.random() < 0.2],
            random.randrange(1000),
        )
        pages = max(1, len(data) // 4096 + random.choice((-6, -1, 0, 0, 1, 2, 5)))
        self.newest = data[: pages * 4096].ljust(pages * 4096, b"\0")

    @rule(
        verdict=st.sampled_from(["verified"] * 8 + ["suspect", "damaged"]),
        label=st.sampled_from([None, None, None, "prebump-1", "prerestore"]),
        jump=st.sampled_from([0, 1, 1, 1, 1, 1, 30, YEARS, -YEARS]),
        work=st.booleans(),
        fail=st.none() | st.integers(1, 12),
    )
    def run(self, verdict: str, label: str | None, jump: int, work: bool, fail: int | None) -> None:
        """What is taken is there; what could not be, left nothing."""
        if work:
            self.mutate()
        self.day = max(-5 * YEARS, min(5 * YEARS, self.day + jump))
        clean_up(self.account_dir)
        STEPS["count"] += 1
        try:
            with failing(fail or -1):
                stored = publish_image(
                    self.account_dir, self.newest, label=label, verdict=verdict, days=self.day
                )
        except OSError:
            return
        self.images[stored.snapshot.name] = self.newest

    @rule(
        policy=POLICIES,
        mode=st.sampled_from([DELTA, DELTA, DELTA, OFF]),
        fail=st.none() | st.integers(1, 60),
    )
    def tidy(self, policy: Policy, mode: str, fail: int | None) -> None:
        """Only what retention lets go goes, and all of it, unless something ends it early."""
        clean_up(self.account_dir)
        before = list_snapshots(self.account_dir)
        going = {
            decision.snapshot.name
            for decision in retention.decide_retention(before, policy)
            if not decision.keep
        }
        STEPS["count"] += 1
        keeper = maintenance(self.account_dir, policy, mode)
        with failing(fail or -1) as count:
            try:
                done = replace(
                    keeper, limits=replace(GENEROUS, free_bytes=lambda: [1 << 40, count()][0])
                ).tidy()
            except (OSError, Failure, Cancelled):
                done = None
        clean_up(self.account_dir)
        left = {snapshot.name for snapshot in list_snapshots(self.account_dir)}
        gone = {snapshot.name for snapshot in before} - left
        assert gone <= going, "nothing goes that is to stay"
        assert not gone & self.pinned
        if done is not None and not done.warnings:
            assert gone == going or any(snapshot.holds for snapshot in before)
        self._must_still_be_there(before, left)
        for name in gone:
            del self.images[name]

    def _must_still_be_there(self, before: list[Any], left: set[str]) -> None:
        verified = [snapshot.name for snapshot in before if snapshot.verdict == "verified"]
        assert not verified or verified[0] in left, (
            "row 13: the newest verified snapshot is never let go"
        )
        if any(snapshot.holds for snapshot in before):
            assert left == {snapshot.name for snapshot in before}, (
                "row 34: while one is held, all stay"
            )

    @rule()
    def accept(self) -> None:
        """Somebody has looked at them."""
        for snapshot in list_snapshots(self.account_dir):
            if snapshot.holds:
                self.account_dir.replace_manifest(
                    replace(snapshot, accepted_at=format_time(START + timedelta(days=self.day)))
                )

    @rule(which=st.integers(0, 50), pinned=st.booleans())
    def pin(self, which: int, pinned: bool) -> None:
        """Somebody wants it to stay."""
        snapshots = list_snapshots(self.account_dir)
        if not snapshots:
            return
        chosen = snapshots[which % len(snapshots)]
        self.account_dir.replace_manifest(
            replace(chosen, pinned_at=format_time(START) if pinned else None)
        )
        (self.pinned.add if pinned else self.pinned.discard)(chosen.name)

    @invariant()
    def what_is_there_is_whole(self) -> None:
        """Every snapshot that was sealed and not let go comes back, byte for byte; nothing else is
        there."""
        snapshots = list_snapshots(self.account_dir)
        assert {snapshot.name for snapshot in snapshots} == set(self.images)
        assert strays_of(self.account_dir) == []
        for snapshot in snapshots:
            assert read_image(self.account_dir, snapshot) == self.images[snapshot.name], (
                snapshot.name
            )
        verified = [snapshot for snapshot in snapshots if snapshot.verdict == "verified"]
        assert not verified or self.account_dir.read_listing().is_plain(verified[0])

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.account_dir.__exit__()
            self.store.__exit__()
            shutil.rmtree(self.folder)


History.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestHistory = History.TestCase
