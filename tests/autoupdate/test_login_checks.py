"""What a check of logins says of each account, and leaves for the backup's own status."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from t3_backup import accounts
from t3_backup.accounts import Account
from t3_backup.autoupdate import journal, login_checks
from t3_backup.autoupdate.context import Context
from t3_backup.autoupdate.journal import Move
from t3_backup.autoupdate.login_checks import check_logins, note_move
from t3_backup.errors import Failure, SystemdUnanswered
from t3_backup.system.systemd import Service
from t3_backup.t3.databases import DatabaseState
from t3_backup.t3.login_report import read_login
from t3_backup.t3.servers import Activity, Server

ENDPOINT = "/api/auth/browser-session"
NO_LOGIN = "alice: no login on port 3773: mint: it is locked"
NO_ANSWER = "systemctl show x failed: Connection reset by peer"
UNIT = "t3-serve@alice"


@dataclass(frozen=True)
class Fake(Server):
    """A server of which this is known; what systemd and the server itself would say."""

    up: bool = True
    answer: str | Failure = ENDPOINT
    program: Path | None = None

    def runs(self) -> bool:
        return self.up

    def has_crashed(self) -> bool:
        return False

    def running_program(self) -> Path | None:
        return self.program

    def log_in(self, program: Path, patience: float, warn: Callable[[str], None]) -> str:
        if isinstance(self.answer, Failure):
            raise self.answer
        return self.answer

    def end_logins(self, program: Path, patience: float) -> str:
        return ""


class Unit(Service):
    def show(self, name: str) -> str:
        return ""


@pytest.fixture
def lines(machine: Context) -> list[str]:
    """What is said, and what is warned of."""
    return []


@pytest.fixture
def context(machine: Context, lines: list[str]) -> Context:
    return replace(machine, say=lines.append, warn=lambda text: lines.append(f"WARN: {text}"))


def serve(
    monkeypatch: pytest.MonkeyPatch, refused: dict[str, Failure] | None = None, **how: object
) -> None:
    """Have alice's server be so; users whose servers can't be found are `refused`."""
    refused = refused or {}
    monkeypatch.setattr(accounts, "exists", lambda user: user != "ghost")

    def find(self: Context, user: str) -> Server:
        if user in refused:
            raise refused[user]
        account = Account(user, 1, 1, (1,), Path("/home/alice"))
        service = Unit(f"{UNIT}.service")
        known = {"service": service, "look": lambda _: Activity(30, 0)} | how
        return Fake(account, port=1, settings=Path("/e"), **known)  # type: ignore[arg-type]

    monkeypatch.setattr(Context, "server", find)


def paired(context: Context) -> bool | None:
    found = read_login(context.settings.root, "alice").login
    assert found is not None
    assert found.version == "0.0.24"
    return found.paired


@pytest.mark.parametrize(
    ("how", "required", "value", "well", "line"),
    [
        ({}, False, True, True, f"alice: login by {ENDPOINT}"),
        (
            {"answer": Failure(NO_LOGIN)},
            False,
            False,
            False,
            f"WARN: {NO_LOGIN}; next: journalctl -u {UNIT}",
        ),
        (
            {"up": False},
            False,
            None,
            True,
            f"alice: not tried: no server runs; next: systemctl start {UNIT}",
        ),
        (
            {"up": False},
            True,
            None,
            False,
            f"WARN: alice: not tried: no server runs; next: systemctl start {UNIT}",
        ),
        (
            {"service": None, "up": False},
            False,
            None,
            True,
            f"alice: not tried: there is no unit {UNIT}; next: systemctl status {UNIT}",
        ),
        (
            {"answer": SystemdUnanswered(NO_ANSWER)},
            False,
            None,
            False,
            f"WARN: alice: not tried: {NO_ANSWER}; next: t3-autoupdate check --user alice",
        ),
    ],
    ids=["well", "failed", "not running", "named", "no unit", "unanswered"],
)
def test_each_account_is_told_and_kept(
    how: dict[str, object],
    required: bool,
    value: bool | None,
    well: bool,
    line: str,
    context: Context,
    lines: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    serve(monkeypatch, **how)
    [found] = check_logins(context, ["alice"], required=required)
    assert (found.paired, found.is_well, lines) == (value, well, [line])
    assert found.as_json()["paired"] is value
    assert paired(context) is value


def test_a_t3_of_a_user_s_own_is_not_logged_in_to_by_another_program(
    context: Context, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any call of another version may migrate what it works on."""
    own = Path("/home/alice/.t3/runtime/versions/0.0.44/t3")
    serve(monkeypatch, program=own, answer=Failure("it was called"))
    [found] = check_logins(context, ["alice"], required=False)
    assert found.paired is None
    assert lines[0].startswith(f"alice: not tried: runs T3 of their own ({own}), ")
    assert "; next: " in lines[0]


