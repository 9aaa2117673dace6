"""What the journal gets: one entry for each event of an account, with fields to search by, and no
line twice."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from support.manifests import make_manifest, stored_snapshot

from t3_backup.backup.result import AccountResult
from t3_backup.output import console, journald
from t3_backup.output.console import JournalConsole
from t3_backup.output.messages import result_messages
from t3_backup.store.listing import StoredSnapshot

RUN = "0123456789abcdef0123456789abcdef"


def snapshot(**changes: Any) -> StoredSnapshot:
    return stored_snapshot(make_manifest(**changes), Path("/store/alice/x.sqlite"), "plain")


def entries(result: AccountResult) -> list[dict[str, str]]:
    return [journald.entry_fields(line, result, RUN) for line in result_messages(result)]


def test_a_snapshot_has_its_name_verdict_and_size_beside_the_line_that_people_read() -> None:
    result = AccountResult("alice", "backed_up", snapshots=(snapshot(),), pruned=("state-old",))
    first, second = entries(result)
    common = {
        "SYSLOG_IDENTIFIER": "t3-backup-state",
        "T3_BACKUP_RUN": RUN,
        "T3_BACKUP_USER": "alice",
        "T3_BACKUP_OUTCOME": "backed_up",
    }
    assert first == common | {
        "MESSAGE": "backed up alice -> /store/alice/x.sqlite (409600 bytes, 0.8 s, online, verified)",
        "PRIORITY": "6",
        "T3_BACKUP_SNAPSHOT": "state-20261124T120000Z",
        "T3_BACKUP_PATH": "/store/alice/x.sqlite",
        "T3_BACKUP_VERDICT": "verified",
        "T3_BACKUP_BYTES": "409600",
        "T3_BACKUP_METHOD": "online",
    }
    assert second == common | {"MESSAGE": "pruned alice: state-old", "PRIORITY": "6"}


def test_a_label_is_a_field_and_a_bad_one_an_error() -> None:
    [entry] = entries(
        AccountResult(
            "alice",
            "backed_up",
            "half is gone",
            (snapshot(label="prebump-1", verdict="suspect", reasons=("x",)),),
        )
    )
    assert entry["T3_BACKUP_LABEL"] == "prebump-1"
    assert (entry["PRIORITY"], entry["T3_BACKUP_VERDICT"], entry["T3_BACKUP_REASON"]) == (
        "3",
        "suspect",
        "half is gone",
    )


def test_a_failure_has_its_reason_and_no_snapshot() -> None:
    [entry] = entries(AccountResult("bob", "failed", "no room"))
    assert entry["T3_BACKUP_REASON"] == "no room"
    assert entry["PRIORITY"] == "3"
    assert "T3_BACKUP_SNAPSHOT" not in entry


def test_what_is_sent_is_not_printed_too_and_what_is_no_event_is_a_line() -> None:
    sent: list[dict[str, str]] = []
    stream = io.StringIO()
    out = JournalConsole(stream, RUN, lambda **fields: sent.append(fields))
    out.finished(AccountResult("bob", "failed", "no\nroom\x1b[31m"))
    out.warn("look")
    assert [fields["MESSAGE"] for fields in sent] == ["WARN: backup FAILED for bob (no?room?[31m)"]
    assert sent[0]["T3_BACKUP_REASON"] == "no?room?[31m"
    assert stream.getvalue() == "WARN: look\n"


def test_what_can_t_be_sent_is_printed() -> None:
    def send(**fields: str) -> None:
        raise OSError

    stream = io.StringIO()
    JournalConsole(stream, RUN, send).finished(AccountResult("bob", "skipped", "no state.sqlite"))
    assert stream.getvalue() == "skip bob (no state.sqlite)\n"


@pytest.fixture
def stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A stream that systemd says is the journal's."""
    with (tmp_path / "out").open("w") as file:
        status = os.fstat(file.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        yield file


def test_fields_are_sent_where_the_stream_is_the_journal_and_its_package_is_there(
    stream: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("systemd.journal")
    assert type(console.make_console(stream, RUN)) is JournalConsole
    monkeypatch.setitem(sys.modules, "systemd", None)
    assert type(console.make_console(stream, RUN)) is console.Console
    monkeypatch.delitem(sys.modules, "systemd")
    monkeypatch.delenv("JOURNAL_STREAM")
    assert type(console.make_console(stream, RUN)) is console.Console
