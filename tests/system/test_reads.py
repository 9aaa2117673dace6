"""How often a run reads the store: the names in an account's folder once, and each manifest in it
once, whether its database has changed or not. What the files take is measured besides."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from support import sandbox
from support.databases import commit_row
from support.host import Host
from support.users import needs_root

from demo.users import User

# For the share of each account, before the first one begins and when it is its own turn.
MEASURED = 2

pytestmark = [
    needs_root,
    pytest.mark.skipif(sandbox.ACTIVE, reason="what is counted is the same there"),
]


@pytest.fixture
def pair(make_user: Callable[..., User], host: Host, small: Path) -> tuple[User, User]:
    """Two users, each with three snapshots: two deltas and a plain one."""
    pair = make_user("one", small), make_user("two", small)
    host.write_map(*pair)
    host.environ["T3_BACKUP_COMPACT"] = "delta"
    for _ in range(3):
        commit_row(*pair)
        assert host.t3("run").code == 0
    return pair


def reads_of(host: Host, *words: str) -> Callable[[User], tuple[int, Counter[str]]]:
    """Run the command. By user: how often the folder was listed to its end, and how often each
    manifest in it was opened."""
    if shutil.which("strace") is None:
        pytest.skip("what is read is seen by strace")
    log = host.folder / "strace"
    line = [
        "strace",
        "-f",
        "-y",
        "-qq",
        "-o",
        str(log),
        "-e",
        "trace=openat,getdents64",
        *host.command(*words),
    ]
    done = subprocess.run(
        line, env=host.env(), cwd="/", capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    calls = log.read_text().splitlines()

    def reads(user: User) -> tuple[int, Counter[str]]:
        folder = re.escape(f"<{host.account_dir(user)}>")
        listed = sum(bool(re.search(rf"getdents64\(\d+{folder}.*= 0$", call)) for call in calls)
        opened = (
            re.search(rf'openat\(\d+{folder}, "(state-[^"]*\.json)", O_RDONLY', call)
            for call in calls
        )
        return listed, Counter(match[1] for match in opened if match)

    return reads


def test_a_run_reads_each_folder_and_each_manifest_once(
    host: Host, pair: tuple[User, User]
) -> None:
    same, changed = pair
    before = {user: {path.name for path in host.account_dir(user).glob("*.json")} for user in pair}
    assert [len(names) for names in before.values()] == [3, 3]
    commit_row(changed)
    reads = reads_of(host, "run")
    assert len(list(host.account_dir(changed).glob("*.json"))) == 4
    assert len(list(host.account_dir(same).glob("*.json"))) == 3
    for user in pair:
        assert reads(user) == (1 + MEASURED, Counter(before[user]))


def test_a_run_that_prunes_looks_once_more_before_it_does(
    host: Host, pair: tuple[User, User]
) -> None:
    """What is about to be removed is looked at under the lock, however much was read before."""
    _, changed = pair
    commit_row(changed)
    for name in ("KEEP", "KEEP_DAILY", "KEEP_WEEKLY", "KEEP_MONTHLY", "KEEP_YEARLY"):
        host.environ[f"T3_BACKUP_{name}"] = "3" if name == "KEEP" else "0"
    names = {path.name for path in host.account_dir(changed).glob("*.json")}
    listed, opened = reads_of(host, "run")(changed)
    left = {path.name for path in host.account_dir(changed).glob("*.json")}
    assert len(names - left) == 1
    assert (listed, {name: opened[name] for name in names}) == (
        2 + MEASURED,
        dict.fromkeys(names, 2),
    )


def test_the_metrics_of_a_run_read_no_manifest_again(host: Host, pair: tuple[User, User]) -> None:
    pytest.importorskip("prometheus_client")
    (host.folder / "metrics").mkdir()
    host.environ["T3_BACKUP_TEXTFILE_DIR"] = str(host.folder / "metrics")
    before = {user: {path.name for path in host.account_dir(user).glob("*.json")} for user in pair}
    commit_row(pair[1])
    reads = reads_of(host, "run")
    text = (host.folder / "metrics" / "t3_backup.prom").read_text()
    for user in pair:
        assert reads(user)[1] == Counter(before[user])
        count = len(list(host.account_dir(user).glob("*.json")))
        assert f'snapshots{{account="{user.name}",verdict="verified"}} {count}.0' in text


def test_a_list_reads_each_folder_and_each_manifest_once(
    host: Host, pair: tuple[User, User]
) -> None:
    reads = reads_of(host, "list", "--json")
    for user in pair:
        assert reads(user) == (
            1,
            Counter(path.name for path in host.account_dir(user).glob("*.json")),
        )
