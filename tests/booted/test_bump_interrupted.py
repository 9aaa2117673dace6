"""A bump is killed at its steps and at random moments, and the power fails: what ends it leaves no account mixed and loses nothing.

T3_TEST_KILLS is the number of those moments. In a soak it is killed at every step.
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
from support.booted.interrupted_bump import NEW, OLD, Rounds, under_way
from support.booted.machine import Result, install_package
from support.booted.machine import machine as boot
from support.booted.t3_servers import ROOT
from support.booted.users import STORE
from support.sampling import amount, chance, counts

KILLS = int(os.environ.get("T3_TEST_KILLS") or amount(8, 4))
DRAIN = ("t3-autoupdate", "drain")
BUMP = ("t3-autoupdate", "--to", NEW)
# of the accounts, one after another, and of whoever has none of his own
_LINKS = "symlink,symlinkat"
# of the journal, a link, the freeze file: each is a step's beginning
_RENAMES = "rename,renameat,renameat2"
# The command, which waits for nobody's backup before it stops a server.
_HURRIED = "import sys; from t3_backup.autoupdate import main, journal_runner; journal_runner._STORE_WAIT_S = 0; sys.exit(main.main(sys.argv[1:]))"
_KILLED = (-9, 137)
_MOST = 60  # renames of a bump of two accounts, by far


@pytest.fixture(scope="module", params=["bookworm"])
def rounds(
    request: pytest.FixtureRequest, deb: Path, autoupdate_deb: Path, grown: Callable[[int], Path]
) -> Iterator[Rounds]:
    with boot(request.param, packages=[deb, autoupdate_deb]) as machine:
        found = Rounds(machine)
        found.settle(grown(8))
        found.begin()
        yield found


def killed_at(rounds: Rounds, calls: str, number: int, command: Sequence[str]) -> Result:
    """Run a command that is killed as it is about to make such a system call for so many times,
    where it comes to that."""
    inject = f"inject={calls}:signal=SIGKILL:when={number}"
    line = ["strace", "-qq", "-o", "/dev/null", "-e", f"trace={calls}", "-e", inject, *command]
    return rounds.machine.run(*line, check=False, timeout=300)


def killed_after(
    rounds: Rounds, seconds: float, command: Sequence[str], *, with_all: bool
) -> tuple[dict[str, dict[str, Any]], Result]:
    """Run a command that is killed after so long, alone or with all that it started; what people
    did then, and how it was ended."""
    with under_way(rounds.machine, *command) as (process, kill):
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            kill(with_all)
        return rounds.work(), rounds.end()


@pytest.mark.parametrize("broken", [False, True])
def test_a_kill_before_any_rename_leaves_nobody_mixed(
    rounds: Rounds, broken: bool, tell: Callable[[str], None]
) -> None:
    """With a good version, and with one that nobody is logged in to, which is taken back: that is
    killed, too."""
    reached: Counter[str] = Counter()
    kills = 0
    for number in counts(_MOST, 5, f"renames of a bump, broken: {broken}"):
        rounds.again(broken=broken)
        cut = killed_at(rounds, _RENAMES, number, DRAIN)
        work = rounds.work()
        ended = rounds.end()
        versions = rounds.assert_whole(work, ended)
        reached[" ".join(versions.values())] += 1
        if cut.code not in _KILLED:
            break
        kills += 1
    tell(f"broken: {broken}: {kills} kills: {dict(reached)}")
    assert cut.code == (1 if broken else 0), cut
    assert number > 8
    assert set(versions.values()) == ({OLD} if broken else {NEW})
    assert reached[f"{OLD} {OLD}"] > 0


@pytest.mark.parametrize("broken", [False, True])
def test_a_kill_at_any_moment_leaves_nobody_mixed(
    rounds: Rounds, broken: bool, tell: Callable[[str], None]
) -> None:
    """The command alone, whose snapshot or restore then goes on without it, or all of its
    service."""
    rounds.again(broken=broken)
    began = time.monotonic()
    whole = rounds.end(DRAIN)
    seconds = time.monotonic() - began
    rounds.assert_whole(rounds.work(), whole)
    assert whole.code == (1 if broken else 0), whole
    moments = chance(f"a bump killed, broken: {broken}")
    reached: Counter[str] = Counter()
    for number in range(KILLS // 2):
        rounds.again(broken=broken)
        after, with_all = moments.uniform(0, seconds), bool(number % 2)
        work, ended = killed_after(rounds, after, DRAIN, with_all=with_all)
        told = Result(
            ended.code, ended.out + f"\nafter {after:.2f} s, with_all={with_all}", ended.err
        )
        reached[" ".join(rounds.assert_whole(work, told).values())] += 1
    tell(f"broken: {broken}: killed at {KILLS // 2} moments of {seconds:.1f} s: {dict(reached)}")


def test_a_kill_before_anybody_is_moved_is_in_nobodys_way(
    rounds: Rounds, tell: Callable[[str], None]
) -> None:
    """From the installation of the version on; the next one, which finds what is left of it, goes
    through."""
    machine, moments = rounds.machine, chance("a bump killed before the moves")
    reached: Counter[str] = Counter()
    for number in range(KILLS // 4):
        rounds.again()
        machine.run(
            "rm",
            "-r",
            f"{ROOT}/journal.json",
            f"{ROOT}/versions/{NEW}",
            f"{ROOT}/versions/{NEW}.json",
        )
        after, with_all = moments.uniform(0, rounds.seconds), bool(number % 2)
        work, ended = killed_after(rounds, after, BUMP, with_all=with_all)
        reached[" ".join(rounds.assert_whole(work, ended).values())] += 1
    tell(f"killed at {KILLS // 4} moments of {rounds.seconds:.1f} s: {dict(reached)}")
    answer = rounds.end(BUMP)
    assert answer.code == 0, answer
    assert set(rounds.assert_whole(rounds.work(), answer).values()) == {NEW}


def test_a_login_that_a_killed_bump_has_left_is_ended_before_anything_is_switched(
    rounds: Rounds,
) -> None:
    """It may mint by a version that is not the account's any more, and migrate what was put
    back."""
    rounds.again()
    name = f"t3-as-{b'alice'.hex()}-left.service"
    rounds.machine.run("systemd-run", f"--unit={name}", "sleep", "600")
    ended = rounds.end(DRAIN)
    assert ended.code == 0, ended
    assert rounds.machine.show(name, "ActiveState")["ActiveState"] != "active"
    assert set(rounds.assert_whole(rounds.work(), ended).values()) == {NEW}


def test_who_is_down_is_not_left_so_because_a_backup_runs(rounds: Rounds) -> None:
    """What would be put off while all is well is waited for: the snapshot that a killed bump had
    begun may take longer."""
    rounds.again()
    assert killed_at(rounds, _LINKS, 1, DRAIN).code in _KILLED
    assert rounds.look("alice")["held"]
    work = rounds.work()
    with rounds.machine.start("flock", STORE, "sh", "-c", "echo held; exec cat") as backup:
        assert backup.stdout is not None
        assert backup.stdin is not None
        assert backup.stdout.readline() == "held\n"
        with under_way(rounds.machine, "python3", "-c", _HURRIED, "resume") as (process, _):
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(3)
            backup.stdin.close()
            said = process.communicate(timeout=60)[0]
    ended = Result(process.returncode, said, "")
    assert set(rounds.assert_whole(work, ended).values()) == {OLD}


def test_a_removal_ends_what_was_interrupted_and_is_refused_where_that_fails(
    rounds: Rounds, autoupdate_deb: Path
) -> None:
    """Nothing is left on the machine after it that could bring an account's server back."""
    machine, remove = rounds.machine, ("apt-get", "remove", "--yes", "t3-autoupdate")
    rounds.again()
    assert killed_at(rounds, _LINKS, 1, DRAIN).code in _KILLED
    work = rounds.work()
    machine.run("mv", f"{STORE}/alice", "/var/tmp/alice")
    refused = machine.run(*remove, check=False)
    machine.run("mv", "/var/tmp/alice", f"{STORE}/alice")
    assert (refused.code, f"not removed: {ROOT}/alice/held" in refused.text) == (100, True), refused
    assert rounds.look("alice")["held"]
    removed = machine.run(*remove, check=False)
    assert removed.code == 0, removed
    install_package(machine, autoupdate_deb)
    assert set(rounds.assert_whole(work, removed).values()) == {OLD}


