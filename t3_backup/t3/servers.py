"""Start, stop and watch the T3 server of an account, and ask it as its owner."""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from t3_backup import accounts
from t3_backup.accounts import Account
from t3_backup.errors import Failure
from t3_backup.system import transient_unit
from t3_backup.system.systemd import Service
from t3_backup.t3 import limits
from t3_backup.t3.databases import DatabaseState
from t3_backup.t3.endpoints import ENVIRONMENT_PATH, HOST
from t3_backup.t3.files import DATABASE_NAME, base_dir
from t3_backup.t3.login_probe import LoginProbe
from t3_backup.t3.members import describe_process, list_pids
from t3_backup.t3.running_program import read_running_program
from t3_backup.t3.unit import PORT_VARIABLE, STOPPED_STATUS, unit_name
from t3_backup.text import quote

_PORT = re.compile(rf'\s*(?:export\s+)?{PORT_VARIABLE}=["\']?(\d{{1,5}})["\']?\s*')
_POLL_S = 0.1
_FIRST_TRY_S = 1.0


@dataclass(frozen=True)
class Activity:
    """What the databases of an account say, as its owner reads them."""

    level: int | None  # of the live one; None: it is no database of T3's
    turns: int  # that agents are at, by the live one
    live: str = DATABASE_NAME  # its file name
    databases: tuple[DatabaseState, ...] = ()  # the live one among them
    free_bytes: int = 0  # of the file system that they are on, for their owner

    def of_program(self, own: str | None) -> DatabaseState | None:
        """Find the database that a program works with which makes one named `own` (None: unknown).

        That is the live one, but that nothing is open, and another changed last. None where it is
        not among what was read.
        """
        found = {one.file: one for one in self.databases}
        held = any(one.held for one in self.databases)
        return found.get(self.live if held or own not in found else own)


Look = Callable[[Account], Activity | None]  # None: there is no database; raises Failure


