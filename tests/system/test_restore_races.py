"""A restore that others run into, or that is cut short.

What is in place is the old state or the new one, whole, and work goes on. Others are servers that
systemd does not know of, and people who look at what they find. A step is held at one of its calls
by strace, so that what comes in between does so each time. What is found afterwards is read as the
user's next server would.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import programs, sandbox
from support.databases import give_database
from support.fault_injection import needs_strace
from support.host import Host, succeeded
from support.live_database import (
    IN_USE,
    change_database,
    dump_database,
    hash_live_folder,
    leases_of,
    leave_hot_journal,
    leave_newer_rows_in_a_wal,
    process_holding,
    run_as,
    run_sql,
)
from support.paths import ROOT
from support.processes import BOUND_S, until, user_process
from support.users import needs_root, user_name
from support.workers import serves, start_wrapped, wrap_workers

from demo.users import User, throwaway_user

pytestmark = [needs_root, needs_strace, pytest.mark.skipif(sandbox.ACTIVE, reason="by hand")]

# Hours of work, in a -wal alone.
WORK = ("PRAGMA journal_mode=wal", "PRAGMA wal_autocheckpoint=0", "CREATE TABLE work (x)")


@pytest.fixture
def racer(host: Host, make_user: Callable[..., User], small: Path) -> User:
    """A user with one snapshot, and changed since."""
    user = make_user("race-a", small)
    host.write_map(user)
    succeeded(host.t3("run"))
    change_database(user)
    return user


def inode(user: User) -> int:
    return user.database.stat().st_ino


def found(user: User) -> list[str]:
    """What a server that opens the live database finds: what integrity_check says, then the names
    of the schema."""
    return run_as(user, programs.line("check_database.py", str(user.database))).split()


def intent(host: Host, user: User) -> Path:
    return host.store / f"{user.name}+restore.json"


def aside(user: User) -> Path:
    """What lies beside the live database under a name of its own."""
    [path] = [
        path
        for path in user.database.parent.glob("state.sqlite.replaced-*")
        if not path.name.endswith(("-wal", "-shm", "-journal"))
    ]
    return path


def moved(user: User, ending: str) -> list[Path]:
    """What has such a name with `ending`, not opened: who has one of them open is in the way of a
    restore."""
    return [
        path
        for path in user.database.parent.glob(f"state.sqlite.replaced-*{ending}")
        if not path.name.endswith(".probe")
    ]


@contextmanager
def restoring(
    host: Host, user: User, operation: str, held: str, *words: str, **how: object
) -> Iterator[subprocess.Popen[str]]:
    """A restore whose worker of `operation` is held as strace's --inject=`held` says; killed, if it
    is there at the end of the block."""
    strace = f"strace -D -qq -o /dev/null -e trace={held.partition(':')[0]} -e inject={held}"
    instead = f'exec {strace} {sys.executable} "$@"'
    wrapper = wrap_workers(host.folder, **{operation: instead})
    words = ("restore", user.name, "--yes", *words)
    with start_wrapped(host, wrapper, *words, stderr=subprocess.PIPE, **how) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def waiting_server(user: User, then: str) -> Iterator[subprocess.Popen[str]]:
    """A server that systemd does not know of: as soon as another file has the name of its
    database, it opens and writes it, and then `stays` or `dies`."""
    line = programs.line("write_when_replaced.py", then, str(user.database), str(inode(user)))
    with user_process(user, line) as process:
        yield process


def worker_of(file: int) -> list[str]:
    """The worker that has a lease on the old file, and so is at the exchange."""
    locks = [
        text.split() for text in Path("/proc/locks").read_text().splitlines() if "LEASE" in text
    ]
    return [pid for pid in leases_of(locks, file) if serves(pid, "swap_databases")]


def kill(process: subprocess.Popen[str], file: int) -> None:
    """SIGKILL for the command and then for its worker, which strace keeps from dying with it at
    once."""
    workers = worker_of(file)
    process.kill()
    process.communicate(timeout=BOUND_S)
    for pid in workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    until(lambda: not worker_of(file), "end of the worker")


def cut_short_before_the_exchange(host: Host, user: User) -> None:
    """The intent says that it may have begun; the old one is in place."""
    old = inode(user)
    with restoring(host, user, "swap_databases", "renameat2:delay_enter=1000000") as process:
        until(lambda: worker_of(old), "lease of the exchange")
        kill(process, old)
    assert inode(user) == old
    assert json.loads(intent(host, user).read_text())["begun"] is True


def cut_short_after_the_exchange(host: Host, user: User) -> None:
    """The new one is in place, the old one beside it."""
    old = inode(user)
    with restoring(host, user, "swap_databases", "renameat2:delay_exit=1000000") as process:
        until(lambda: inode(user) != old, "exchange")
        kill(process, old)
    assert aside(user).stat().st_ino == old
    assert intent(host, user).exists()


def must_be_ended(host: Host, user: User) -> None:
    """No intent is left, and nothing beside the database that the restore put there."""
    assert not intent(host, user).exists()
    assert [name for name in hash_live_folder(user) if "replaced" in name] == []


@pytest.mark.parametrize("then", ["stays", "dies"])
@pytest.mark.parametrize(
    "held",
    ["renameat2:delay_exit=500000", "fsync:delay_exit=200000"],
    ids=["at the exchange", "slow disk"],
)
def test_a_server_that_starts_right_after_the_exchange_keeps_what_it_writes(
    host: Host, racer: User, held: str, then: str
) -> None:
    """Row 8. Were the restore taken back then, the old database would have the -wal of the new one
    beside it."""
    old = inode(racer)
    with (
        waiting_server(racer, then) as server,
        restoring(host, racer, "swap_databases", held) as process,
    ):
        out, err = process.communicate(timeout=BOUND_S)
        assert process.returncode == 0, out + err
        assert server.stdout is not None
        assert server.stdout.readline() == "written\n"
        assert inode(racer) != old
    assert found(racer)[0] == "ok"
    assert "server_was_here" in found(racer)
    must_be_ended(host, racer)


@pytest.mark.parametrize("end", ["close", "die"], ids=["closed", "killed"])
def test_work_done_after_an_interrupted_restore_is_not_taken_back(
    host: Host, racer: User, end: str
) -> None:
    """Row 27. Not even where somebody looks at the old state, which lies beside it, while the next
    run ends the restore."""
    cut_short_after_the_exchange(host, racer)
    with contextlib.suppress(subprocess.CalledProcessError):
        run_sql(racer, *WORK, end=end)
    new = inode(racer)
    with process_holding(racer, "only_open", aside(racer)):
        answer = succeeded(host.t3("run"))
    assert (
        "is open in another process, so it was kept next to the new one" in answer.err + answer.out
    )
    assert inode(racer) == new
    assert found(racer)[0] == "ok"
    assert "work" in found(racer)
    assert not intent(host, racer).exists()


def test_who_looks_at_the_old_state_that_is_kept_takes_nothing_back(
    host: Host, racer: User
) -> None:
    """It is not to be removed, so nobody who has it open is in the way."""
    leave_hot_journal(racer)
    taken = dump_database(host.snapshots(racer)[0])
    old = inode(racer)
    with restoring(host, racer, "swap_databases", "exit_group:delay_enter=1000000") as process:
        until(lambda: inode(racer) != old and not worker_of(old), "exchange that has ended")
        with process_holding(racer, "only_open", aside(racer)):
            out, err = process.communicate(timeout=BOUND_S)
    assert process.returncode == 0, out + err
    assert "open in another process" not in out
    assert dump_database(racer.database) == taken
    assert aside(racer).stat().st_ino == old


def test_what_somebody_wrote_into_the_staged_one_never_joins_the_live_one(
    host: Host, racer: User
) -> None:
    """Row 8. They open the odd file next to their database, and die: its -wal is not the old one's,
    though the old one had none."""
    before = dump_database(racer.database)
    cut_short_before_the_exchange(host, racer)
    with pytest.raises(subprocess.CalledProcessError):
        run_sql(racer, *WORK, end="die", path=aside(racer))
    assert Path(f"{aside(racer)}-wal").stat().st_size > 0
    succeeded(host.t3("accept", racer.name))
    assert set(hash_live_folder(racer)) == {"state.sqlite"}
    assert dump_database(racer.database) == before
    must_be_ended(host, racer)


def test_a_server_that_makes_its_own_while_a_stray_wal_is_moved_away_keeps_it(
    host: Host, racer: User
) -> None:
    """Row 8. The restore gives way, and the stray -wal does not go back beside a database that it
    is no part of."""
    leave_newer_rows_in_a_wal(racer)
    stray = Path(f"{racer.database}-wal").read_bytes()
    racer.database.unlink()
    with restoring(
        host, racer, "swap_databases", "renameat2:delay_enter=1000000:when=2+"
    ) as process:
        until(lambda: moved(racer, "-wal"), "moved -wal")
        assert not racer.database.exists()
        run_sql(racer, "CREATE TABLE fresh (x)")
        out, err = process.communicate(timeout=BOUND_S)
    assert process.returncode == IN_USE, out + err
    assert found(racer) == ["ok", "fresh"]
    assert not Path(f"{racer.database}-wal").exists()
    assert [path.read_bytes() for path in racer.database.parent.glob("*.replaced-*-wal")] == [stray]
    assert not intent(host, racer).exists()


@pytest.mark.parametrize("cut_short", [cut_short_before_the_exchange, cut_short_after_the_exchange])
def test_a_disk_that_has_another_number_after_a_reboot_is_the_same_disk(
    host: Host, racer: User, cut_short: Callable[[Host, User], None]
) -> None:
    """Row 27. As LVM, btrfs, or disks that are found in another order may give it."""
    before, new = dump_database(racer.database), dump_database(host.snapshots(racer)[0])
    cut_short(host, racer)
    value = json.loads(intent(host, racer).read_text())
    for name in ("old", "staged"):
        value["databases"][0][name]["device"] += 1
    intent(host, racer).write_text(json.dumps(value))
    succeeded(host.t3("run"))
    assert dump_database(racer.database) == (
        before if cut_short is cut_short_before_the_exchange else new
    )
    must_be_ended(host, racer)


def test_a_database_of_neither_is_left_to_a_person_and_what_they_remove_is_taken_for_done(
    host: Host, racer: User
) -> None:
    """The home was brought back from elsewhere in between: its files are others."""
    cut_short_before_the_exchange(host, racer)
    copy = racer.home / "copy"
    shutil.copy2(racer.database, copy)
    racer.give(copy)
    copy.rename(racer.database)
    before = hash_live_folder(racer)
    answer = host.t3("run")
    assert answer.code == 1, answer
    assert aside(racer).name in answer.out
    assert "put the right one in place, and remove the rest" in answer.out
    assert {name: hash_live_folder(racer)[name] for name in before} == before
    aside(racer).unlink()
    answer = succeeded(host.t3("run"))
    assert "was completed" not in answer.out + answer.err
    assert not any(
        snapshot["restored_since"]
        for snapshot in host.t3("list", racer.name, "--json").account(racer.name)["snapshots"]
    )
    must_be_ended(host, racer)


def test_a_user_who_is_gone_is_no_reason_to_try_again_for_ever(
    host: Host, racer: User, small: Path
) -> None:
    """Nor is a restore of theirs one of the next user's who has the name."""
    name, home = user_name("race-gone"), host.folder / "gone"
    with throwaway_user(name, home) as gone:
        give_database(gone, small)
        host.write_map(racer, gone)
        succeeded(host.t3("run"))
        cut_short_before_the_exchange(host, gone)
    shutil.rmtree(home)
    host.write_map(racer)
    answer = host.t3("run")
    assert f"there is no user {name} any more" in answer.out + answer.err
    assert not intent(host, gone).exists()
    answer = succeeded(host.t3("run"))
    assert "interrupted" not in answer.out + answer.err
    with throwaway_user(name, home) as next_one:
        host.write_map(racer, next_one)
        succeeded(host.t3("restore", next_one.name, "--yes"))
        assert dump_database(next_one.database) == dump_database(host.snapshots(next_one)[0])


