"""Trees to boot: a small Debian with systemd and, in a repository of its own, every package that tests may install there.

A tree is made once and kept in a cache: `fresh` as Debian leaves it, `prepared` with what our
packages need, `installed` with them. The mirror, and what apt has to know to reach it, are the
host's own. Nothing ever writes to a tree that is finished: machines lay an overlay over it.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

SUITES = ("bookworm", "trixie")
CACHE = Path(os.environ.get("T3_TEST_CACHE") or "/var/cache/t3-backup-tests")
_OLDEST_S = 7 * 24 * 3600

# What a small server has. No Python: the package must bring it.
_INSTALLED = "systemd systemd-sysv passwd tzdata less procps man-db logrotate"
_NEEDED = "python3 python3-apsw python3-cffi-backend python3-seccomp python3-systemd python3-zstandard python3-rich python3-jinja2 python3-prometheus-client"
_NEEDED += " python3-aiohttp default-dbus-system-bus"
# What tests install: with what each recommends, as apt does by itself, and without.
_WANTED = f"{_NEEDED} sqlite3"
_WANTED_BARE = "python3-pytest python3-hypothesis strace autopkgtest dbus procps zstd"

_CHECKOUTS = 4  # installed trees that stay: of one checkout there are two a release

# In namespaces of its own: TREE, and the packages as they are called in there.
_INSTALL = """
mount -t proc proc "$1/proc"
export DEBIAN_FRONTEND=noninteractive PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8
chroot "$1" apt-get -qq --yes -o Dpkg::Options::=--force-unsafe-io install "${@:2}"
"""

_HOOK = f"""
set -e
fetch() {{ APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get -qq --yes --download-only -o APT::Keep-Downloaded-Packages=true install "$@"; }}
fetch -o APT::Install-Recommends=true {_WANTED}
fetch -o APT::Install-Recommends=false {_WANTED_BARE}
mkdir -p "$1/srv/packages"
mv "$1"/var/cache/apt/archives/*.deb "$1/srv/packages"
cd "$1/srv/packages"
dpkg-scanpackages --multiversion . > Packages 2>/dev/null
rm -rf "$1"/etc/apt/sources.list "$1"/etc/apt/sources.list.d/* "$1"/etc/apt/apt.conf.d/99mmdebstrap "$1"/var/lib/apt/lists/*
echo 'deb [trusted=yes] file:/srv/packages ./' > "$1/etc/apt/sources.list"
chroot "$1" apt-get -qq update
# A machine that has been booted before, so that nothing is asked; not in UTC, so that local time is another.
echo 00000000000000000000000000000001 > "$1/etc/machine-id"
ln -sf /usr/share/zoneinfo/Europe/Berlin "$1/etc/localtime"
echo Europe/Berlin > "$1/etc/timezone"
echo machine > "$1/etc/hostname"
"""


@contextmanager
def tree(suite: str, *, prepared: bool = False) -> Iterator[Path]:
    """A finished tree of `suite`, which stays for as long as the block; made where there is none, or an old one.

    A `prepared` one has all that the package needs installed already.
    """
    include = f"{_INSTALLED} {_NEEDED}" if prepared else _INSTALLED
    recipe = _short_hash(repr(_command(suite, include, Path("TREE"), Path("CONF"))).encode())

    def make(unfinished: Path) -> None:
        conf = unfinished / "apt.conf"
        conf.write_text(_output("apt-config", "dump", "Acquire", "--no-empty"))
        _run(
            _command(suite, include, unfinished / "tree", conf),
            f"mmdebstrap of {suite}",
            {"TMPDIR": str(unfinished)},
        )

    with _cached(f"{suite}-prepared" if prepared else f"{suite}-fresh", recipe, make) as folder:
        yield folder


@contextmanager
def installed_tree(suite: str, debs: Sequence[Path]) -> Iterator[Path]:
    """A finished tree of `suite` in which packages of ours are installed as apt does it, and
    nothing has run yet."""
    with tree(suite, prepared=True) as below:

        def make(unfinished: Path) -> None:
            target = unfinished / "tree"
            subprocess.run(["cp", "-a", below, target], check=True)
            for deb in debs:
                shutil.copy(deb, target / "root")
            names = [f"/root/{deb.name}" for deb in debs]
            _run(
                [
                    "unshare",
                    "--mount",
                    "--pid",
                    "--fork",
                    "--kill-child",
                    "bash",
                    "-euc",
                    _INSTALL,
                    "bash",
                    str(target),
                    *names,
                ],
                "apt",
            )
            for name in names:
                (target / name.removeprefix("/")).unlink()

        recipe = _short_hash(
            b"".join([below.name.encode(), _INSTALL.encode(), *(deb.read_bytes() for deb in debs)])
        )
        with _cached(f"{suite}-installed", recipe, make, keep=_CHECKOUTS) as folder:
            yield folder


@contextmanager
def _cached(kind: str, recipe: str, make: Callable[[Path], None], keep: int = 1) -> Iterator[Path]:
    """The tree of that recipe, held for as long as the block; `make` makes `tree` in a folder where there is none, or an old one.

    Of the kind as many stay as are to be kept, and those that somebody holds.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        with locked(CACHE / f"{kind}.lock"):
            found = [
                path
                for path in CACHE.glob(f"{kind}-{recipe}-*")
                if time.time() - _made(path) < _OLDEST_S
            ]
            folder = max(found, key=_made, default=None) or _make(kind, recipe, make)
            stack.enter_context(locked(folder, shared=True))
            others = [path for path in CACHE.glob(f"{kind}-*-*") if path != folder]
            for other in sorted(others, key=_made, reverse=True)[keep - 1 :]:
                remove_unless_in_use(other)
        yield folder


def _made(folder: Path) -> int:
    return int(folder.name.rsplit("-", 1)[1])


def _make(kind: str, recipe: str, make: Callable[[Path], None]) -> Path:
    """Make a tree, alone; under its name once it is whole."""
    for killed in CACHE.glob(f"new-{kind}-*"):
        shutil.rmtree(killed)
    unfinished = Path(tempfile.mkdtemp(prefix=f"new-{kind}-", dir=CACHE))
    try:
        make(unfinished)
        folder = CACHE / f"{kind}-{recipe}-{int(time.time())}"
        (unfinished / "tree").rename(folder)
        return folder
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _run(command: list[str], what: str, environ: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | dict(environ or {})
    )
    if done.returncode != 0:
        raise RuntimeError(f"{what} failed:\n{done.stdout[-1000:]}{done.stderr[-3000:]}")


def _short_hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]


def _command(suite: str, include: str, target: Path, conf: Path) -> list[str]:
    options = [
        "--quiet",
        "--mode=root",
        "--variant=apt",
        "--format=directory",
        f"--include={include.replace(' ', ',')}",
    ]
    options += [
        f"--aptopt={conf}",
        "--dpkgopt=force-unsafe-io",
        "--skip=cleanup/apt/lists",
        f"--customize-hook={_HOOK}",
    ]
    return ["mmdebstrap", *options, suite, str(target), f"deb {_mirror()} {suite} main"]


@functools.cache
def _mirror() -> str:
    """Where the host has its own Debian from, in whatever form that is written down."""
    codename = next(
        line
        for line in Path("/etc/os-release").read_text().splitlines()
        if line.startswith("VERSION_CODENAME=")
    )
    release = codename.partition("=")[2].strip('"')
    targets = _output(
        "apt-get",
        "indextargets",
        "--format",
        "$(REPO_URI) $(RELEASE) $(COMPONENT)",
        "Created-By: Packages",
    )
    for line in targets.splitlines():
        uri, *rest = line.split()
        if rest == [release, "main"]:
            return uri
    raise RuntimeError(f"no source of apt has {release} main")


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold a file (made if it is not there) or a folder."""
    flags = os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def remove_unless_in_use(folder: Path) -> None:
    """Remove a folder that nobody holds."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    for name in SUITES:
        for kind in (True, False):
            with tree(name, prepared=kind) as made:
                print(made)
