"""One snapshot of one account, from the copy to its name: copied, settled, hashed and proven, judged, published.

Two workers do it: the one that copies holds the new file and is dead before anybody believes what is in it; the one that
proves can only read it. Beside the second, root hashes the same bytes. Until `publish` nothing has a name.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import t3_backup
from t3_backup import manifest as manifests
from t3_backup import owner, verdict
from t3_backup.accounts import Account
from t3_backup.blank import Content, header_bytes
from t3_backup.errors import WorkerLost
from t3_backup.manifest import Manifest
from t3_backup.protocol import Copied, Proven
from t3_backup.shelf import Shelf
from t3_backup.verdict import Verdict
from t3_backup.verify import examine
from t3_backup.watch import Limits, Listener


@dataclass(frozen=True)
class Order:
    """Whose snapshot to take, and how."""

    account: Account
    limits: Limits  # of copy and proof together
    label: str | None
    when: datetime  # before the pin: what was committed by then is in the snapshot
    stopping: threading.Event
    listen: Listener


def take(order: Order, shelf: Shelf, before: Sequence[Manifest], *, witness: Manifest | None = None) -> Manifest:
    """Take, seal and publish one; `before` are those on the shelf, newest first.

    As a `witness` of a damaged snapshot it is a VACUUM of the same source: worth having, never taken for good. Raises Failure
    and OSError, and then nothing is named.
    """
    until = time.monotonic() + order.limits.seconds
    with shelf.begin() as blank:
        method = "vacuum" if witness else "online"
        copied = owner.copy(order.account, blank.writer, order.limits, order.stopping, order.listen, method=method)
        blank.settle()
        left = replace(order.limits, seconds=max(0.0, until - time.monotonic()))
        fd = blank.open()
        try:
            content, proven = examine(order.account, fd, left, order.stopping, order.listen)
            if not proven.problems:
                _must_agree(content, header_bytes(fd), copied, proven)
        finally:
            os.close(fd)
        judged = _judge(copied, proven, before, witness)
        snapshot = _manifest(order, shelf, before, copied, proven, content, judged)
        shelf.publish(blank, snapshot)
        return snapshot


def _must_agree(content: Content, header: int | None, copied: Copied, proven: Proven) -> None:
    """The bytes are as many as the header and the census say, and hold what the source held. Raises WorkerLost."""
    counted = proven.census.page_count * proven.census.page_size
    if not content.bytes == counted == header:
        raise WorkerLost(f"the copy has {content.bytes} bytes, its census counts {counted}, its header {header}")
    if found := verdict.disagreements(copied, proven.census):
        raise WorkerLost(f"the copy is not what the source was: {'; '.join(found[:3])}")


def _judge(copied: Copied, proven: Proven, before: Sequence[Manifest], witness: Manifest | None) -> Verdict:
    previous = next((snapshot for snapshot in before if _is_yardstick(snapshot)), None)
    judged = verdict.judge(proven.problems, proven.census, copied.method, previous)
    if witness and judged.verdict != "damaged":
        return Verdict("suspect", (f"rebuilt by VACUUM INTO from the damaged source of {witness.name}",))
    return judged


def _is_yardstick(snapshot: Manifest) -> bool:
    """Whether what comes later is measured by it: a good one, or a loss that somebody has accepted. A VACUUM's is no loss."""
    accepted = snapshot.verdict == "suspect" and snapshot.accepted_at is not None and snapshot.method == "online"
    return snapshot.verdict == "verified" or accepted


def _manifest(
    order: Order,
    shelf: Shelf,
    before: Sequence[Manifest],
    copied: Copied,
    proven: Proven,
    content: Content,
    judged: Verdict,
) -> Manifest:
    return Manifest(
        format=manifests.FORMAT,
        sequence=1 + max((snapshot.sequence for snapshot in before), default=0),
        user=order.account.user,
        name=manifests.snapshot_name(order.when, order.label, shelf.taken_names()),
        taken_at=manifests.format_time(order.when),
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
