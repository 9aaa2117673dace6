"""The gate on a machine with real data.

What it turns away and where, what a candidate can reach from in there, and what is left. Each bad
version is tried on an empty state and on the data of two users, three trials at a time; where it is
no soak, one version for each step at which one can fail, on one user's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fake_t3 import SILENT, STEPS
from support import programs
from support.booted.gate_trials import (
    PRIVATE,
    SECRET,
    TARGETS,
    USERS,
    VERSIONS,
    find_leftovers,
    gate_machine,
    hanging_trial,
    install_by_npm,
    install_version,
    open_sockets,
    remove_leftovers,
    run_gate,
    run_trials,
)
from support.booted.machine import Machine
from support.sampling import amount, is_soak, sample

from t3_backup.autoupdate.gate.sandbox import unit_name
from t3_backup.autoupdate.gate.verdict import EMPTY

GOOD = ("0.0.24", "0.0.25", "0.1.0")
SUBJECTS = (EMPTY, *USERS) if is_soak() else tuple(sample(USERS, 2, "subjects of the gate"))
BAD = [
    name
    for step in sorted(set(STEPS.values()))
    for name in sample([name for name in STEPS if STEPS[name] == step], 9, step)
]
_NODE = Path("/usr/bin/node")
Found = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture(scope="module")
def machine(
    suite: str, deb: Path, autoupdate_deb: Path, grown: Callable[[int], Path]
) -> Iterator[Machine]:
    options = [f"--bind-ro={_NODE}"] if _NODE.exists() else []
    with gate_machine(suite, [deb, autoupdate_deb], grown(8), *options) as found:
        yield found


@pytest.fixture(scope="module")
def found(machine: Machine) -> Found:
    """What came of each version on each subject. Every subject has its own lane."""
    prefixes = {variant: install_version(machine, "0.0.25", variant) for variant in BAD} | {
        version: install_version(machine, version) for version in GOOD
    }

    def lane(subject: str) -> list[dict[str, Any] | None]:
        return run_trials(machine, [(prefix, subject) for prefix in prefixes.values()])

    with ThreadPoolExecutor(len(SUBJECTS)) as lanes:
        results = dict(zip(SUBJECTS, lanes.map(lane, SUBJECTS), strict=True))
    return {
        (name, subject): trial
        for subject in SUBJECTS
        for name, trial in zip(prefixes, results[subject], strict=True)
        if trial
    }


@pytest.mark.parametrize("subject", SUBJECTS)
@pytest.mark.parametrize("variant", BAD)
def test_a_bad_version_is_turned_away_at_its_step(found: Found, variant: str, subject: str) -> None:
    trial = found[variant, subject]
    if (STEPS[variant], subject) == ("data", EMPTY):
        assert trial["passed"], "there is nothing that it could lose"
        return
    assert (trial["passed"], trial["step"]) == (False, STEPS[variant]), trial
    assert trial["reason"]


@pytest.mark.parametrize("subject", SUBJECTS)
@pytest.mark.parametrize("version", GOOD)
def test_a_good_version_passes(found: Found, version: str, subject: str) -> None:
    trial = found[version, subject]
    endpoint, level, database = {
        "0.0.24": ("/api/auth/bootstrap", 30, "state.sqlite"),
        "0.0.25": ("/api/auth/browser-session", 31, "state.sqlite"),
        "0.1.0": ("/api/auth/browser-session", 62, "statev2.sqlite"),
    }[version]
    assert trial["passed"], trial
    assert (trial["endpoint"], trial["level_before"], trial["level_after"]) == (
        endpoint,
        None if subject == EMPTY else 30,
        level,
    )
    assert (trial["database"], trial["ledger"][-1][0]) == (database, level)


def test_a_probe_of_liveness_alone_would_have_passed_most_bad_versions(
    found: Found, tell: Callable[[str], None]
) -> None:
    tell(f"{'version':20}{'on':8}{'GET /':8}{'the gate':12}reason")
    for (name, subject), trial in found.items():
        verdict = "passed" if trial["passed"] else trial["step"]
        tell(f"{name:20}{subject:8}{trial['probe'] or '-':<8}{verdict:12}{trial['reason'][:100]}")
    users = [user for user in USERS if user in SUBJECTS]
    fooled = {name for name in BAD if all(found[name, user]["probe"] == 200 for user in users)}
    assert fooled == set(BAD) - set(SILENT)
    assert len(fooled) >= amount(5, 4)


def test_the_gate_tries_nothing_first_and_stops_at_the_second_that_fails(
    machine: Machine, found: Found
) -> None:
    good = run_gate(machine, install_version(machine, "0.0.25"), *USERS, "nobody-has-a-snapshot-of")
    assert [(trial["subject"], trial["passed"]) for trial in good] == [
        (EMPTY, True),
        ("alice", True),
        ("bob", True),
    ]
    bad = run_gate(machine, install_version(machine, "0.0.25", "unreadable"), *USERS)
    assert [(trial["subject"], trial["step"]) for trial in bad] == [
        (EMPTY, ""),
        ("alice", "data"),
        ("bob", "data"),
    ]
    assert find_leftovers(machine) == []


def test_a_hostile_version_reaches_nothing(machine: Machine) -> None:
    prefix = install_version(machine, "0.0.25", "hostile")
    install_version(machine, "0.0.25", "hung")
    other = f"/var/lib/private/{unit_name('bob')}"
    machine.run(
        "systemctl", "set-environment", *(f"{name}={value}" for name, value in PRIVATE.items())
    )
    with (
        open_sockets(machine),
        hanging_trial(machine, f"{VERSIONS}/0.0.25-hung", "bob", unit_name("bob")),
    ):
        machine.run("chmod", "-R", "a+rwX", other)
        [trial] = run_trials(machine, [(prefix, "alice")], env=PRIVATE)
        free = machine.run(
            f"{prefix}/bin/t3", "serve", "--base-dir", "/nonexistent", env=PRIVATE, check=False
        )
        outside = set(json.loads(free.out.removeprefix("hostile: ")))
    machine.run("systemctl", "unset-environment", *PRIVATE)
    assert trial is not None
    assert (trial["step"], trial["log"]) == ("start", ["hostile: []"]), trial
    # Without the sandbox it gets at all of this: none of it is out of reach by itself.
    reachable = {
        *("tcp 127.0.0.1:4999", "udp 127.0.0.1:4999"),
        *("unix @t3-test-abstract", "unix /run/t3-test/socket", "unix /run/systemd/private"),
        "read /home/alice/.t3/userdata/state.sqlite",
        "read /home/alice/.t3/userdata/secrets/server-signing-key.bin",
        *("read /home/bob/.t3/worktrees/work", "read /home/bob/.ssh/id_ed25519"),
        *("read /etc/shadow", "read /etc/t3-serve/alice.env"),
        *("read /var/backups/t3-state/alice", "read /var/lib/t3-autoupdate/journal.json"),
        *(f"read {other}", f"read /var/lib/{unit_name('bob')}/userdata"),
        *("read /tmp/t3-test", "read /var/tmp/t3-test", "read /home/alice"),
        "environment ANTHROPIC_API_KEY",
        *("write /", "write /home", "write /usr", "write /etc", "write /dev/shm"),
    }
    assert reachable <= outside, reachable - outside
    for kind in ("read /proc/", "signal ", "ptrace "):
        assert any(name.startswith(kind) for name in outside), kind


def test_the_install_scripts_of_a_package_reach_nothing(machine: Machine, tmp_path: Path) -> None:
    """npm runs them, and they have what it has: a folder, a proxy, and nothing of this machine."""
    machine.run(
        "systemctl", "set-environment", *(f"{name}={value}" for name, value in PRIVATE.items())
    )
    with open_sockets(machine):
        found = install_by_npm(machine, tmp_path)
        # The same without the cell: a user that owns nothing, in a unit of its own.
        line = ["systemd-run", "--quiet", "--pipe", "--wait", "--collect"]
        line += ["--property=DynamicUser=yes", "--property=StateDirectory=t3-free"]
        unpack = 'cd "$STATE_DIRECTORY"; tar -xzf /srv/t3-0.0.25.tgz --strip-components=1; '
        script = '/usr/bin/python3 install.py "$@"; cat reached.json'
        free = machine.run(*line, "bash", "-euc", unpack + script, "bash", *TARGETS).document
    machine.run("systemctl", "unset-environment", *PRIVATE)
    own = "/var/lib/t3-fetch/prefix/lib/node_modules/t3/dist"
    assert found["reached"] == [f"write {own}"], "its own package is what it may write to"
    # 502: the machine has no such address, or no such name
    assert set(found["proxy"].values()) <= {"403", "502"}, found["proxy"]
    numbers = {name for name in found["proxy"] if name.partition(" ")[2][0].isdigit()}
    assert {found["proxy"][name] for name in numbers} == {"403"}, found["proxy"]
    assert len(found["proxy"]) == 13
    assert not set(PRIVATE) & set(found["environment"])
    reachable = {
        *("tcp 127.0.0.1:4999", "udp 127.0.0.1:4999"),
        *("unix @t3-test-abstract", "unix /run/t3-test/socket"),
        *("unix /run/dbus/system_bus_socket", "unix /run/systemd/journal/socket"),
        "read /home/alice/.t3/userdata/state.sqlite",
        *("read /home/alice", "write /dev/shm"),
        *(f"environment {name}" for name in PRIVATE),
    }
    assert reachable - set(free["reached"]) == set()


def test_nobody_but_the_sandbox_keeps_a_user_without_rights_out(machine: Machine) -> None:
    """The same program as a plain user, in a unit without a sandbox, with nothing but a uid of its
    own."""
    prefix = install_version(machine, "0.0.25", "hostile")
    with open_sockets(machine):
        line = [
            "systemd-run",
            "--quiet",
            "--pipe",
            "--wait",
            "--collect",
            "--property=DynamicUser=yes",
            "--setenv=HOME=/",
        ]
        answer = machine.run(
            *line, f"{prefix}/bin/t3", "serve", "--base-dir", "/nonexistent", check=False
        )
    outside = set(json.loads(answer.out.removeprefix("hostile: ")))
    expected = {
        *("tcp 127.0.0.1:4999", "udp 127.0.0.1:4999"),
        *("unix @t3-test-abstract", "unix /run/t3-test/socket"),
        "read /home/alice/.t3/userdata/state.sqlite",
        "read /home/alice/.t3/userdata/secrets/server-signing-key.bin",
        *("read /home/alice", "write /dev/shm"),
    }
    assert expected <= outside, expected - outside


def test_what_is_in_the_gate_is_the_database_alone(machine: Machine) -> None:
    install_version(machine, "0.0.25", "hung")
    folder = f"/var/lib/private/{unit_name('alice')}"
    assert machine.run("grep", "-rl", SECRET, "/home/alice/.t3").lines, "it is there to be found"
    with hanging_trial(machine, f"{VERSIONS}/0.0.25-hung", "alice", unit_name("alice")):
        files = {
            path.removeprefix(f"{folder}/")
            for path in machine.run("find", folder, "-type", "f").lines
        }
        assert machine.run("grep", "-rl", SECRET, folder, check=False).out == ""
        owners = set(machine.run("find", folder, "-printf", "%u\n").lines)
        assert machine.run("stat", "-c", "%a %U", "/var/lib/private").out == "700 root\n"
    names = (
        "state.sqlite",
        "state.sqlite-shm",
        "state.sqlite-wal",
        "secrets/server-signing-key.bin",
        "environment-id",
        "server-runtime.json",
    )
    made = {f"userdata/{name}" for name in names}  # by the server itself
    assert "userdata/state.sqlite" in files
    assert files <= made
    assert not owners & {"root", *USERS}


@pytest.mark.parametrize("subject", ["alice", EMPTY])
def test_a_trial_whose_caller_is_killed_is_swept(machine: Machine, subject: str) -> None:
    install_version(machine, "0.0.25", "hung")
    name = unit_name(None if subject == EMPTY else subject)
    with hanging_trial(machine, f"{VERSIONS}/0.0.25-hung", subject, name) as kill:
        kill()
        assert f"{name}.service" in find_leftovers(machine), "the unit goes on"
        assert f"/var/lib/private/{name}" in find_leftovers(machine)
        remove_leftovers(machine)
        assert find_leftovers(machine) == []
        assert machine.run("pgrep", "-f", "t3_backup.autoupdate.gate.trial", check=False).out == ""
    assert run_gate(machine, install_version(machine, "0.0.25"))[0]["passed"], (
        "and the next one goes as any"
    )


def test_a_trial_whose_caller_is_killed_ends_by_itself(machine: Machine) -> None:
    """Its folder goes with it, though nobody waits for it."""
    install_version(machine, "0.0.25", "hung")
    with hanging_trial(machine, f"{VERSIONS}/0.0.25-hung", "alice", unit_name("alice")) as kill:
        kill()
        machine.until(lambda: find_leftovers(machine) == [], "end of the trial", 60)


def test_what_a_power_cut_left_is_swept(machine: Machine) -> None:
    """No unit, but a folder that was about to be one's, with the link that systemd makes to it."""
    name = unit_name("alice")
    machine.write(f"/var/lib/private/{name}/userdata/state.sqlite", "half")
    machine.run("ln", "-s", f"private/{name}", f"/var/lib/{name}")
    remove_leftovers(machine)
    assert find_leftovers(machine) == []


