"""Seal the old state, of which nobody has a database open, as a snapshot: what undoes a restore.

A database that can't be sealed costs only itself: it is told, and stays, since nothing could give
it back.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from t3_backup.backup.archive import ArchiveMaker
from t3_backup.backup.order import SnapshotOrder
from t3_backup.backup.snapshot import take_folded
from t3_backup.errors import NoRoom, NotTheSame, SourceError, StoreError, explain
from t3_backup.restore.job import RestoreJob
from t3_backup.store import outside
from t3_backup.store.manifest import Manifest, Missing
from t3_backup.store.names import PRERESTORE
from t3_backup.t3 import databases
from t3_backup.t3.databases import Candidate
from t3_backup.text import printable
from t3_backup.worker.operations.restore import Checkpointed, CheckpointedAll
from t3_backup.worker.protocol import shorten_list


@dataclass(frozen=True)
class OldState:
    """What became of the old state."""

    snapshot: Manifest | None = None  # None: nothing was there, or nothing that can be sealed
    # marks of the files that were packed with it
    marks: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def holds(self) -> frozenset[str]:
        """The databases that the snapshot gives back."""
        found = () if self.snapshot is None else self.snapshot.databases
        return frozenset(one.file for one in found)


def seal_old_state(job: RestoreJob, folded: CheckpointedAll) -> OldState:
    """Seal the old state as a snapshot, as far as it can be.

    Where `job.kept` holds all of it, byte for byte, that one stands for it.
    """
    whole, missing = dict[str, Checkpointed](), dict[str, str]()
    warnings = [databases.explain(folded.others)] if folded.others else []
    for one in folded.databases:
        if one.old is not None and one.whole and one.census is not None:
            whole[one.file] = one
        elif one.old is not None:
            missing[one.file] = one.reason
            warnings.append(f"{one.reason}: {_stays(job, one.file)}")
        elif one.reason and one.file in job.moves:  # a -wal of none
            warnings.append(one.reason)
        elif one.reason:
            missing[one.file] = one.reason
            warnings.append(f"{one.reason}; it was left as it is")
    maker = _make_archive_maker(job)
    snapshot, is_known = None, False
    while whole and snapshot is None:
        live = databases.choose_live(
            Candidate(one.file, held=False, changed_ns=one.changed_ns) for one in whole.values()
        )
        lacks = [Missing(file, why) for file, why in missing.items()]
        listing = job.account_dir.read_listing()
        try:
            taken = take_folded(
                maker.order,
                job.account_dir,
                listing,
                whole,
                live,
                lacks,
                archive_maker=maker,
                stands=job.kept,
            )
        except (NoRoom, StoreError, OSError) as error:  # the store takes nothing more
            if isinstance(error, OSError) and error.errno not in outside.TAKES_NOTHING:
                raise
            why = f"the present state can't be kept in the store ({explain(error)})"
            warnings.append(f"{why}: all of it stays next to the new one")
            return OldState(warnings=tuple(warnings))
        except (SourceError, NotTheSame) as error:  # it is no database that a copy could prove
            missing[live] = str(error)
            warnings.append(f"{error}: {_stays(job, live)}")
            del whole[live]
        else:
            snapshot, is_known = taken.snapshot, taken.unchanged
    if snapshot is None:
        return OldState(warnings=tuple(warnings))
    warnings += [
        f"{printable(one.file)}: {one.reason}: {_stays(job, one.file)}"
        for one in snapshot.missing
        if one.file not in missing
    ]
    if maker.not_packed:
        warnings.append(f"not packed: {shorten_list(maker.not_packed)}")
    if maker.unsaved:
        why = maker.unsaved
        warnings.append(f"the files next to the database could not be sealed: {why}")
    kept = "the present state is kept already as" if is_known else "kept the present state as"
    job.say(f"{kept} {snapshot.name} ({snapshot.verdict})")
    marks = {} if snapshot.companion is None else maker.packed_marks
    return OldState(snapshot, marks, tuple(warnings))


def _stays(job: RestoreJob, file: str) -> str:
    """Say where a database of the old state stays that can't be sealed."""
    if job.whole or file in job.moves:
        return "the old state can't be sealed, so it was kept next to the new one"
    return "it can't be sealed, and was left as it is"


def _make_archive_maker(job: RestoreJob) -> ArchiveMaker:
    order = SnapshotOrder(
        job.account, job.limits, PRERESTORE, job.now(), job.stopping, lambda _: None
    )
    known = job.account_dir.read_listing().snapshots
    return ArchiveMaker(order, job.account_dir, known, job.files_limit)
