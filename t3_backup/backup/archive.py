"""Make the archive of the files beside a database, and store it once for each content.

A worker writes it; then it is settled, hashed and inspected, as a database is. An account's
database is backed up whatever becomes of it. Where it could not be made, `unsaved` says why.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Container, Sequence
from dataclasses import dataclass, field

from t3_backup.backup.limits import limits_until
from t3_backup.backup.order import SnapshotOrder
from t3_backup.errors import Cancelled, Failure, WorkerLost, explain
from t3_backup.history.verify import find_archive_problem
from t3_backup.store import archives
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.companion import ARCHIVE_PREFIX, Companion
from t3_backup.store.content import hash_content
from t3_backup.store.manifest import Manifest
from t3_backup.store.names import PRERESTORE
from t3_backup.store.staged_file import StagedFile
from t3_backup.system.deadline import Deadline
from t3_backup.worker import client
from t3_backup.worker.operations.backup import Packed, WriteArchive

_LEAST_S = 1.0  # that a worker has, however late it is


@dataclass
class ArchiveMaker:
    """Make the companion of one run's snapshots of an account.

    It is made once, when the first of them asks for it.
    """

    order: SnapshotOrder
    account_dir: AccountDir
    before: Sequence[Manifest]  # those in the account's folder, newest first
    limit: int  # bytes of content; 0: none is made
    unsound: Container[str] = ()  # names of those whose last proof failed
    unsaved: str = ""  # why there is none
    not_packed: tuple[str, ...] = ()  # what was not packed, and why; the first of it
    # by file that is in it: its mark, as of the packer
    packed_marks: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    _made: Companion | None = None
    _asked: bool = False

    def order_archive(self) -> WriteArchive | None:
        """Return the archive to ask for; None: none is to be made, or it is made."""
        # removed, to free space for a second try
        lost = self._made is not None and not self._is_there(self._made)
        if not self.limit or (self._asked and not lost):
            return None
        last, known = self._last(), ""
        with contextlib.suppress(OSError):
            if last is not None and not self._is_doubted(last) and self._can_stay(last):
                known = last.fingerprint
        return WriteArchive(self.limit, known)

    def get_companion(
        self, wanted: WriteArchive | None, found: Packed | None, deadline: Deadline
    ) -> Companion | None:
        """Return what the archive is; None: there is none.

        It is made where it is `wanted`, in half of the time that is left; not where `found` says
        that the files are as in the last one, or that there are none. Raises Cancelled alone.
        """
        if wanted is not None:
            self._asked = True
            try:
                self._made = self._make_archive(wanted, found, deadline.share(0.5))
            except Cancelled:
                raise
            except (Failure, OSError) as error:
                self.unsaved = explain(error)
        return self._made

    def _make_archive(
        self, wanted: WriteArchive, found: Packed | None, deadline: Deadline
    ) -> Companion | None:
        if found is not None and (found.unchanged or found.entries == 0):
            return self._take_last(wanted, found)
        order = self.order
        with self.account_dir.stage_file() as staged_file:
            limits = limits_until(order.limits.for_files(), deadline, least=_LEAST_S)
            packed = client.ask(
                order.account,
                wanted,
                limits,
                order.stopping,
                order.listen,
                file=staged_file.writer,
            )
            if packed.unchanged or packed.entries == 0:
                return self._take_last(wanted, packed)
            self._tell_passed(packed)
            made = self._seal_archive(staged_file, packed, deadline)
            archives.keep_archive(self.account_dir, staged_file, made)
            self.packed_marks = _marks_of(packed)
            return made

    def _take_last(self, wanted: WriteArchive, packed: Packed) -> Companion | None:
        """Take the archive that is there for files that are as in it; None for no files."""
        if packed.unchanged and not wanted.known:
            raise WorkerLost("the worker knows an archive again that it was not told of")
        self._tell_passed(packed)
        if not packed.unchanged:
            return None
        self.packed_marks = _marks_of(packed)
        last = self._last()
        return None if last is None else archives.give_own_name(self.account_dir, last)

    def _tell_passed(self, packed: Packed) -> None:
        self.not_packed = packed.passed
        user = self.order.account.user
        self.warnings += [f"{user}: not packed: {passed}" for passed in packed.passed]

    @property
    def made(self) -> Companion | None:
        """The companion that was made, or stands for it; None where there is none."""
        return self._made

    def _last(self) -> Companion | None:
        return next(
            (snapshot.companion for snapshot in self.before if snapshot.companion is not None), None
        )

    def _is_there(self, companion: Companion) -> bool:
        with contextlib.suppress(OSError):
            return archives.has_archive(self.account_dir, companion)
        return False

    def _is_doubted(self, companion: Companion) -> bool:
        """Tell whether the last proof of a snapshot with this archive failed."""
        return any(one.companion == companion and one.name in self.unsound for one in self.before)

    def _can_stay(self, companion: Companion) -> bool:
        """Tell whether an archive need not be made again.

        A restore is about to remove what is in it: then it is read.
        """
        if not archives.has_archive(self.account_dir, companion):
            return False
        return self.order.label != PRERESTORE or archives.is_whole_archive(
            self.account_dir, companion
        )

    def _seal_archive(
        self, staged_file: StagedFile, packed: Packed, deadline: Deadline
    ) -> Companion:
        order = self.order
        staged_file.settle()
        fd = staged_file.open()
        try:
            content = hash_content(fd)
            made = Companion(
                content.sha256,
                content.bytes,
                packed.entries,
                packed.content_bytes,
                packed.fingerprint,
                ARCHIVE_PREFIX,
            )
            limits = limits_until(order.limits, deadline, least=_LEAST_S)
            if problem := find_archive_problem(order.account, fd, made, limits, order.stopping):
                raise WorkerLost(problem)
        finally:
            os.close(fd)
        return made


def _marks_of(packed: Packed) -> dict[str, str]:
    return dict(mark.rsplit("=", 1) for mark in packed.sealed if "=" in mark)
