"""Acquire the lock of a store without waiting for it; exit with 75 where another one holds it.

Usage: STORE.
"""

import os
import sys
from pathlib import Path

from t3_backup.errors import LockHeld
from t3_backup.store import lock


def main() -> None:
    path = Path(sys.argv[1])
    fd = os.open(path, os.O_RDONLY)
    try:
        lock.acquire(fd, path, wait=0)
    except LockHeld:
        sys.exit(75)


if __name__ == "__main__":
    main()
