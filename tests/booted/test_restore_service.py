"""However a restore ends, the server runs again or somebody is told; what an admin wants of a unit
stays as they want it.

The units are systemd's own, with servers that write all the time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.booted.machine import Machine, Result, boot
from support.booted.users import (
    SERVICE,
    STORE,
    add_user,
    database_path,
    install_server_units,
    server_unit,
)

USER = "race-serve"
UNIT = server_unit(USER)
INTENT = f"{STORE}/{USER}+restore.json"
RUNS = ("active", "loaded")
LITTLE = {"T3_BACKUP_RESERVE": "1M"}  # of free space is enough
DROP_IN = f"/run/systemd/system/{UNIT}.d/test.conf"


@pytest.fixture(scope="module")
def there(suite: str, deb: Path, small: Path) -> Iterator[Machine]:
    with boot(suite, packages=[deb]) as machine:
        add_user(machine, USER, small)
        install_server_units(machine)
        machine.run("systemctl", "start", UNIT)
        machine.run("t3-backup-state", "run")
        yield machine


@pytest.fixture
def served(there: Machine) -> Iterator[Machine]:
    """With a server that runs; whatever the test left of a restore, a mask or a failure is put
    right."""
    yield there
    there.sh(
        'rm -rf "$1" "$2"; systemctl daemon-reload; systemctl unmask --runtime "$3"',
        str(Path(DROP_IN).parent),
        INTENT,
        UNIT,
    )
    there.sh('systemctl reset-failed; systemctl start "$1"', UNIT)


def state(machine: Machine) -> tuple[str, str]:
    """Whether it runs, and whether it may."""
    shown = machine.show(UNIT, "ActiveState", "LoadState")
    return shown["ActiveState"], shown["LoadState"]


def restore(machine: Machine, *words: str, env: Mapping[str, str] | None = None) -> Result:
    return machine.run("t3-backup-state", "restore", USER, "--yes", *words, env=env, check=False)


def drop_in(machine: Machine, text: str) -> None:
    """Have the unit say more."""
    machine.write(DROP_IN, text)
    machine.run("systemctl", "daemon-reload")


def has_intent(machine: Machine) -> bool:
    return machine.run("test", "-e", INTENT, check=False).code == 0


def test_a_server_that_can_not_be_started_alarms_until_it_is(served: Machine) -> None:
    """The intent stays: each command tries again, and the nightly run fails as long as that
    does."""
    served.run("touch", "/run/broken")
    drop_in(served, "[Service]\nExecStartPre=/usr/bin/test ! -e /run/broken\n")
    answer = restore(served)
    assert answer.code == 1, answer
    assert "the server is down; the next command tries it again" in answer.text
    assert f"systemctl start {UNIT}" in answer.text
    assert has_intent(served)
    assert state(served)[0] != "active"
    assert served.run("systemctl", "start", SERVICE, check=False).code != 0
    assert has_intent(served)
    served.run("rm", "/run/broken")
    served.start_unit(SERVICE)
    # A server that is just being started may find its database locked for a moment by the copy of
    # it; its unit tries again.
    served.until(lambda: state(served) == RUNS, "server")
    assert not has_intent(served)


def test_a_mask_of_an_admin_stays(served: Machine) -> None:
    served.sh('systemctl stop "$1"; systemctl mask --runtime "$1"', UNIT)
    answer = restore(served)
    assert answer.code == 0, answer
    assert state(served)[1] == "masked"
    assert state(served)[0] != "active"


def test_a_server_that_its_database_brought_down_is_started_with_what_was_restored(
    served: Machine,
) -> None:
    """It was restarted until systemd gave up: without reset-failed it would not be started again
    for a while."""
    served.sh('systemctl stop "$1"; head -c 50000 /dev/urandom >"$2"', UNIT, database_path(USER))
    drop_in(served, "[Unit]\nStartLimitIntervalSec=600\nStartLimitBurst=3\n")
    served.sh('systemctl reset-failed; systemctl start "$1"', UNIT)
    served.until(lambda: state(served)[0] == "failed", "start limit")
    answer = restore(served, "--json")
    assert answer.code == 0, answer
    assert answer.document["server"] == "started"
    assert state(served) == RUNS
    served.sh("rm -f ~race-serve/.t3/userdata/state.sqlite.replaced-*")


def test_one_that_was_stopped_is_not_started(served: Machine) -> None:
    """T3's server ends with 130 when it is asked to, which systemd takes for a failure, as it does
    a crash."""
    served.run("systemctl", "stop", UNIT)
    assert state(served) == ("failed", "loaded")
    answer = restore(served, "--json")
    assert answer.code == 0, answer
    assert answer.document["server"] == "stopped"
    assert state(served)[0] != "active"
    assert state(served)[1] == "loaded"


def test_a_store_that_is_full_after_the_exchange_keeps_no_server_down(served: Machine) -> None:
    """The mark in the manifest can't be written then: it is said."""
    with small_store(served):
        served.run("t3-backup-state", "run", env=LITTLE)
        # The last moment before the mark is that at which the server is started.
        fill = f"head -c 1G /dev/zero >{STORE}/filler"
        drop_in(served, f"[Service]\nExecStartPre=+-/bin/sh -c '{fill} || :'\n")
        answer = restore(served, "--json", env=LITTLE)
        assert answer.code == 0, answer
        assert answer.document["server"] == "started"
        assert any(
            "could not be marked as put back" in warning for warning in answer.document["warnings"]
        )
        assert state(served) == RUNS
        assert not has_intent(served)


@contextmanager
def small_store(machine: Machine) -> Iterator[None]:
    """Another one, on a disk of its own."""
    known = "/var/lib/t3-backup/stores.json"
    machine.sh('mv "$2" /root; mount -t tmpfs -o size=64M,mode=700 none "$1"', STORE, known)
    try:
        yield
    finally:
        machine.sh('umount "$1"; mv /root/stores.json "$2"', STORE, known)


def test_a_terminal_that_goes_away_leaves_no_server_down(served: Machine) -> None:
    """The connection breaks when the server has been stopped."""
    script = """
    t3-backup-state restore "$2" --yes >/dev/null 2>&1 &
    until [ "$(systemctl show --property=LoadState --value "$1")" = masked ]; do :; done
    kill -HUP $!
    wait $! || :
    """
    served.sh(script, UNIT, USER)
    assert state(served) == RUNS
    assert not has_intent(served)


def test_a_server_that_ends_well_when_it_is_stopped_is_started_again(served: Machine) -> None:
    """systemd forgets such a unit at once, and has nothing to reset then."""
    drop_in(served, "[Service]\nSuccessExitStatus=130\n")
    answer = restore(served)
    assert answer.code == 0, answer
    assert state(served) == RUNS
    assert not has_intent(served)
