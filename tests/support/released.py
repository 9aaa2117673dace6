"""Version 0.1.0 as it was released, to be run against a store of today: a downgrade, and what an
older version that is still installed elsewhere makes of it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.host import Answer, Host
from support.old_stores import DATA, unpack


@dataclass(frozen=True)
class Released:
    """The code of 0.1.0, built in a folder of its own."""

    folder: Path

    def t3(self, host: Host, *words: str, timeout: float = 120, **more: str) -> Answer:
        """Call its `t3-backup-state` on that host; further settings as T3_BACKUP_... keywords."""
        line = [sys.executable, "-m", "t3_backup", *words]
        environ = host.env(**more) | {"PYTHONPATH": str(self.folder)}
        return Answer.of(line, environ, cwd=self.folder, timeout=timeout)


@contextmanager
def build_released() -> Iterator[Released]:
    """Build it where every user may read it; it is gone when the block is left."""
    folder = Path(tempfile.mkdtemp(prefix="t3-released-", dir="/var/tmp"))
    try:
        folder.chmod(0o755)
        unpack(DATA / "released-0.1.0.tar.zst", folder)
        line = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
        subprocess.run(line, cwd=folder, check=True, capture_output=True)
        yield Released(folder)
    finally:
        shutil.rmtree(folder)