def test_without_its_sandbox_a_trial_is_not_begun(machine: Machine) -> None:
    line = [
        "python3",
        "-I",
        "-m",
        "t3_backup.autoupdate.gate.trial",
        f"--t3={install_version(machine, '0.0.25')}/bin/t3",
        "--base-dir=/tmp/base",
    ]
    line += ["--port=4773", "--watch=1", "--alone"]
    as_root = machine.run(*line, check=False)
    assert (as_root.code, as_root.document["step"]) == (1, "gate")
    assert "it would run as root" in as_root.document["reason"]
    as_user = machine.run(*line, user="alice", check=False)
    assert (as_user.code, as_user.document["step"]) == (1, "gate")
    assert "the file system is that of the machine" in as_user.document["reason"]
    assert machine.run("test", "-e", "/tmp/base", check=False).code == 1


@pytest.mark.skipif(not _NODE.exists(), reason="there is no Node here")
def test_a_real_node_works_in_there(machine: Machine) -> None:
    """It makes programs in memory and threads, and asks for its user and its network."""
    script = programs.text("work_in_node.js")
    prefix = f"{VERSIONS}/node"
    machine.write(f"{prefix}/bin/t3", f"#!/usr/bin/env node\n{script}", 0o755)
    [trial] = run_trials(machine, [(prefix, EMPTY)])
    assert trial is not None
    assert trial["log"][-1] == "worked", trial
    said = json.loads(trial["log"][-2])
    assert (said["home"], said["net"], said["child"]) == (
        f"/var/lib/{unit_name(None)}",
        ["lo"],
        0,
    ), said
    assert said["user"] == "t3", said
