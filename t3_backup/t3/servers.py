"""The T3 server of each account: whether it runs, who works with it, and that it is gone; and its owner's processes, as himself."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t3_backup import accounts
from t3_backup.accounts import Account
from t3_backup.errors import Failure
from t3_backup.system import transient_unit
from t3_backup.system.systemd import Service
from t3_backup.t3 import pairing
from t3_backup.t3.files import state_database

_CGROUPS = Path("/sys/fs/cgroup")
_PORT = re.compile(r'\s*(?:export\s+)?T3_PORT=["\']?(\d{1,5})["\']?\s*')
_LOOK_S = 30
_PAIR_S = 60
# What comes of a text that an owner may have put in the place of ours: they are the same user.
_NO_ANSWER = (ValueError, KeyError, TypeError, RecursionError)
_POLL_S = 0.1


@dataclass(frozen=True)
class Activity:
    """What the live database of an account says."""

    level: int | None
    turns: int  # that agents are at


@dataclass(frozen=True)
class Server:
    """One account and its server."""

    account: Account
    service: Service | None  # None: systemd has no unit of that name
    port: int | None  # None: nothing says where it listens
    settings: Path  # which would say it

    @property
    def user(self) -> str:
        """Whose it is."""
        return self.account.user

    @property
    def base_dir(self) -> Path:
        """Where his T3 has its state."""
        return self.account.home / ".t3"

    def runs(self) -> bool:
        """Whether it runs, or is about to."""
        return self.service is not None and self.service.runs()

    def has_crashed(self) -> bool:
        """Whether it has ended by itself, and badly."""
        return self.runs() and self.service is not None and self.service.show("ActiveState") == "failed"

    def must_have_port(self) -> None:
        """Raises Failure where nothing says where it listens."""
        if self.port is None:
            raise Failure(f"{self.user}: {self.settings} has no T3_PORT to log in at")

    def look(self) -> Activity | None:
        """What his database says, read as him; None where there is none. Raises Failure."""
        done = self._as_owner([*_python("activity"), str(state_database(self.account.home))], _LOOK_S)
        try:
            value = json.loads(done)
            return None if value is None else Activity(_integer(value["level"]), _integer(value["turns"]) or 0)
        except _NO_ANSWER:
            raise Failure(f"{self.user}: {state_database(self.account.home)} can't be looked at") from None

    def busy(self) -> str:
        """Who works with it now, for a person; empty where nobody does. Raises Failure."""
        if not self.runs():
            return ""
        agents = self.agents()
        if agents:
            return f"{agents[0]} runs beneath {self._unit()}" + (f", and {len(agents) - 1} more" if len(agents) > 1 else "")
        live = self.look()
        return f"{live.turns} turns are in flight" if live is not None and live.turns else ""

    def agents(self) -> list[str]:
        """The processes beneath the unit that are not the server itself: what its agents and terminals run."""
        assert self.service is not None
        main = self.service.show("MainPID")
        return [f"{_name(pid)} (pid {pid})" for pid in self._processes() if pid != main]

    def stop(self) -> None:
        """Stop it, and prove it gone. Raises Failure where anything of it goes on.

        A login that is being tried ends first: what mints for it may be another version than the one that is next.
        """
        transient_unit.end_owners(self.user)
        if self.service is None:
            return
        group = self.service.show("ControlGroup")
        self.service.stop(mask=False)
        left = _members(group)
        if self.service.show("MainPID") != "0" or left:
            names = ", ".join(f"{_name(pid)} (pid {pid})" for pid in left)
            raise Failure(f"{self._unit()} was stopped, and {names or 'its process'} goes on")

    def start(self) -> None:
        """Start it. Raises Failure."""
        if self.service is not None:
            self.service.release(unmask=False, start=True)

    def await_port(self, seconds: float) -> None:
        """Until it listens. Raises Failure where it ends, or doesn't within so many seconds."""
        assert self.service is not None
        until = time.monotonic() + seconds
        while not self._listens():
            state = self.service.show("ActiveState")
            if state not in ("active", "activating", "reloading"):
                raise Failure(f"{self._unit()} ended right after its start (it is {state}): journalctl -u {self._unit()}")
            if time.monotonic() >= until:
                raise Failure(f"{self._unit()} does not listen on port {self.port} after {seconds:g} s")
            time.sleep(_POLL_S)

    def steadiness(self) -> tuple[str, str, str]:
        """What changes when it ends or starts again: state, main process, number of restarts."""
        assert self.service is not None
        return self.service.show("ActiveState"), self.service.show("MainPID"), self.service.show("NRestarts")

    def pair(self, program: Path, patience: float) -> str:
        """Log in to it as a browser does, with a credential that `program` mints as the owner; the endpoint. Raises Failure.

        Each step may take `patience` seconds, and no more than a person at a browser would wait.
        """
        if not self.runs():
            raise Failure(f"{self.user}: no server runs")
        self.must_have_port()
        line = [*_python("pairing"), f"--t3={program}", f"--base-dir={self.base_dir}", f"--port={self.port}", "--json"]
        line.append(f"--seconds={min(patience, pairing.SECONDS):g}")
        done = transient_unit.as_owner(self.user, line, _PAIR_S)
        try:
            said = json.loads(done.out)
            if done.code == 0 and said["paired"] is True:
                return str(said["endpoint"])[:200]
            reason = f"{said['step']}: {said['reason']}"
        except _NO_ANSWER:
            reason = "the check took too long" if done.timed_out else f"the check ended with {done.code}: {done.err[-300:].strip()}"
        raise Failure(f"{self.user}: no login on port {self.port}: {reason[:500]}")

    def _listens(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port or 0), timeout=1):
                return True
        except OSError:
            return False

    def _processes(self) -> list[str]:
        assert self.service is not None
        return _members(self.service.show("ControlGroup"))

    def _as_owner(self, line: Sequence[str], seconds: float) -> str:
        done = transient_unit.as_owner(self.user, line, seconds)
        if done.code != 0:
            why = "it took too long" if done.timed_out else (done.err.strip().splitlines() or [f"exit status {done.code}"])[-1]
            raise Failure(f"{self.user}: {why[:500]}")
        return done.out

    def _unit(self) -> str:
        return self.service.unit if self.service else f"the server of {self.user}"


def find_server(user: str, serve: Path) -> Server:
    """The one of `user`; `serve` is the folder with USER.env. Raises Failure."""
    settings = serve / f"{user}.env"
    return Server(accounts.find(user), Service.of(user), _port(settings), settings)


def _port(path: Path) -> int | None:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}") from None
    found = [int(match[1]) for line in lines if (match := _PORT.fullmatch(line))]
    return found[-1] if found and 0 < found[-1] < 65536 else None


def _python(module: str) -> list[str]:
    return [sys.executable, "-I", "-m", f"t3_backup.t3.{module}"]


def _members(group: str) -> list[str]:
    """The processes of a control group and of those beneath it; none where it has gone."""
    if not group.startswith("/") or group == "/":
        return []
    found: set[str] = set()
    for path in (_CGROUPS / group.lstrip("/")).rglob("cgroup.procs"):
        with contextlib.suppress(OSError):  # it has gone in between
            found |= set(path.read_text(encoding="ascii").split())
    return sorted(found, key=int)


def _name(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "a process"


def _integer(value: Any) -> int | None:
    return value if type(value) is int else None
