"""A bump is killed at its steps and at random moments, and the power fails.

What ends it leaves no account mixed and loses nothing. T3_TEST_KILLS is the number of those
moments. In a soak it is killed at every step.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from support import programs
from support.booted.interrupted_bump import NEW, OLD, InterruptedBump, killable_command
from support.booted.machine import Result, boot, install_package
from support.booted.t3_servers import AUTOUPDATE_ROOT
from support.booted.users import STORE
from support.sampling import amount, chance, counts, is_soak, sample

KILLS = int(os.environ.get("T3_TEST_KILLS") or amount(8, 4))
DRAIN = ("t3-autoupdate", "drain")
# from V1 to V2, and from one V1 to the next
PAIRS = [("0.0.42", "0.1.0"), (OLD, NEW)]
# of the accounts, one after another, and of whoever has none of their own
_LINKS = "symlink,symlinkat"
# of the journal, a link, the freeze file: each is a step's beginning
_RENAMES = "rename,renameat,renameat2"
# The command, which waits for nobody's backup before it stops a server.
_HURRIED = programs.booted_line(
    "call_with.py",
    "t3_backup.autoupdate.journal_runner._STORE_WAIT_S=0",
    "t3_backup.autoupdate.main",
)
_KILLED = (-9, 137)
_MOST = 60  # renames of a bump of two accounts, by far


@pytest.fixture(scope="module", params=PAIRS if is_soak() else PAIRS[:1], ids=" to ".join)
def bump(
    request: pytest.FixtureRequest, deb: Path, autoupdate_deb: Path, grown: Callable[[int], Path]
) -> Iterator[InterruptedBump]:
    with boot("bookworm", packages=[deb, autoupdate_deb]) as machine:
        found = InterruptedBump(machine, *request.param)
        found.set_up(grown(8))
        found.prepare()
        yield found


def killed_at(bump: InterruptedBump, calls: str, number: int, command: Sequence[str]) -> Result:
    """Run a command that is killed as it is about to make such a system call for so many times,
    where it comes to that."""
    inject = f"inject={calls}:signal=SIGKILL:when={number}"
    line = ["strace", "-qq", "-o", "/dev/null", "-e", f"trace={calls}", "-e", inject, *command]
    return bump.machine.run(*line, check=False, timeout=300)


def killed_after(
    bump: InterruptedBump, seconds: float, command: Sequence[str], *, with_all: bool
) -> tuple[dict[str, dict[str, Any]], Result]:
    """Run a command that is killed after so long, alone or with all that it started; what people
    did then, and how it was ended."""
    with killable_command(bump.machine, *command) as (process, kill):
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            kill(with_all)
        return bump.write(), bump.finish()


@pytest.mark.parametrize("broken", sample([False, True], 2, "killed before any rename"))
def test_a_kill_before_any_rename_leaves_nobody_mixed(
    bump: InterruptedBump, broken: bool, tell: Callable[[str], None]
) -> None:
    """With a good version, and with one that nobody is logged in to, which is taken back: that is
    killed, too."""
    reached: Counter[str] = Counter()
    kills = 0
    for number in counts(_MOST, 14, f"renames of a bump, broken: {broken}"):
        bump.reset(broken=broken)
        cut = killed_at(bump, _RENAMES, number, DRAIN)
        work = bump.write()
        ended = bump.finish()
        versions = bump.assert_whole(work, ended)
        reached[" ".join(versions.values())] += 1
        if cut.code not in _KILLED:
            break
        kills += 1
    tell(f"broken: {broken}: {kills} kills: {dict(reached)}")
    assert cut.code == (1 if broken else 0), cut
    assert number > 8
    assert set(versions.values()) == ({bump.old} if broken else {bump.new})
    assert reached[f"{bump.old} {bump.old}"] > 0


@pytest.mark.parametrize("broken", sample([False, True], 2, "killed at any moment"))
def test_a_kill_at_any_moment_leaves_nobody_mixed(
    bump: InterruptedBump, broken: bool, tell: Callable[[str], None]
) -> None:
    """The command alone, whose snapshot or restore then goes on without it, or all of its
    service."""
    bump.reset(broken=broken)
    began = time.monotonic()
    whole = bump.finish(DRAIN)
    seconds = time.monotonic() - began
    bump.assert_whole(bump.write(), whole)
    assert whole.code == (1 if broken else 0), whole
    moments = chance(f"a bump killed, broken: {broken}")
    reached: Counter[str] = Counter()
    for number in range(KILLS // 2):
        bump.reset(broken=broken)
        after, with_all = moments.uniform(0, seconds), bool(number % 2)
        work, ended = killed_after(bump, after, DRAIN, with_all=with_all)
        told = Result(
            ended.code, ended.out + f"\nafter {after:.2f} s, with_all={with_all}", ended.err
        )
        reached[" ".join(bump.assert_whole(work, told).values())] += 1
    tell(f"broken: {broken}: killed at {KILLS // 2} moments of {seconds:.1f} s: {dict(reached)}")


def test_a_kill_before_anybody_is_moved_is_in_nobodys_way(
    bump: InterruptedBump, tell: Callable[[str], None]
) -> None:
    """From the installation of the version on; the next one, which finds what is left of it, goes
    through."""
    machine, moments = bump.machine, chance("a bump killed before the moves")
    reached: Counter[str] = Counter()
    for number in range(KILLS // 4):
        bump.reset()
        machine.run(
            "rm",
            "-r",
            f"{AUTOUPDATE_ROOT}/journal.json",
            f"{AUTOUPDATE_ROOT}/versions/{bump.new}",
            f"{AUTOUPDATE_ROOT}/versions/{bump.new}.json",
        )
        after, with_all = moments.uniform(0, bump.seconds), bool(number % 2)
        work, ended = killed_after(
            bump, after, ("t3-autoupdate", "--to", bump.new), with_all=with_all
        )
        reached[" ".join(bump.assert_whole(work, ended).values())] += 1
    tell(f"killed at {KILLS // 4} moments of {bump.seconds:.1f} s: {dict(reached)}")
    answer = bump.finish(("t3-autoupdate", "--to", bump.new))
    assert answer.code == 0, answer
    assert set(bump.assert_whole(bump.write(), answer).values()) == {bump.new}


def test_a_login_that_a_killed_bump_has_left_is_ended_before_anything_is_switched(
    bump: InterruptedBump,
) -> None:
    """It may mint by a version that is not the account's any more, and migrate what was put
    back."""
    bump.reset()
    name = f"t3-as-{b'alice'.hex()}-left.service"
    bump.machine.run("systemd-run", f"--unit={name}", "sleep", "600")
    ended = bump.finish(DRAIN)
    assert ended.code == 0, ended
    assert bump.machine.show(name, "ActiveState")["ActiveState"] != "active"
    assert set(bump.assert_whole(bump.write(), ended).values()) == {bump.new}


def test_who_is_down_is_not_left_so_because_a_backup_runs(bump: InterruptedBump) -> None:
    """What would be put off while all is well is waited for: the snapshot that a killed bump had
    begun may take longer."""
    bump.reset()
    assert killed_at(bump, _LINKS, 1, DRAIN).code in _KILLED
    assert bump.inspect("alice")["held"]
    work = bump.write()
    with bump.machine.start("flock", STORE, "sh", "-c", "echo held; exec cat") as backup:
        assert backup.stdout is not None
        assert backup.stdin is not None
        assert backup.stdout.readline() == "held\n"
        with killable_command(bump.machine, *_HURRIED, "resume") as (process, _):
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(3)
            backup.stdin.close()
            said = process.communicate(timeout=60)[0]
    ended = Result(process.returncode, said, "")
    assert set(bump.assert_whole(work, ended).values()) == {bump.old}


def test_a_removal_ends_what_was_interrupted_and_is_refused_where_that_fails(
    bump: InterruptedBump, autoupdate_deb: Path
) -> None:
    """Nothing is left on the machine after it that could bring an account's server back."""
    machine, remove = bump.machine, ("apt-get", "remove", "--yes", "t3-autoupdate")
    bump.reset()
    assert killed_at(bump, _LINKS, 1, DRAIN).code in _KILLED
    work = bump.write()
    machine.run("mv", f"{STORE}/alice", "/var/tmp/alice")
    refused = machine.run(*remove, check=False)
    machine.run("mv", "/var/tmp/alice", f"{STORE}/alice")
    assert (refused.code, f"not removed: {AUTOUPDATE_ROOT}/alice/held" in refused.text) == (
        100,
        True,
    ), refused
    assert bump.inspect("alice")["held"]
    removed = machine.run(*remove, check=False)
    assert removed.code == 0, removed
    install_package(machine, autoupdate_deb)
    assert set(bump.assert_whole(work, removed).values()) == {bump.old}


