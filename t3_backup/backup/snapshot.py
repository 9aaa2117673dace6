"""One snapshot of one account, from the copy to its name: copied, settled, hashed and proven, judged, published.

Two workers do it: the one that copies holds the new file and is dead before anybody believes what is in it; the one that
proves can only read it. Beside the second, root hashes the same bytes. Until `publish` nothing has a name.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import t3_backup
from t3_backup.accounts import Account
from t3_backup.backup import publish, verdict
from t3_backup.backup.publish import Published
from t3_backup.backup.verdict import Verdict
from t3_backup.errors import NotTheSame
from t3_backup.store import manifest as manifests
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.content import Content, header_bytes
from t3_backup.store.manifest import Companion, Manifest
from t3_backup.store.names import snapshot_name
from t3_backup.store.staged_file import StagedFile
from t3_backup.text import format_time
from t3_backup.worker import client
from t3_backup.worker.limits import Limits
from t3_backup.worker.operations.backup import Copied, Proven
from t3_backup.worker.operations.restore import Checkpointed, CloneDatabase
from t3_backup.worker.proof import prove_file
from t3_backup.worker.supervisor import Listener


@dataclass(frozen=True)
class Order:
    """Whose snapshot to take, and how."""

    account: Account
    limits: Limits  # of copy and proof together
    label: str | None
    when: datetime  # before the pin: what was committed by then is in the snapshot
    stopping: threading.Event
    listen: Listener


def take_snapshot(
    order: Order,
    account_dir: AccountDir,
    before: Sequence[Manifest],
    *,
    witness: Manifest | None = None,
    folded: Checkpointed | None = None,
    companion: Callable[[float], Companion | None] = lambda _: None,
    share: bool = False,
) -> Published:
    """Take, seal and publish one; `before` are those on the shelf, newest first.

    As a `witness` of a damaged snapshot it is a VACUUM of the same source: worth having, never taken for good. Where the source
    is `folded`, its bytes are copied. `companion` makes the archive of what is beside it, after the copy: what the database speaks
    of is there by then. With `share` it shares extents with the one before. Raises Failure and OSError, and then nothing is named.
    """
    until = time.monotonic() + order.limits.seconds
    with account_dir.begin() as staged_file:
        copied = _copy(order, staged_file.writer, "vacuum" if witness else "online", folded)
        beside = companion(until)
        content, proven = settle(order, staged_file, copied, until)
        judged = _judge(copied, proven, before, witness)
        sequence = account_dir.next_sequence(before)
        snapshot = replace(describe(order, account_dir, sequence, copied, proven, content, judged), companion=beside)
        return publish.publish_snapshot(account_dir, staged_file, content, snapshot, before, share=share)


def _copy(order: Order, file: int, method: str, folded: Checkpointed | None) -> Copied:
    account, limits, stopping, listen = order.account, order.limits, order.stopping, order.listen
    if folded is None:
        return client.copy_database(account, file, limits, stopping, listen, method=method)
    assert folded.old is not None
    assert folded.census is not None
    return client.ask(account, CloneDatabase(folded.old, folded.census), limits, stopping, listen, file=file)


def settle(order: Order, staged_file: StagedFile, copied: Copied, until: float) -> tuple[Content, Proven]:
    """End all writing to what was copied into `blank`, hash it and have it proven; `until` is a time of time.monotonic().

    Raises Failure and OSError; NotTheSame where it isn't what was copied.
    """
    staged_file.settle()
    left = replace(order.limits, seconds=max(0.0, until - time.monotonic()))
    fd = staged_file.open()
    try:
        content, proven = prove_file(order.account, fd, left, order.stopping, order.listen, pages=True)
        if not proven.problems:
            _must_agree(content, header_bytes(fd), copied, proven)
        return content, proven
    finally:
        os.close(fd)


def _must_agree(content: Content, header: int | None, copied: Copied, proven: Proven) -> None:
    """The bytes are as many as the header and the census say, and hold what the source held. Raises NotTheSame."""
    counted = proven.census.page_count * proven.census.page_size
    if not content.bytes == counted == header:
        raise NotTheSame(f"the copy has {content.bytes} bytes, its census counts {counted}, its header {header}")
    if found := verdict.disagreements(copied, proven.census):
        raise NotTheSame(f"the copy is not what the source was: {'; '.join(found[:3])}")


def _judge(copied: Copied, proven: Proven, before: Sequence[Manifest], witness: Manifest | None) -> Verdict:
    judged = verdict.judge_copy(proven.problems, proven.census, copied.method, verdict.yardstick(before))
    if witness and judged.verdict != "damaged":
        return Verdict("suspect", (f"rebuilt by VACUUM INTO from the damaged source of {witness.name}",))
    return judged


def describe(
    order: Order, account_dir: AccountDir, sequence: int, copied: Copied, proven: Proven, content: Content, judged: Verdict
) -> Manifest:
    """The manifest of what was taken, with a name that is free."""
    return Manifest(
        format=manifests.FORMAT,
        sequence=sequence,
        user=order.account.user,
        name=snapshot_name(order.when, order.label, account_dir.taken_names()),
        taken_at=format_time(order.when),
        label=order.label,
        bytes=content.bytes,
        sha256=content.sha256,
        method=copied.method,
        verdict=judged.verdict,
        reasons=judged.reasons,
        accepted_at=None,
        t3_level=proven.census.t3_level,
        page_size=proven.census.page_size,
        page_count=proven.census.page_count,
        source_bytes=copied.source_bytes,
        wal_growth_bytes=copied.wal_growth_bytes,
        restarts=copied.restarts,
        copy_seconds=round(copied.seconds, 3),
        proof_seconds=round(proven.seconds, 3),
        census=proven.census,
        sqlite_version=proven.sqlite_version,
        tool_version=t3_backup.__version__,
    )
