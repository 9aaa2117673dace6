"""The archive of what is beside a database: made by a worker, sealed, hashed and inspected, and stored once for each content.

An account's database is backed up whatever becomes of it. Where it could not be made, `unsaved` says why.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from t3_backup.backup.snapshot import Order
from t3_backup.errors import Cancelled, Failure, WorkerLost, explain
from t3_backup.history.verify import archive_problem
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.content import hash_content
from t3_backup.store.manifest import Companion, Manifest
from t3_backup.store.names import PRERESTORE
from t3_backup.store.staged_file import StagedFile
from t3_backup.worker import client
from t3_backup.worker.operations.archive import Packed, WriteArchive


@dataclass
class ArchiveOnce:
    """The companion of one run's snapshots of an account: made when the first of them asks for it."""

    order: Order
    account_dir: AccountDir
    before: Sequence[Manifest]  # those on the shelf, newest first
    limit: int  # bytes of content; 0: none is made
    unsaved: str = ""  # why there is none
    passed: tuple[str, ...] = ()  # what was not packed, and why; the first of it
    sealed: dict[str, str] = field(default_factory=dict)  # marks of what is in it, as of `pack.marks`
    warnings: list[str] = field(default_factory=list)
    _made: Companion | None = None
    _asked: bool = False

    def companion(self, until: float) -> Companion | None:
        """What the archive is, made until half of the time up to `until` (of time.monotonic()) is over; None: there is none.

        Raises Cancelled alone.
        """
        if not self._asked and self.limit:
            self._asked = True
            try:
                self._made = self._make((until - time.monotonic()) / 2)
            except Cancelled:
                raise
            except (Failure, OSError) as error:
                self.unsaved = explain(error)
        return self._made

    def _make(self, seconds: float) -> Companion | None:
        order, until = self.order, time.monotonic() + seconds
        last = next((snapshot.companion for snapshot in self.before if snapshot.companion is not None), None)
        known = last.fingerprint if last is not None and self._is_there(last) else ""
        with self.account_dir.begin() as staged_file:
            limits = replace(order.limits, seconds=max(1.0, seconds))
            operation = WriteArchive(self.limit, known)
            packed = client.ask(order.account, operation, limits, order.stopping, order.listen, file=staged_file.writer)
            user = order.account.user
            self.passed = packed.passed
            self.warnings += [f"{user}: not packed: {passed}" for passed in packed.passed]
            sealed = dict(mark.rsplit("=", 1) for mark in packed.sealed if "=" in mark)
            if packed.unchanged:
                self.sealed = sealed
                return last
            if packed.entries == 0:
                return None
            made = self._seal(staged_file, packed, until)
            self.account_dir.keep_archive(staged_file, made)
            self.sealed = sealed
            return made

    def _is_there(self, companion: Companion) -> bool:
        """Whether the archive need not be made again. What a restore is about to remove must come out of it: then it is read."""
        return self.account_dir.has_archive(companion) and (self.order.label != PRERESTORE or self.account_dir.is_whole(companion))

    def _seal(self, staged_file: StagedFile, packed: Packed, until: float) -> Companion:
        order = self.order
        staged_file.settle()
        fd = staged_file.open()
        try:
            content = hash_content(fd)
            made = Companion(content.sha256, content.bytes, packed.entries, packed.content_bytes, packed.fingerprint)
            limits = replace(order.limits, seconds=max(1.0, until - time.monotonic()))
            if problem := archive_problem(order.account, fd, made, limits, order.stopping):
                raise WorkerLost(problem)
        finally:
            os.close(fd)
        return made
