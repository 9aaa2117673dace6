"""What is pinned outlives the runs, by real runs of a real user."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from support.databases import commit_row
from support.host import Host
from support.paths import DATA
from support.users import needs_root

from demo.users import User

pytestmark = needs_root


@pytest.fixture
def pia(make_user: Callable[..., User], host: Host) -> User:
    user = make_user("s-pins", DATA / "state-0.0.24.sqlite")
    host.write_map(user)
    return user


def names(host: Host, user: User) -> list[str]:
    """Newest first."""
    return [
        one["name"] for one in host.t3("list", user.name, "--json").account(user.name)["snapshots"]
    ]


def test_a_pinned_one_outlives_the_runs_until_it_is_unpinned(host: Host, pia: User) -> None:
    """Row 13: with the smallest KEEP there is."""
    assert host.t3().code == 0
    [pinned] = names(host, pia)
    assert host.t3("pin", pia.name, pinned).code == 0
    for _ in range(3):
        commit_row(pia)
        assert host.t3("run", "--keep", "1").code == 0
    assert len(names(host, pia)) == 2
    assert names(host, pia)[1] == pinned
    assert host.t3("verify", pia.name).code == 0
    assert host.t3("unpin", pia.name, pinned).code == 0
    answer = host.t3("run", "--keep", "1")
    assert f"pruned {pia.name}: {pinned}\n" in answer.out
    assert pinned not in names(host, pia)


def test_a_pinned_one_can_be_put_back_and_stays_pinned(host: Host, pia: User) -> None:
    assert host.t3().code == 0
    [pinned] = names(host, pia)
    assert host.t3("pin", pia.name, "latest").code == 0
    answer = host.t3("restore", pia.name, "--at", pinned, "--yes")
    assert answer.code == 0, answer
    [again] = [
        one for one in host.t3("list", "--json").account(pia.name)["snapshots"] if one["pinned_at"]
    ]
    assert again["name"] == pinned


def test_periods_of_the_settings_are_those_of_the_run(host: Host, pia: User) -> None:
    """Row 14: from the file or the environment to what goes."""
    for _ in range(2):
        assert host.t3().code == 0
    for label in ("one-1", "one-2"):
        assert host.t3("run", "--label", label).code == 0
    answer = host.t3("run", "--keep", "1", T3_BACKUP_KEEP_YEARLY="2", T3_BACKUP_KEEP_LABELLED="1")
    assert answer.code == 0, answer
    assert [one["label"] for one in host.t3("list", "--json").account(pia.name)["snapshots"]] == [
        None,
        "one-2",
    ]
    answer = host.t3("run", T3_BACKUP_KEEP_WEEKLY="some")
    assert (answer.code, answer.out) == (2, "")
    assert "T3_BACKUP_KEEP_WEEKLY: 'some' (environment)" in answer.err


def test_pins_are_written_to_the_metrics_as_accept_does(host: Host, pia: User) -> None:
    """What watches over the store is as fresh as the last command that changed it."""
    pytest.importorskip("prometheus_client")
    folder = host.folder / "metrics"
    folder.mkdir()
    assert host.t3().code == 0
    assert host.t3("pin", pia.name, "latest", T3_BACKUP_TEXTFILE_DIR=str(folder)).code == 0
    assert os.listdir(folder) == ["t3_backup.prom"]
