"""What people see: lines, priorities for the journal alone, bars on a terminal, and nothing that a
terminal would obey."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import termios
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from support import programs
from support.host import Host
from support.manifests import NOON, beside, make_manifest, stored_snapshot
from support.paths import ROOT
from support.users import needs_root

from demo.users import User
from t3_backup.backup.result import AccountResult
from t3_backup.history.verify import Finding, VerifyResult
from t3_backup.output import messages
from t3_backup.output.documents import AccountContents
from t3_backup.store.listing import StoredSnapshot
from t3_backup.store.manifest import Manifest, Missing
from t3_backup.text import ERROR, INFO, WARNING

HOSTILE = "a\x1b[31mb\x1b]0;title\x07c\rd\ne\x9bf\u202eg\ud800h"
SHOWN = "a?[31mb?]0;title?c?d?e?f?g?h"


def printing(*lines: tuple[int | None, str]) -> list[str]:
    """The command line of a process that prints lines of these priorities; None: a warning."""
    return programs.line("print_lines.py", json.dumps(lines), isolated=False)


def says(command: list[str], stdout: Path, environ: dict[str, str]) -> str:
    """What a process whose standard output is that file writes there."""
    with stdout.open("w") as file:
        base = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8"}
        subprocess.run(command, stdout=file, env=base | environ, check=True, timeout=30)
    return stdout.read_text(encoding="utf-8")


def on_terminal(command: list[str], env: dict[str, str]) -> tuple[int, str]:
    """Exit code and everything that came, of a command whose terminal is a new one."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (40, 200))
    process = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, env=env, cwd=ROOT, start_new_session=True
    )
    os.close(slave)
    output = b""
    try:
        while data := os.read(master, 65536):
            output += data
    except OSError:  # EIO: the last one has closed it
        pass
    finally:
        os.close(master)
    return process.wait(30), output.decode("utf-8")


