"""Who works with a server: agents and terminals do, what T3 itself runs does not, and what T3 only
probes is gone soon."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support import real_t3
from support.processes import child_pids, until

from t3_backup.accounts import Account
from t3_backup.errors import Failure
from t3_backup.system.systemd import Service
from t3_backup.t3 import busy
from t3_backup.t3.busy import find_busy, is_own
from t3_backup.t3.members import read_member
from t3_backup.t3.servers import Activity, Server

PLATFORM = "/opt/v/lib/node_modules/@t3code/t3-linux-x64"
SOON = 1.0  # seconds that a probe may take here


@pytest.mark.parametrize(
    ("program", "server", "own"),
    [
        (f"{PLATFORM}/resource-monitor/linux-x64/t3-resource-monitor", f"{PLATFORM}/t3", True),
        # as a unit without the capability sees it: by the name that the launcher called
        (f"{PLATFORM}/resource-monitor/linux-x64/t3-resource-monitor", "/v/a/current/bin/t3", True),
        ("/v/0.1.8/resource-monitor/linux-x64/t3-resource-monitor", "/v/0.1.8/t3", True),
        ("/v/lib/node_modules/t3/dist/worker.mjs", "/v/a/current/bin/t3", True),
        (f"{PLATFORM}/t3", "/v/lib/node_modules/t3/bin/launcher.js", True),
        ("/home/a/.local/bin/t3", "/home/a/.local/bin/t3", True),
        # an agent that T3's package has brought along
        (f"{PLATFORM}/node_modules/@anthropic-ai/claude-agent-sdk/cli.js", f"{PLATFORM}/t3", False),
        ("/v/lib/node_modules/t3/node_modules/codex/bin/codex.js", "/v/bin/t3", False),
        ("/usr/lib/node_modules/@openai/codex/bin/codex.js", "/usr/lib/node_modules/t3/b", False),
        ("/home/a/.local/bin/claude", "/home/a/.local/bin/t3", False),
        ("/usr/bin/t3-resource-monitor", "/usr/bin/t3", False),
        ("/usr/bin/make", None, False),
        (None, None, False),
    ],
)
def test_what_t3_itself_runs_is_told_by_its_package(
    program: str | None, server: str | None, own: bool
) -> None:
    as_path = [None if one is None else Path(one) for one in (program, server)]
    assert is_own(*as_path) is own


@dataclass(frozen=True)
class Unit(Service):
    """A unit of which systemd says this; `members` are its processes."""

    main: int = 0
    members: list[int] = field(default_factory=list)
    broken: str = ""

    def show(self, name: str) -> str:
        if self.broken:
            raise Failure(self.broken)
        return {"ActiveState": "active", "MainPID": str(self.main), "ControlGroup": self.unit}[name]


@pytest.fixture
def started() -> Iterator[Callable[..., int]]:
    """A process that is started by a path of its own, and ended after the test."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(*line: str) -> int:
        processes.append(subprocess.Popen(line))
        # what Popen returns from has executed its program
        return processes[-1].pid

    yield start
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Server]:
    """A server of an account, with these processes beneath it; `turns` are in flight."""
    units: dict[str, Unit] = {}
    # what a control group lists: systemd alone makes one
    monkeypatch.setattr(
        busy, "list_pids", lambda group: [pid for pid in units[group].members if is_there(pid)]
    )

    def make(user: str, *members: int, turns: int = 0, main: int = 0, broken: str = "") -> Server:
        unit = Unit(f"t3-serve@{user}.service", None, main, [main, *members], broken)
        units[unit.unit] = unit
        account = Account(user, 1, 1, (1,), tmp_path)
        return Server(account, unit, 1, tmp_path, lambda _: Activity(30, turns))

    return make


def is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def program(path: Path) -> str:
    """A program of this name, which sleeps."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy("/usr/bin/sleep", path)
    return str(path)


def test_an_agent_that_stays_is_at_work_and_a_probe_that_ends_is_not(
    servers: Callable[..., Server], started: Callable[..., int]
) -> None:
    everybody = [
        servers("ann", started("/usr/bin/sleep", "600")),
        servers("bob", started("/usr/bin/sleep", "0.5")),
        servers("cy"),
    ]
    found = find_busy(everybody, SOON)
    assert list(found) == ["ann"]
    assert "sleep (pid " in found["ann"]
    assert found["ann"].endswith("runs beneath t3-serve@ann.service")


def test_what_the_server_itself_keeps_running_is_nobody_at_work(
    servers: Callable[..., Server], started: Callable[..., int], tmp_path: Path
) -> None:
    package = tmp_path / "lib/node_modules/@t3code/t3-linux-x64"
    monitor = started(program(package / "resource-monitor/x/t3-resource-monitor"), "600")
    bundled = started(program(package / "node_modules/agent/bin/agent"), "600")
    main = started(program(package / "t3"), "600")
    assert find_busy([servers("ann", monitor, main=main)], 0) == {}
    assert list(find_busy([servers("ann", monitor, bundled, main=main)], 0)) == ["ann"]


def test_what_the_official_t3_keeps_running_is_nobody_at_work(
    servers: Callable[..., Server], started: Callable[..., int], tmp_path: Path
) -> None:
    with real_t3.running(tmp_path / "base", tmp_path / "log") as served:
        main = served.process.pid
        monitors = until(lambda: child_pids(main), "child of the server")
        assert find_busy([servers("ann", *monitors, main=main)], 0) == {}
        agent = started("/usr/bin/sleep", "600")
        assert list(find_busy([servers("ann", *monitors, agent, main=main)], 0)) == ["ann"]


def test_what_has_been_there_for_longer_than_any_probe_is_not_waited_for(
    servers: Callable[..., Server],
    started: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    member = read_member(started("/usr/bin/sleep", "600"))
    assert member is not None
    while member.age < SOON:
        os.sched_yield()
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("nothing was to be waited for"))
    assert list(find_busy([servers("ann", member.pid)], SOON)) == ["ann"]


def test_without_a_wait_what_may_be_a_probe_does_not_count(
    servers: Callable[..., Server], started: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is asked again before each account is moved."""
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("it waited"))
    young = started("/usr/bin/sleep", "600")
    assert find_busy([servers("ann", young)], wait=False) == {}
    assert list(find_busy([servers("ann", young)], 0.0, wait=False)) == ["ann"]
    assert find_busy([servers("ann", turns=1)], wait=False) == {"ann": "1 turns are in flight"}


def test_all_accounts_share_one_wait(
    servers: Callable[..., Server], started: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda s: (waits.append(s), sleep(s)))
    everybody = [servers(f"u{at}", started("/usr/bin/sleep", "600")) for at in range(8)]
    assert len(find_busy(everybody, SOON)) == 8
    assert sum(waits) <= SOON + 1


def test_a_turn_in_flight_is_somebody_at_work_and_what_cannot_be_told_is_not_taken_for_idle(
    servers: Callable[..., Server],
) -> None:
    everybody = [servers("ann", turns=2), servers("bob", broken="no answer"), servers("cy")]
    assert find_busy(everybody) == {"ann": "2 turns are in flight", "bob": "no answer"}


def test_a_pid_that_is_another_process_by_now_is_not_the_one_that_was_seen() -> None:
    member = read_member(os.getpid())
    assert member is not None
    assert member.is_there()
    assert 0 < member.age < 86_400
    assert not member._replace(start=str(int(member.start) + 1)).is_there()