@dataclass(frozen=True)
class Server:
    """One account and its server."""

    account: Account
    service: Service | None  # None: systemd has no unit of that name
    port: int | None  # None: nothing says where it listens
    settings: Path  # which would say it
    look: Look  # at what it is at

    @property
    def user(self) -> str:
        """Name its owner."""
        return self.account.user

    @property
    def base_dir(self) -> Path:
        """Say where its T3 keeps the state."""
        return base_dir(self.account.home)

    def runs(self) -> bool:
        """Tell whether it runs, or is about to."""
        return self.service is not None and self.service.runs()

    def has_crashed(self) -> bool:
        """Tell whether it has ended by itself, and badly."""
        service = self.service
        return service is not None and service.runs() and service.show("ActiveState") == "failed"

    def running_program(self) -> Path | None:
        """Read which T3 its main process runs; None where none runs, or that can't be told.

        Raises Failure.
        """
        main = "0" if self.service is None else self.service.show("MainPID")
        return read_running_program(int(main)) if main.isdigit() and main != "0" else None

    def read_activity(self) -> Activity | None:
        """Read from its database, as its owner; None where there is none. Raises Failure."""
        return self.look(self.account)

    def stop(self) -> None:
        """Stop it, and prove it gone. Raises Failure where any of its processes goes on.

        A login that is being tried is ended first: the program that mints for it may be of another
        version than the next one. With a browser connected a server takes some 20 seconds to end.
        """
        transient_unit.end_owners(self.user)
        if self.service is None:
            return
        group = self.service.show("ControlGroup")
        self.service.stop(mask=False)
        left = list_pids(group)
        if self.service.show("MainPID") != "0" or left:
            names = ", ".join(map(describe_process, left)) or "its process"
            raise Failure(f"{self.service.unit} was stopped, and {names} goes on")

    def start(self) -> None:
        """Start it. Raises Failure."""
        if self.service is not None:
            self.service.release(unmask=False, start=True)

    def await_answer(self, patience: float) -> None:
        """Wait until it answers: `patience` seconds, and longer where its databases are large.

        It is asked again and again, for twice as long each time: what a server is asked when it has
        just begun to listen, it may never answer. Raises Failure where it ends, does not answer in
        this time, or has no known port.
        """
        assert self.service is not None
        port, unit = self._require_port(), self.service.unit
        began, seconds, one_try = time.monotonic(), patience, _FIRST_TRY_S
        extended = False
        while True:
            left = began + seconds - time.monotonic()
            if answers := _ask(port, max(_POLL_S, min(one_try, left))):
                return
            state = self.service.show("ActiveState")
            if state not in ("active", "activating", "reloading"):
                ended = f"{unit} ended right after its start (it is {state})"
                raise Failure(f"{ended}: journalctl -u {quote(unit)}")
            if time.monotonic() - began >= seconds:
                if extended:
                    what = "does not listen" if answers is None else "listens and does not answer"
                    raise Failure(f"{unit} {what} on port {port} after {seconds:g} s")
                # it may still migrate them
                seconds, extended = limits.start_seconds(patience, self._database_bytes()), True
            if answers is False:
                one_try = min(2 * one_try, patience)
            time.sleep(_POLL_S)

    def _database_bytes(self) -> int:
        """Ask how large its databases are, as its owner; 0 where that can't be told."""
        with contextlib.suppress(Failure):
            if (found := self.read_activity()) is not None:
                return sum(one.bytes for one in found.databases)
        return 0

    def run_state(self) -> tuple[str, str, str]:
        """Read what changes when it ends or starts again: state, main process, restarts."""
        assert self.service is not None
        show = self.service.show
        return show("ActiveState"), show("MainPID"), show("NRestarts")

    def log_in(self, program: Path, patience: float, warn: Callable[[str], None]) -> str:
        """Log in as a browser does, by what `program` mints; return the endpoint.

        Each step may take `patience` seconds; where one took longer, `warn` hears of it, and it is
        tried once more. The login stays until `end_logins`. Raises Failure.
        """
        if not self.runs():
            raise Failure(f"{self.user}: no server runs")
        return self._login_probe(program, patience).log_in(warn)

    def end_logins(self, program: Path, patience: float) -> str:
        """End the logins that checks have left; return what is left, and why. Empty: nothing is."""
        return self._login_probe(program, patience).end_logins()

    def _login_probe(self, program: Path, patience: float) -> LoginProbe:
        return LoginProbe(self.user, self._require_port(), self.base_dir, program, patience)

    def _require_port(self) -> int:
        if self.port is None:
            raise Failure(f"{self.user}: {self.settings} has no {PORT_VARIABLE} to log in at")
        return self.port


def find_service(user: str) -> Service | None:
    """Find the unit of a user's server; None where there is none."""
    return Service(f"{unit_name(user)}.service", STOPPED_STATUS).find()


def find_server(user: str, settings_dir: Path, look: Look) -> Server:
    """Find the server of `user`, whose port `settings_dir`/USER.env names. Raises Failure."""
    settings = settings_dir / f"{user}.env"
    return Server(accounts.find(user), find_service(user), _read_port(settings), settings, look)


def _read_port(path: Path) -> int | None:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}") from None
    found = [int(match[1]) for line in lines if (match := _PORT.fullmatch(line))]
    return found[-1] if found and 0 < found[-1] < 65536 else None


def _ask(port: int, seconds: float) -> bool | None:
    """Tell whether a server says anything within so many seconds; None where none listens.

    What it says is not read: it is its owner's word.
    """
    try:
        with socket.create_connection((HOST, port), timeout=1) as there:
            there.settimeout(seconds)
            there.sendall(f"GET {ENVIRONMENT_PATH} HTTP/1.0\r\nHost: {HOST}\r\n\r\n".encode())
            return bool(there.recv(1))
    except TimeoutError:
        return False
    except OSError:
        return None