def test_a_server_that_wrote_without_its_journal_is_left_to_a_person_with_both(
    host: Host, racer: User
) -> None:
    """Row 27. The power fails when the journal has been moved and its database has not; at boot the
    server is the first."""
    leave_hot_journal(racer)
    old = inode(racer)
    with restoring(
        host, racer, "swap_databases", "renameat2:delay_enter=1000000:when=2+"
    ) as process:
        until(lambda: moved(racer, "-journal"), "moved journal")
        kill(process, old)
    assert inode(racer) == old
    # Half of a transaction is in it: page 1 alone can be counted on.
    run_sql(racer, "PRAGMA user_version = 77")
    before = hash_live_folder(racer)
    answer = host.t3("run")
    assert answer.code == 1, answer
    journal = f"{aside(racer).name}-journal"
    assert (
        f"could be neither completed nor undone: {racer.database} was written to "
        f"without {journal}, a part of it" in answer.out
    )
    assert {
        name: text for name, text in hash_live_folder(racer).items() if name in before
    } == before
    assert intent(host, racer).exists()


def test_a_ctrl_c_at_the_question_ends_it_at_once(host: Host, racer: User) -> None:
    """On a terminal, which sends the signal itself."""
    before = hash_live_folder(racer)["state.sqlite"]
    ours, theirs = os.openpty()
    try:
        with subprocess.Popen(
            ["setsid", "--ctty", sys.executable, "-m", "t3_backup", "restore", racer.name],
            stdin=theirs, stdout=theirs, stderr=theirs, env=host.env(), cwd="/",
        ) as process:  # fmt: skip
            said = b""
            while b"[y/N]" not in said:
                said += os.read(ours, 4096)
            try:
                until(lambda: [os.write(ours, b"\x03"), process.poll() is not None][1], "end")
                assert process.returncode == -signal.SIGINT
            finally:
                process.kill()
    finally:
        os.close(ours)
        os.close(theirs)
    assert hash_live_folder(racer)["state.sqlite"] == before
    must_be_ended(host, racer)