@pytest.mark.parametrize("link", [2, 3])
def test_a_killed_rollback_goes_on_and_leaves_nobody_mixed(
    bump: InterruptedBump, link: int
) -> None:
    bump.reset()
    assert bump.finish(DRAIN).code == 0
    assert killed_at(bump, _LINKS, link, ("t3-autoupdate", "rollback", "--yes")).code in _KILLED
    ended = bump.finish()
    assert set(bump.assert_whole(bump.write(), ended).values()) == {bump.old}
    version = bump.machine.run("t3", "--version").out
    assert version == f"t3 v{bump.old}\n", (
        "what runs for anybody else must migrate nobody's database"
    )


@pytest.mark.parametrize(
    ("phase", "broken"), [("stopping", False), ("starting", False), ("returning", True)]
)
def test_a_power_cut_is_ended_by_the_next_boot(
    bump: InterruptedBump, phase: str, broken: bool
) -> None:
    bump.reset(broken=broken)
    with killable_command(bump.machine, *DRAIN):
        bump.machine.run(*programs.booted_line("wait_for_phase.py", phase))
        bump.machine = bump.machine.lose_power()
    unit = bump.machine.show(
        "t3-autoupdate-resume.service", "ConditionResult", "ActiveState", "ExecMainStatus", "Result"
    )
    assert unit["ConditionResult"] == "yes"
    assert unit["ActiveState"] in ("inactive", "failed"), unit
    said = "\n".join(
        str(entry["MESSAGE"])
        for entry in bump.machine.journal("--boot", unit="t3-autoupdate-resume.service")
    )
    ended = Result(int(unit["ExecMainStatus"]), said, "")
    assert "the bump was interrupted while" in said, ended
    bump.assert_whole(bump.write(), ended)