def test_lines_for_the_journal_carry_their_priority(tmp_path: Path) -> None:
    file = tmp_path / "out"
    file.touch()
    status = file.stat()
    command = printing((6, "well"), (None, "look"), (3, "bad"))
    assert (
        says(command, file, {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
        == "<6>well\n<4>WARN: look\n<3>bad\n"
    )


@pytest.mark.parametrize("stream", [None, "", ":", "1:1", "nonsense", "8:99999999"])
def test_lines_for_anybody_else_carry_none(stream: str | None, tmp_path: Path) -> None:
    """JOURNAL_STREAM is inherited by what a service redirects elsewhere."""
    environ = {} if stream is None else {"JOURNAL_STREAM": stream}
    assert (
        says(printing((6, "well"), (None, "look")), tmp_path / "out", environ)
        == "well\nWARN: look\n"
    )


def test_what_ends_a_whole_run_is_an_error_to_the_journal_and_one_line_to_anybody(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-m", "t3_backup", "list", "--dest", "/none/a\x1b[31m\nb"]
    file = tmp_path / "err"
    for journal, prefix in ((True, "<3>"), (False, "")):
        with file.open("w") as stream:
            status = os.fstat(stream.fileno())
            environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8"}
            environ |= {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"} if journal else {}
            done = subprocess.run(command, stderr=stream, env=environ, check=False, timeout=30)
        assert done.returncode == 1
        assert file.read_text().startswith(f"{prefix}t3-backup-state: no store at /none/a?[31m?b; ")
        assert file.read_text().count("\n") == 1


def test_a_line_stays_one_line_and_a_terminal_obeys_nothing_in_it(tmp_path: Path) -> None:
    assert says(printing((6, HOSTILE)), tmp_path / "out", {}) == SHOWN + "\n"
    code, shown = on_terminal(
        printing((6, HOSTILE)),
        {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8", "TERM": "xterm"},
    )
    assert code == 0, shown
    assert SHOWN in shown
    assert "\x1b[31m" not in shown
    assert "\x07" not in shown


def test_markup_in_a_line_is_shown_as_it_is() -> None:
    text = "[bold]not bold[/bold] [/] :smile: /home/[x]"
    code, shown = on_terminal(
        printing((6, text)),
        {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8", "TERM": "xterm"},
    )
    assert code == 0, shown
    assert text in shown


def result(**snapshot: object) -> AccountResult:
    stored = stored_snapshot(make_manifest(**snapshot), Path("/store/alice/x.sqlite"), "plain")
    return AccountResult(
        "alice", "backed_up", snapshots=(stored,), pruned=("state-old",), warnings=("the clock",)
    )


def told(one: AccountResult) -> list[tuple[int, str]]:
    return [(line.priority, line.text) for line in messages.result_messages(one)]


def test_a_good_account_is_told_in_one_line_and_its_warnings_after() -> None:
    assert told(result()) == [
        (INFO, "backed up alice -> /store/alice/x.sqlite (409600 bytes, 0.8 s, online, verified)"),
        (INFO, "pruned alice: state-old"),
        (WARNING, "WARN: the clock"),
    ]


@pytest.mark.parametrize("verdict", ["suspect", "damaged"])
def test_a_bad_one_is_an_alarm_that_says_why_and_what_to_do(verdict: str) -> None:
    [(priority, line), *_] = told(result(verdict=verdict, reasons=("one", "two")))
    assert priority == ERROR
    assert line.startswith("WARN: backed up alice -> ")
    assert f"{verdict}): one; two; nothing is pruned until: t3-backup-state accept alice" in line


def test_what_was_not_backed_up_is_told_with_its_reason() -> None:
    assert told(AccountResult("bob", "failed", "no room")) == [
        (ERROR, "WARN: backup FAILED for bob (no room)")
    ]
    assert told(AccountResult("bob", "skipped", "no state.sqlite")) == [
        (INFO, "skip bob (no state.sqlite)")
    ]
    assert told(AccountResult("bob", "planned", "x")) == [(INFO, "would back up bob: x")]


JUNK = Missing("junk.sqlite", "it is not a SQLite database")


def test_each_database_that_could_not_be_copied_has_an_alarm_of_its_own() -> None:
    odd = Missing("a b\x1b.sqlite", "it is a symlink")
    rotten = Missing("state.sqlite", "it can't be read")
    found = result(missing=(odd, JUNK, rotten), file="statev2.sqlite")
    name = found.snapshots[0].manifest.name
    first, *alarms, _, _ = told(found)
    assert first[0] == INFO
    assert first[1].startswith("backed up alice -> ")
    move = "next: move it out of userdata if it is not T3's"
    assert alarms == [
        (ERROR, f'WARN: alice: "a b?.sqlite" is not in {name}: it is a symlink; {move}'),
        (ERROR, f"WARN: alice: junk.sqlite is not in {name}: it is not a SQLite database; {move}"),
        (
            ERROR,
            (
                f"WARN: alice: state.sqlite is not in {name}: it can't be read; next: run again; where "
                "that fails too, put an older one back: t3-backup-state restore alice "
                "--database state.sqlite"
            ),
        ),
    ]


def test_the_line_of_a_run_says_how_many_databases_where_there_are_several() -> None:
    manifest = beside(make_manifest(file="statev2.sqlite"), "state.sqlite", bytes=1024)
    paths = {file: Path(f"/store/alice/{file}") for file in ("state.sqlite", "statev2.sqlite")}
    stored = StoredSnapshot(manifest, paths, dict.fromkeys(paths, "plain"))
    for unchanged, line in (
        (
            False,
            (
                "backed up alice -> /store/alice/statev2.sqlite "
                "(2 databases, 410624 bytes, 1.5 s, online, verified)"
            ),
        ),
        (
            True,
            (
                f"unchanged alice: still what {manifest.name} holds "
                "(2 databases, 410624 bytes, verified)"
            ),
        ),
    ):
        one = AccountResult("alice", "backed_up", snapshots=(stored,), unchanged=unchanged)
        assert told(one) == [(INFO, line)]


def test_only_a_failed_or_a_bad_one_alarms() -> None:
    assert not result().alarms
    assert result(verdict="suspect").alarms
    assert result(verdict="damaged").alarms
    assert result(missing=(JUNK,)).alarms
    assert AccountResult("bob", "failed").alarms
    assert not AccountResult("bob", "skipped").alarms


def test_a_check_says_whether_it_proved_and_evidence_is_no_failure() -> None:
    [sound] = messages.verify_messages(VerifyResult(make_manifest()))
    assert sound.text.startswith("verified alice state-20261124T120000Z (")
    [evidence] = messages.verify_messages(VerifyResult(make_manifest(verdict="damaged")))
    assert evidence.text.startswith("unchanged alice ")
    failed = VerifyResult(make_manifest(), Finding(failed=("SHA-256 x, y was sealed",)))
    assert messages.verify_messages(failed) == []
    [(priority, line, _)] = messages.fault_messages([VerifyResult(make_manifest()), failed])
    assert priority == ERROR
    assert "does NOT verify: SHA-256 x, y was sealed" in line


def contents(
    snapshots: list[Manifest], strays: Sequence[str] = (), leftovers: Sequence[str] = ()
) -> AccountContents:
    stored = [stored_snapshot(manifest, Path(manifest.name), "plain") for manifest in snapshots]
    return AccountContents("alice", stored, strays, leftovers)


def test_the_table_has_a_row_a_snapshot_and_columns_in_line() -> None:
    account_dir = [
        make_manifest(3, NOON, "prebump-0.0.25", bytes=1 << 40, page_count=1 << 28),
        make_manifest(2, NOON - timedelta(hours=5), verdict="suspect"),
        make_manifest(
            1,
            NOON - timedelta(days=40),
            verdict="damaged",
            accepted_at="2026-11-01T00:00:00Z",
            t3_level=None,
            method="vacuum",
        ),
    ]
    head, titles, *rows = messages.list_lines(
        contents(account_dir, ["state-x.sqlite"], ["/b/alice+old"]), NOON
    )
    assert head.startswith("alice: 3 snapshots, ")
    assert [row.split()[-1] for row in rows[:3]] == [one.name for one in account_dir]
    column = titles.index("NAME")
    assert all(row[column:] == one.name for row, one in zip(rows, account_dir, strict=False))
    assert [row[: len("  2026-11-24 12:00:00")] for row in rows[:3]] == [
        "  2026-11-24 12:00:00",
        "  2026-11-24 07:00:00",
        "  2026-10-15 12:00:00",
    ]
    ages = [row.split()[2] for row in rows[:3]]
    assert ages == ["0s", "5h", "40d"]
    assert "prebump-0.0.25" in rows[0]
    assert "damaged (accepted)" in rows[2]
    assert rows[3:] == [
        "  not counted: no valid manifest: state-x.sqlite",
        "  not counted: could not be taken over: the files in /b/alice+old",
    ]


def test_the_table_counts_databases_where_a_snapshot_has_several_and_what_is_missing() -> None:
    one = make_manifest(1, NOON - timedelta(hours=5), missing=(JUNK,))
    two = beside(make_manifest(2, NOON, file="statev2.sqlite", t3_level=61), "state.sqlite")
    _, titles, *rows = messages.list_lines(several([two, one]), NOON)
    assert titles.split()[-3:] == ["PROVEN", "DATABASES", "NAME"]
    assert [row.split()[-2:] for row in rows] == [["2", two.name], ["1", one.name]]
    assert " 61 " in rows[0]
    assert "verified, 1 missing" in rows[1]
    _, titles, row = messages.list_lines(several([one]), NOON)
    assert "DATABASES" not in titles
    assert "verified, 1 missing" in row


def several(snapshots: list[Manifest]) -> AccountContents:
    stored = [
        StoredSnapshot(
            one,
            {record.file: Path(record.file) for record in one.databases},
            {record.file: "plain" for record in one.databases},
        )
        for one in snapshots
    ]
    return AccountContents("alice", stored)


def test_an_empty_account_folder_has_a_heading_alone_and_a_future_snapshot_no_negative_age() -> (
    None
):
    assert messages.list_lines(contents([]), NOON) == [messages.list_lines(contents([]), NOON)[0]]
    [*_, row] = messages.list_lines(contents([make_manifest(1, NOON + timedelta(days=9))]), NOON)
    assert " 0s " in row


@pytest.fixture
def rita(make_user, host: Host, small: Path) -> User:
    user = make_user("u-report", small)
    host.write_map(user)
    return user


ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@needs_root
def test_on_a_terminal_a_bar_shows_each_phase_and_the_lines_stay(host: Host, rita: User) -> None:
    code, shown = on_terminal(host.command("run"), host.env(TERM="xterm-256color"))
    text = ESCAPES.sub("", shown)
    assert code == 0, text
    assert re.search(rf"{rita.name} copy +.*[\d.]+/[\d.]+ MiB", text), text
    assert f"{rita.name} prove" in text, text
    [snapshot] = host.snapshots(rita)
    assert f"backed up {rita.name} -> {snapshot} (" in text
    assert "done (1 accounts, 0 not well)" in text
    assert "\x1b[?25h" in shown[shown.rindex("\x1b[?25l") :], "the cursor is shown again"


@needs_root
@pytest.mark.parametrize("how", ["no rich", "a dumb terminal"])
def test_without_rich_or_on_a_dumb_terminal_there_are_plain_lines(
    how: str, host: Host, rita: User
) -> None:
    command, terminal = host.command("run"), "dumb"
    if how == "no rich":
        command = programs.line("call_without.py", "rich", "run", isolated=False)
        terminal = "xterm-256color"
    code, shown = on_terminal(command, host.env(TERM=terminal))
    assert code == 0, shown
    assert "\x1b" not in shown
    [snapshot] = host.snapshots(rita)
    [first, last] = shown.splitlines()
    assert first.startswith(f"backed up {rita.name} -> {snapshot} (")
    assert last == "done (1 accounts, 0 not well)"
