"""Make the online copy alone, as a worker does, into an unnamed file.

`python3 -m bench.ours SOURCE FD`: FD is an inherited descriptor of an empty file, open for reading
and writing. Runs as whoever may read SOURCE; proves and seals nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path

from t3_backup.system import native
from t3_backup.t3.files import STATE_DATABASE
from t3_backup.worker.child import copy as child_copy
from t3_backup.worker.child import source
from t3_backup.worker.child.pinned_read import Budget
from t3_backup.worker.child.vfs import Destination, register_vfs

_SECONDS = 300.0
_WAL_BYTES = 1 << 30


def main() -> int:
    """Copy and sync."""
    path, fd = Path(sys.argv[1]), int(sys.argv[2])
    register_vfs()
    home = path.parents[STATE_DATABASE.count("/")]
    found = source.find_database(str(home), path.stat().st_uid)
    budget = Budget(found, _SECONDS, _WAL_BYTES)
    with Destination(fd) as destination:
        copy = child_copy.copy_database(found, destination, budget)
    native.sync_file(fd)
    if copy.method != "online":
        raise RuntimeError(f"the copy fell back to {copy.method}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
