"""A stand-in for T3 Code, as far as a backup and a version bump see it: commands, database, migrations, logins, how it stops.

`tarball` makes what `npm install -g` takes. What it does is in `program/`, of which `bin.py` runs
by itself; how it differs from version to version, and how a bad one is bad, is written into the
package (`variant.json`).
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
DATA = HERE.parent.parent / "demo" / "data"
_BESIDE = (
    *sorted((HERE / "program").glob("*.py")),
    *sorted((HERE / "program").glob("*.sql")),
    # the import and the compaction of V2, which tests run by themselves, too
    *(HERE.parent / "support/programs" / f"{name}_v2.py" for name in ("import", "compact")),
    *(HERE.parent / "data/t3" / name for name in ("schema-61.sql", "ledger-61.txt")),
)
# From 0.0.42 on a server keeps a program of its package running; this one reads, and waits.
_MONITOR = "dist/resource-monitor/linux-x64/t3-resource-monitor"
_EXECUTABLE = ("dist/bin.py", _MONITOR)
# Each kind of a bad version that a trial can tell, and the step at which it does.
STEPS = {
    "exits": "start",
    "crash-loop": "steady",
    "hung": "serve",
    "pairing-renamed": "pairing",
    "unreadable": "data",
    "lost-threads": "data",
    "blanked": "data",
    "slow-migration": "serve",
    "half-migration": "start",
    "migrates-and-dies": "start",
    "ignores-term": "stop",
    "slow-stop": "stop",
    "mint-broken": "pairing",
    "no-cookie": "pairing",
    "not-authenticated": "pairing",
}
# Of these, those that never answer: a probe of liveness tells them, and no other.
SILENT = ("exits", "hung", "slow-migration", "half-migration", "migrates-and-dies")
# Good ones that are slow: the seconds of each of what they do.
SLOW = {
    "slow-mint": {"mint": 2.5},
    "slow-start": {"start": 16.0},
    "slow-good": {"start": 6.0, "mint": 2.5, "answer": 1.0, "stop": 4.0, "version": 1.0},
}
VARIANTS = ("good", *SLOW, *STEPS, "other-ledger", "hostile")


def tarball(
    folder: Path,
    version: str,
    variant: str = "good",
    live_only: bool = False,
    targets: Sequence[str] = (),
) -> Path:
    """Make `t3-VERSION.tgz` in `folder`. `live_only`: it is good, but where /run/t3-fake-live is to be seen.

    `targets`: what the hostile one tries besides, as it names it: `tcp HOST:PORT`, `udp HOST:PORT`,
    `unix PATH` (or @ABSTRACT), `read PATH`, `write FOLDER`, `parent FILE` (of /proc/PID, to be
    written to), `namespace user`.
    """
    assert variant in VARIANTS
    about = {
        "version": version,
        "variant": variant,
        "live_only": live_only,
        "targets": list(targets),
        "slow": dict(SLOW.get(variant, {})),
    }
    package = {
        "name": "t3", "version": version, "license": "MIT", "description": "A stand-in for T3 Code", "bin": {"t3": "dist/bin.py"},
    }  # fmt: skip
    files = {
        "package.json": json.dumps(package).encode(),
        "dist/variant.json": json.dumps(about).encode(),
        _MONITOR: Path("/bin/cat").read_bytes(),
        **{f"dist/{path.name}": path.read_bytes() for path in _BESIDE},
    }
    path = folder / f"t3-{version}.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(f"package/{name}")
            info.size, info.mode = len(data), 0o755 if name in _EXECUTABLE else 0o644
            archive.addfile(info, io.BytesIO(data))
    return path


def unpack(
    folder: Path,
    version: str,
    variant: str = "good",
    live_only: bool = False,
    targets: Sequence[str] = (),
) -> Path:
    """Lay it out as `npm install -g --prefix FOLDER` does; the program."""
    package = folder / "lib" / "node_modules" / "t3"
    package.mkdir(parents=True)
    with tarfile.open(tarball(folder, version, variant, live_only, targets)) as archive:
        for member in archive:
            member.name = member.name.removeprefix("package/")
            archive.extract(member, package)
    (folder / "bin").mkdir()
    (folder / "bin" / "t3").symlink_to("../lib/node_modules/t3/dist/bin.py")
    return folder / "bin" / "t3"