def test_a_ctrl_c_held_down_during_the_exchange_lets_it_end(host: Host, racer: User) -> None:
    """Row 27. A terminal sends it to all of its processes."""
    taken = dump_database(host.snapshots(racer)[0])
    old = inode(racer)
    with restoring(
        host, racer, "swap_databases", "renameat2:delay_exit=300000", start_new_session=True
    ) as process:
        until(lambda: inode(racer) != old, "exchange")
        while process.poll() is None:
            with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, signal.SIGINT)
                process.wait(0.02)
        out, err = process.communicate()
    assert process.returncode == -signal.SIGINT, out + err
    assert "Traceback" not in err
    assert dump_database(racer.database) == taken
    must_be_ended(host, racer)


def test_who_ends_it_during_the_exchange_still_has_its_document(host: Host, racer: User) -> None:
    old = inode(racer)
    with restoring(
        host, racer, "swap_databases", "renameat2:delay_exit=300000", "--json"
    ) as process:
        until(lambda: inode(racer) != old, "exchange")
        process.terminate()
        out, err = process.communicate(timeout=BOUND_S)
    assert process.returncode == -signal.SIGTERM, out + err
    assert json.loads(out)["action"] == "restored"
    must_be_ended(host, racer)


@pytest.mark.parametrize("operation", ["stage_database", "checkpoint_databases"])
def test_a_terminal_that_goes_away_before_the_exchange_undoes_it(
    host: Host, racer: User, operation: str
) -> None:
    """Row 27. A connection that breaks must not leave it to the next night."""
    before = dump_database(racer.database)
    with restoring(host, racer, operation, "fsync:delay_enter=1000000") as process:
        until(lambda: moved(racer, ""), "staged database")
        process.send_signal(signal.SIGHUP)
        out, err = process.communicate(timeout=BOUND_S)
    # The first where it was told so between two operations.
    told = ("stopped before anything was replaced", "stopped before it was done")
    assert process.returncode == 1, out + err
    assert err in [f"t3-backup-state: {words}\n" for words in told]
    assert dump_database(racer.database) == before
    assert len(host.snapshots(racer)) == 1
    must_be_ended(host, racer)


# The command, which waits for longer than any restore takes.
PATIENT = ("t3_backup.cli.restore.WAIT_S=60", "t3_backup.cli.main")


def test_of_two_at_once_the_second_waits_and_both_are_whole(host: Host, racer: User) -> None:
    """Row 16. The second keeps what the first put back."""
    taken = dump_database(host.snapshots(racer)[0])
    line = programs.line("call_with.py", *PATIENT, "restore", racer.name, "--yes", isolated=False)
    how = {
        "env": host.env(),
        "cwd": ROOT,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.STDOUT,
        "text": True,
    }
    with subprocess.Popen(line, **how) as first, subprocess.Popen(line, **how) as second:
        for process in (first, second):
            said = process.communicate(timeout=3 * BOUND_S)[0]
            assert process.returncode == 0, said
    assert dump_database(racer.database) == taken
    assert len(host.snapshots(racer)) == 3
    succeeded(host.t3("verify", racer.name))
    must_be_ended(host, racer)
