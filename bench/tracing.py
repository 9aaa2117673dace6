"""Count by strace what a compaction reads: to pack, and to prove."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from t3_backup.store.names import PAGES

_CALL = re.compile(r"(\d+) +(\w+)\(\d+<([^>]*)>")
_RESUMED = re.compile(r"(\d+) +<\.\.\. \w+ resumed>")
_RESULT = re.compile(r"= (\d+)$")
_READS = {"read", "pread64", "preadv", "preadv2"}


@dataclass(frozen=True)
class Reads:
    """Bytes."""

    images: int  # size of the two images
    hashes: int  # of their pages: by these it is found what differs
    packing: int  # read besides, before the proof begins
    proof: int


def trace(command: Sequence[str], cwd: Path, log: Path, account_dir: Path, images: int) -> Reads:
    """Run a compaction in `account_dir`, where two plain ones have `images` bytes.

    Raises CalledProcessError.
    """
    calls = ",".join([*sorted(_READS), "fadvise64"])
    options = ["-f", "-qq", "-y", "-e", f"trace={calls}", "-e", "signal=none", "-o", str(log)]
    null = subprocess.DEVNULL
    line = ["strace", *options, *command]
    subprocess.run(line, cwd=cwd, check=True, stdin=null, stdout=null, stderr=null)
    with log.open(encoding="utf-8", errors="replace") as lines:
        return Reads(images, *count(lines, str(account_dir)))


def count(lines: Iterable[str], folder: str) -> tuple[int, int, int]:
    """Sum the bytes read in `folder`: of page hashes, and before and after an fadvise.

    The advice is to drop what is in memory: the proof is of what the disk holds.
    """
    hashes = packing = proof = 0
    advised = False
    # by thread: the file, if what it has begun is a read that counts
    waiting: dict[str, str | None] = {}
    for line in lines:
        if call := _CALL.match(line):
            thread, name, path = call.groups()
            inside = path.startswith(f"{folder}/")
            advised |= inside and name == "fadvise64"
            waiting[thread] = read = path if inside and name in _READS else None
        elif resumed := _RESUMED.match(line):
            read = waiting.get(resumed[1])
        else:
            continue
        if read is None or not (result := _RESULT.search(line.rstrip())):
            continue
        if read.endswith(PAGES):
            hashes += int(result[1])
        elif advised:
            proof += int(result[1])
        else:
            packing += int(result[1])
    return hashes, packing, proof