@pytest.mark.parametrize(
    ("link", "left"), [(2, {"alice": OLD, "bob": NEW}), (3, {"alice": OLD, "bob": OLD})]
)
def test_a_kill_of_a_rollback_leaves_nobody_mixed(
    rounds: Rounds, link: int, left: dict[str, str]
) -> None:
    rounds.again()
    assert rounds.end(DRAIN).code == 0
    assert killed_at(rounds, _LINKS, link, ("t3-autoupdate", "rollback", "--yes")).code in _KILLED
    ended = rounds.end()
    assert rounds.assert_whole(rounds.work(), ended) == left
    version = rounds.machine.run("t3", "--version").out
    assert version == f"t3 v{OLD}\n", "what runs for anybody else must migrate nobody's database"


# Until a bump is in a phase, and then at once; a phase that it has gone through by then is no
# reason to go on waiting.
_PHASE = """
import json, sys
while True:
    try:
        moves = json.load(open("/var/lib/t3-autoupdate/journal.json"))["moves"]
    except FileNotFoundError:
        sys.exit("it has ended")
    if any(move["phase"] == sys.argv[1] for move in moves):
        break
"""


@pytest.mark.parametrize(
    ("phase", "broken"), [("stopping", False), ("starting", False), ("returning", True)]
)
def test_a_power_cut_is_ended_by_the_next_boot(rounds: Rounds, phase: str, broken: bool) -> None:
    rounds.again(broken=broken)
    with under_way(rounds.machine, *DRAIN):
        rounds.machine.run("python3", "-c", _PHASE, phase)
        rounds.machine = rounds.machine.lose_power()
    unit = rounds.machine.show(
        "t3-autoupdate-resume.service", "ConditionResult", "ActiveState", "ExecMainStatus", "Result"
    )
    assert unit["ConditionResult"] == "yes"
    assert unit["ActiveState"] in ("inactive", "failed"), unit
    said = "\n".join(
        str(entry["MESSAGE"])
        for entry in rounds.machine.journal("--boot", unit="t3-autoupdate-resume.service")
    )
    ended = Result(int(unit["ExecMainStatus"]), said, "")
    assert "the bump was interrupted while" in said, ended
    rounds.assert_whole(rounds.work(), ended)