def test_an_account_in_the_middle_of_a_move_is_not_minted_for(
    context: Context, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its data is being exchanged, and its program changed."""
    serve(monkeypatch, answer=Failure("it was called"))
    context.installations.hold("alice")
    [found] = check_logins(context, ["alice"], required=False)
    assert found.paired is None
    held = "it is held: its move has not ended"
    assert lines[0] == f"alice: not tried: {held}; next: t3-autoupdate status"


def test_who_is_no_user_is_told_and_nothing_is_kept_of_them(
    context: Context, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch)
    found = check_logins(context, ["ghost", "alice"], required=False)
    assert [one.paired for one in found] == [False, True]
    mend = f"next: mend {context.user_map}"
    assert lines[0] == f"WARN: ghost: no such user on this system; {mend}"
    assert not (context.settings.root / "ghost").exists()


def test_a_server_that_systemd_does_not_tell_of_is_not_called_broken(
    context: Context, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch, {"alice": SystemdUnanswered(NO_ANSWER)})
    [found] = check_logins(context, ["alice"], required=False)
    assert (found.paired, found.is_well) == (None, False)
    again = "next: t3-autoupdate check --user alice"
    assert lines == [f"WARN: alice: not tried: {NO_ANSWER}; {again}"]


@pytest.mark.parametrize(
    ("databases", "why", "command"),
    [
        ([("state.sqlite", 31)], "the database is of level 31", "rollback --user alice --to"),
        (
            [("state.sqlite", 30), ("statev2.sqlite", 62)],
            "has made statev2.sqlite",
            "put-aside --user alice",
        ),
    ],
    ids=["migrated", "stale successor"],
)
def test_what_a_newer_t3_has_done_to_an_account_is_told_beside_the_login(
    databases: list[tuple[str, int]],
    why: str,
    command: str,
    context: Context,
    lines: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there = tuple(DatabaseState(file, 1, file == "state.sqlite", at) for file, at in databases)
    serve(monkeypatch, look=lambda _: Activity(there[0].level, 0, there[0].file, there))
    [found] = check_logins(context, ["alice"], required=False)
    assert (found.paired, found.is_well) == (True, False)
    assert lines[1].startswith("WARN: alice: ")
    assert why in lines[1]
    assert f"t3-autoupdate {command}" in lines[1]
    assert found.as_json()["trouble"] in lines[1]


@pytest.mark.parametrize(
    ("phase", "endpoint", "ran", "value"),
    [
        (journal.DONE, ENDPOINT, True, True),
        (journal.REVERTED, ENDPOINT, True, True),
        (journal.REVERTING, "", True, False),
        (journal.DONE, "", False, False),  # its server did not run: what was known stays
    ],
)
def test_the_login_at_the_end_of_a_move_counts_as_a_check(
    phase: str,
    endpoint: str,
    ran: bool,
    value: bool,
    context: Context,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    serve(monkeypatch, answer=Failure(NO_LOGIN))
    check_logins(context, ["alice"], required=False)
    move = Move("alice", "0.0.24", "0.0.25", "l", phase=phase, endpoint=endpoint, ran=ran)
    note_move(context, move)
    assert paired(context) is value


def test_a_report_that_cannot_be_kept_is_a_warning_and_ends_nothing(
    context: Context, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch)

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(login_checks.login_report, "write_login", refuse)
    [found] = check_logins(context, ["alice"], required=False)
    assert (found.paired, found.is_well) == (True, True)
    assert lines[0].startswith("WARN: alice: what the login came to could not be noted")
