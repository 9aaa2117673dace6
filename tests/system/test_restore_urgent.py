"""Who restores waits for no proof: it pauses, lets the restore have the store, and begins anew."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from support import sandbox
from support.databases import make_snapshots
from support.host import Host, succeeded
from support.processes import until
from support.users import needs_root
from support.workers import start_wrapped, wrap_workers

from demo.users import User

pytestmark = [needs_root, pytest.mark.skipif(sandbox.ACTIVE, reason="by hand")]


def hold_until_restored(host: Host, user: User) -> str:
    """What a worker does that never begins before a restore has kept what was there."""
    kept = f"ls {host.account_dir(user)}/*-prerestore.json"
    return f"{kept} >/dev/null 2>&1 || {{ touch {host.folder}/at; exec sleep 1000; }}"


def test_a_restore_has_a_proof_pause_which_then_begins_anew(host: Host, alice: User) -> None:
    make_snapshots(host, alice, 2)
    wrapper = wrap_workers(host.folder, check_integrity=hold_until_restored(host, alice))
    with start_wrapped(host, wrapper, "verify", alice.name, stderr=subprocess.STDOUT) as proof:
        try:
            until((host.folder / "at").exists, "worker")
            succeeded(host.t3("restore", alice.name, "--yes"))
            said, _ = proof.communicate(timeout=120)
        finally:
            proof.kill()
    assert proof.returncode == 0, said
    assert len([text for text in said.splitlines() if text.startswith("verified ")]) == 2, said
    assert len(host.snapshots(alice)) == 3, "that of before the restore was not there at the start"


@pytest.mark.soak
def test_who_does_not_listen_is_not_asked(host: Host, alice: User) -> None:
    """It would die of the signal."""
    make_snapshots(host, alice, 1)
    with subprocess.Popen(["flock", "--shared", host.store, "sleep", "1000"]) as reader:
        try:
            until(lambda: Path(f"/proc/{reader.pid}/task/{reader.pid}/children").read_text(), "it")
            answer = host.t3("restore", alice.name, "--yes")
            assert (answer.code, reader.poll()) == (75, None), answer
        finally:
            subprocess.run(["pkill", "-P", str(reader.pid)], check=True)
            reader.kill()
