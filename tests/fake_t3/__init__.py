"""A stand-in for T3 Code, as far as a backup and a version bump see it: commands, database, migrations, logins, how it stops.

`tarball` makes what `npm install -g` takes. What it does is in `program/`, of which `bin.py` runs
by itself; how it differs from version to version, and how a bad one is bad, is written into the
package (`variant.json`). The forms that a package has are in `forms.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from fake_t3 import forms

HERE = forms.HERE
DATA = HERE.parent.parent / "demo" / "data"
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
# And those that show where trials are compared: it does as well with nothing as with data.
GATE_STEPS = STEPS | {"other-ledger": "migration"}
# Of these, those that never answer: a probe of liveness tells them, and no other.
SILENT = ("exits", "hung", "slow-migration", "half-migration", "migrates-and-dies")
# Good ones that are slow: the seconds of each of what they do.
SLOW = {
    "slow-mint": {"mint": 2.5},
    "slow-start": {"start": 16.0},
    "slow-good": {"start": 4.0, "mint": 2.5, "answer": 0.5, "stop": 3.0, "version": 1.0},
}
VARIANTS = ("good", *SLOW, *GATE_STEPS, "hostile")


def tarball(
    folder: Path,
    version: str,
    variant: str = "good",
    live_only: bool = False,
    targets: Sequence[str] = (),
    *,
    form: str = "npm",
    engines: str = "",
    scripts: Mapping[str, str] = MappingProxyType({}),
    beside: Mapping[str, bytes] = MappingProxyType({}),
) -> Path:
    """Make `t3-VERSION.tgz` in `folder`. `live_only`: it is good, but where /run/t3-fake-live is to be seen; what that holds are the users alone for whom it is bad.

    `scripts` are those that npm runs while it installs; `beside` are files of the package besides.

    `targets`: what the hostile one tries besides, as it names it: `tcp HOST:PORT`, `udp HOST:PORT`,
    `unix PATH` (or @ABSTRACT), `read PATH`, `write FOLDER`, `parent FILE` (of /proc/PID, to be
    written to), `namespace user`.
    """
    about = _about(version, variant, live_only, targets)
    files = forms.package_files(form, about, engines)
    package = json.loads(files["package.json"][0]) | ({"scripts": dict(scripts)} if scripts else {})
    files["package.json"] = (json.dumps(package).encode(), 0o644)
    files |= {name: (data, 0o644) for name, data in beside.items()}
    return forms.pack(files, folder / f"t3-{version}.tgz")


def unpack(
    folder: Path,
    version: str,
    variant: str = "good",
    live_only: bool = False,
    targets: Sequence[str] = (),
    *,
    form: str = "npm",
) -> Path:
    """Lay it out as `npm install -g --prefix FOLDER` does; the program."""
    files = forms.package_files(form, _about(version, variant, live_only, targets))
    about = json.loads(files["package.json"][0])
    package = Path("lib/node_modules") / about["name"]
    forms.write(files, folder / package)
    (folder / "bin").mkdir()
    if "bin" not in about:  # npm makes no link
        return folder / package / "t3"
    (folder / "bin" / "t3").symlink_to(Path("..", package, about["bin"]["t3"]))
    return folder / "bin" / "t3"


def install_own(home: Path, version: str, variant: str = "good") -> Path:
    """Lay it out as `t3 update` does for one user, whose `~/.local/bin/t3` is a link to it."""
    folder = home / ".t3/runtime/versions" / version
    forms.write(forms.executable_files(_about(version, variant, False, ())), folder)
    (folder / ".install-complete").touch()
    link = home / ".local/bin/t3"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(folder / "t3")
    return link


def _about(
    version: str, variant: str, live_only: bool, targets: Sequence[str]
) -> dict[str, object]:
    """What the program knows of itself."""
    assert variant in VARIANTS
    return {
        "version": version,
        "variant": variant,
        "live_only": live_only,
        "targets": list(targets),
        "slow": SLOW.get(variant, {}),
    }
