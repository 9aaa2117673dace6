"""Bits of sealed stores that change by themselves: each is found or harms nothing, costs no other
snapshot anything, and no restore gives out what was not sealed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable

from support import programs
from support.databases import commit_row, put_database
from support.host import Host, succeeded
from support.paths import DATA, ROOT
from support.sampling import amount, seed
from support.users import needs_root

from demo.users import User

pytestmark = needs_root

TINY = DATA / "state-0.0.24.sqlite"
FLIPS = 5_260


def sealed_store(host: Host, user: User) -> None:
    """Plain images and deltas of two databases, and archives of what is beside them."""
    host.environ["T3_BACKUP_COMPACT"] = "delta"
    put_database(user, "notes.sqlite", "things")
    settings = user.database.parent / "settings.json"
    for number in range(3):
        settings.write_text(json.dumps({"number": number // 2}))
        user.give(settings)
        commit_row(user)
        succeeded(host.t3("run", "--label", f"day-{number}"))


def test_each_bit_that_flips_is_found_or_harms_nothing(
    host: Host, make_user: Callable[..., User], tell: Callable[[str], None]
) -> None:
    """Row 12, row 58."""
    user = make_user("rot", TINY)
    host.write_map(user)
    sealed_store(host, user)
    jobs = amount(os.cpu_count() or 1, 1)
    share = -(-amount(FLIPS, 12) // jobs)
    running = []
    for job in range(jobs):
        place = host.folder / f"rot-{job}"
        place.mkdir(mode=0o700)
        shutil.copytree(host.store, place / "store")
        words = (str(place / "store"), user.name, str(user.database), str(share), f"{seed()} {job}")
        line = programs.line("rot_bits.py", *words, isolated=False)
        environ = host.env(T3_BACKUP_DEST=str(place / "store")) | {"PYTHONPATH": str(ROOT)}
        running.append(
            subprocess.Popen(line, env=environ, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        )
    counts: Counter[str] = Counter()
    for process in running:
        out, _ = process.communicate()
        assert process.returncode == 0
        found = json.loads(out)
        assert found["wrong"] == []
        counts.update(found["counts"])
    flips = sum(count for what, count in counts.items() if what.endswith(("found", "harmless")))
    assert flips == share * jobs
    assert any(what.startswith("plain image found") for what in counts)
    tell(f"bit rot: {flips} flips: {dict(sorted(counts.items()))}")
