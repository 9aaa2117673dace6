"""The project's own tests in a booted system, with the package that is installed there, under the sandbox of the shipped unit.

The C tests and those of values run as a service that is confined as the timer's is; in those of the
system the command does, and users, servers and trouble are outside. Left out is what is no part of
the service: faults (strace, loop mounts), the terminal, measurements, and what calls functions of
the package from the tests' own process.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.booted.machine import Machine, boot
from support.booted.users import STORE
from support.paths import ROOT
from support.sampling import amount, is_soak, sample, seed

# the service may execute nothing in the places that it may write
PLACE = "/usr/lib/t3-backup-tests"
CONFINED = f"cd {PLACE} && exec /usr/bin/python3 tests/support/sandbox.py"
KINDS = ("normal", "faults")
PROGRAMS = ("files", "vfs")
VALUES = [
    path
    for folder in ("property", "unit")
    for path in sorted((ROOT / "tests" / folder).glob("test_*.py"))
]
ASKED = f"env T3_TEST_SEED={seed()} T3_TEST_SOAK={int(is_soak())}"
# What its own trouble needs is taken from the service: rights over files, other users, strace, a
# terminal, a looser umask, /dev/shm, a program of its own in a folder that it may write.
NOT_VALUES = [
    "what_the_system_says",
    "opened_by_its_own_path",
    "can_open_it_for_writing",
    "another_mode",
    "another_owner",
    "somebody_elses",
    "a_folder_of_another_s",
    "one_call_answers_for_all_accounts",
    "it_does_not_answer_is_a_failure",
    "sealed_then_its_manifest",
    "removal_takes_the_data_first",
    "replaced_by_one_rename",
    "an_open_account_folder",
    "no_descriptor_is_left_open",
    "on_a_terminal",
    "without_rich",
    "symlink_of_somebody_else",
    "is_anothers",
    "open_to_others_stops_nobody",
    "time_that_no_archive_holds",
]
# Of the checkout alone, or of both packages; and systemd runs a program of its own from the store,
# where none may be run.
NOT_FILES = [
    "content",
    "docs",
    "documents",
    "layers",
    "manpage",
    "monitoring",
    "sqlite_shapes",
    "systemd",
    "t3_data",
]
SYSTEM = (
    ["main_job", "users", "runs", "verdicts", "source_untouched", "import_legacy", "fallback", "without_wal", "operator_errors", "runbook", "real_databases", "coverage"]
)  # fmt: skip


@pytest.fixture(scope="module")
def machine(suite: str, deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    built = tmp_path_factory.mktemp("c")
    programs = [built / kind / f"test_{name}" for kind in KINDS for name in PROGRAMS]
    subprocess.run(
        ["make", "-C", ROOT / "tests/c", f"OUT={built}", *programs], check=True, capture_output=True
    )
    with boot(
        suite, f"--bind-ro={ROOT}:/mnt/checkout", f"--bind-ro={built}:/mnt/c", packages=[deb]
    ) as booted:
        booted.sh(
            "apt-get install -qq -y --no-install-recommends dbus procps python3-pytest "
            "python3-hypothesis sqlite3 zstd; "
            f"systemctl start dbus.socket; mkdir -p {PLACE}; cd /mnt/checkout; "
            f"cp -r tests demo docs pyproject.toml /mnt/c {PLACE}"
        )
        yield booted


def counts(output: str) -> dict[str, int]:
    """The numbers of a test runner's closing line."""
    return {
        word: int(number)
        for number, word in re.findall(
            r"(\d+) (passed|failed|error|skipped)", output.splitlines()[-1]
        )
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("program", PROGRAMS)
def test_the_c_code_does_under_the_sandbox_what_it_does_elsewhere(
    machine: Machine, kind: str, program: str, tell: Callable[[str], None]
) -> None:
    done = machine.sh(f"{CONFINED} {PLACE}/c/{kind}/test_{program}", check=False)
    tell(f"under the sandbox, {machine.suite}: {done.out.splitlines()[-1]}")
    found = counts(done.out)
    assert (done.code, found["failed"]) == (0, 0), done.out + done.err
    assert found["passed"] >= 12


def test_the_tests_of_values_pass_under_the_sandbox(
    machine: Machine, tell: Callable[[str], None]
) -> None:
    files = sample(
        [path for path in VALUES if path.stem.removeprefix("test_") not in NOT_FILES],
        9,
        "values under the sandbox",
    )
    names = " ".join(str(path.relative_to(ROOT)) for path in files)
    chosen = " and ".join(f"not {name}" for name in NOT_VALUES)
    suite = f'{ASKED} python3 -m pytest -q -p no:cacheprovider --basetemp={STORE}/.pytest -k "{chosen}" {names}'
    done = machine.sh(
        f"{CONFINED} /bin/sh -c 'cd {PLACE} && exec {suite}'", check=False, timeout=900
    )
    tell(f"under the sandbox, {machine.suite}: {done.out.splitlines()[-1]}")
    found = counts(done.out)
    assert done.code == 0, done.out[-6000:] + done.err
    assert found["passed"] > amount(500, 0)


def test_the_tests_of_the_system_pass_with_the_command_under_the_sandbox(
    machine: Machine, tell: Callable[[str], None]
) -> None:
    names = " ".join(
        f"tests/system/test_{name}.py" for name in sample(SYSTEM, 12, "system under the sandbox")
    )
    done = machine.sh(f"cd {PLACE} && exec {ASKED} python3 -m pytest -q -p no:cacheprovider {names}",
        env={"T3_TEST_SANDBOX": "1", "PYTHONDONTWRITEBYTECODE": "1"}, check=False, timeout=900)  # fmt: skip
    tell("\n".join(done.out.splitlines()[-12:]))
    assert done.code == 0, done.out[-8000:] + done.err
    assert counts(done.out)["passed"] > amount(140, 0)
    [(confined,)] = [
        re.findall(r"^(\d+) commands were run under the sandbox", done.out, re.MULTILINE)
    ]
    assert int(confined) > amount(300, 0)
