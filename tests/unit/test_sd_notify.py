"""What systemd is told of a run: its text, how often, and by the real protocol, over a real
socket."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from t3_backup.backup.result import AccountResult
from t3_backup.output import sd_notify
from t3_backup.output.sd_notify import AccountProgress, Notifier, describe_progress
from t3_backup.worker.protocol import Phase, Progress

MIB = 1 << 20


def test_the_copy_is_told_with_its_share_and_how_many_are_done() -> None:
    work = {"alice": AccountProgress("copy", int(958.3 * MIB), 412 * MIB)}
    assert (
        describe_progress(work, 2, 5)
        == "alice: copy 42 % (412.0 MiB of 958.3 MiB); 2 of 5 accounts done"
    )


def test_a_proof_has_no_share_and_nobody_at_work_no_name() -> None:
    assert (
        describe_progress({"alice": AccountProgress("prove", MIB, MIB)}, 0, 1)
        == "alice: prove; 0 of 1 accounts done"
    )
    assert describe_progress({}, 3, 5) == "3 of 5 accounts done"


@pytest.mark.parametrize(
    ("total", "done", "text"), [(0, 0, "copy"), (MIB, 9 * MIB, "copy 100 % (1.0 MiB of 1.0 MiB)")]
)
def test_no_size_gives_no_share_and_growth_none_above_all(total: int, done: int, text: str) -> None:
    assert (
        describe_progress({"a": AccountProgress("copy", total, done)}, 0, 1)
        == f"a: {text}; 0 of 1 accounts done"
    )


def test_many_at_once_are_told_in_order_and_only_some_by_name() -> None:
    work = {name: AccountProgress("prove", 0) for name in "gfedcba"}
    assert (
        describe_progress(work, 0, 7)
        == "a: prove, b: prove, c: prove, d: prove, 3 more; 0 of 7 accounts done"
    )


def test_the_end_says_how_many_and_how_many_not_well_and_when() -> None:
    results = [
        AccountResult("a", "backed_up"),
        AccountResult("b", "failed"),
        AccountResult("c", "skipped"),
    ]
    when = datetime(2026, 11, 26, 3, 41, 59, tzinfo=UTC)
    assert (
        sd_notify.describe_end(results, when)
        == "done: 3 accounts, 1 not well (2026-11-26 03:41 UTC)"
    )


class Clock:
    """What can't be had: a clock that stands still when it should."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_it_is_said_at_most_twice_a_second() -> None:
    said: list[str] = []
    clock = Clock()
    shown = Notifier(said.append, clock)
    shown.accounts = 2
    shown.listen("alice", Phase("copy", 4 * MIB))
    for written in range(4):
        clock.now += 0.2
        shown.listen("alice", Progress(written * MIB, 0))
    assert said == [
        "STATUS=alice: copy 0 % (0 B of 4.0 MiB); 0 of 2 accounts done",
        "STATUS=alice: copy 50 % (2.0 MiB of 4.0 MiB); 0 of 2 accounts done",
    ]
    clock.now += 0.5
    shown.finished(AccountResult("alice", "backed_up"))
    assert said[2:] == ["STATUS=1 of 2 accounts done"]


def test_the_end_and_a_stop_are_said_at_once() -> None:
    said: list[str] = []
    shown = Notifier(said.append, Clock())
    shown.listen("alice", Phase("copy", MIB))
    shown.stopping()
    shown.say("done")
    assert said[1:] == ["STOPPING=1\nSTATUS=stopping", "STATUS=done"]


def test_a_line_end_in_a_text_is_no_further_assignment() -> None:
    said: list[str] = []
    Notifier(said.append).say("not done: a\nMAINPID=1\x1bb")
    assert said == ["STATUS=not done: a?MAINPID=1?b"]


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The socket that sd_notify(3) speaks to."""
    pytest.importorskip("systemd.daemon")
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listening


def test_it_arrives_where_systemd_listens(systemd: socket.socket) -> None:
    shown = sd_notify.make_notifier()
    shown.accounts = 1
    shown.listen("alice", Phase("prove", MIB))
    assert systemd.recv(4096) == b"STATUS=alice: prove; 0 of 1 accounts done"
    shown.stopping()
    assert systemd.recv(4096) == b"STOPPING=1\nSTATUS=stopping"


def test_where_nobody_listens_any_more_it_is_not_said_and_harms_nobody(
    systemd: socket.socket,
) -> None:
    shown = sd_notify.make_notifier()
    systemd.close()
    shown.say("done")


def test_without_systemd_or_its_python_package_nobody_is_told(
    systemd: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    # what the import system does for a package that isn't there
    monkeypatch.setitem(sys.modules, "systemd", None)
    sd_notify.make_notifier().say("done")
    monkeypatch.delitem(sys.modules, "systemd")
    monkeypatch.delenv("NOTIFY_SOCKET")
    sd_notify.make_notifier().say("done")
    systemd.setblocking(False)
    with pytest.raises(BlockingIOError):
        systemd.recv(1)
