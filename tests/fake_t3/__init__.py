"""A stand-in for T3 Code, as far as a backup and a version bump see it: commands, database, migrations, logins, how it stops.

`tarball` makes what `npm install -g` takes. What it does is in `program.py`, which runs by itself;
how it differs from version to version, and how a bad one is bad, is written into the package
(`variant.json`).
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
DATA = HERE.parent.parent / "demo" / "data"
# Each kind of a bad version that a trial can tell, and the step at which it does.
STEPS = {
    "exits": "start",
    "crash-loop": "steady",
    "hung": "serve",
    "pairing-renamed": "pairing",
    "unreadable": "data",
    "blanked": "data",
    "slow-migration": "serve",
    "half-migration": "start",
    "ignores-term": "stop",
    "slow-stop": "stop",
    "mint-broken": "pairing",
    "no-cookie": "pairing",
    "not-authenticated": "pairing",
}
VARIANTS = ("good", *STEPS, "hostile")


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
    }
    package = {
        "name": "t3", "version": version, "license": "MIT", "description": "A stand-in for T3 Code", "bin": {"t3": "dist/bin.py"},
    }  # fmt: skip
    files = {
        "package.json": json.dumps(package).encode(),
        "dist/bin.py": (HERE / "program.py").read_bytes(),
        "dist/variant.json": json.dumps(about).encode(),
        "dist/hostile.py": (HERE / "hostile.py").read_bytes(),
        "dist/schema.sql": (HERE / "schema.sql").read_bytes(),
        "dist/auth-31.sql": (HERE / "auth-31.sql").read_bytes(),
    }
    path = folder / f"t3-{version}.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(f"package/{name}")
            info.size, info.mode = len(data), 0o755 if name.endswith("bin.py") else 0o644
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
