"""What the stories share: the package, and machines on which it is or is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support import packages
from support.booted.debian_trees import SUITES
from support.booted.machine import Machine, boot
from support.sampling import is_soak, sample

HERE = Path(__file__).parent
# They are about a version bump, beside test_bump.py, which is always run.
TAKE_MINUTES = [
    HERE / f"test_{name}.py"
    for name in (
        *("bump_deferred", "bump_interrupted", "bump_refused", "bump_rollback", "bump_runbook"),
        *("bump_sixty", "bump_v2", "real_t3"),
    )
]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what would be the same on another release, and two thirds of the files that take
    minutes, but for a soak."""
    chosen = sample(TAKE_MINUTES, 3, "booted files that take minutes")

    def is_left_out(item: pytest.Item) -> bool:
        on = getattr(item, "callspec", None) and item.callspec.params.get("suite")  # type: ignore[attr-defined]
        of_release = on in SUITES[1:] and not item.get_closest_marker("releases")
        return of_release or (item.path in TAKE_MINUTES and item.path not in chosen)

    if not is_soak():
        left_out = [item for item in items if is_left_out(item)]
        items[:] = [item for item in items if not is_left_out(item)]
        config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session", params=SUITES)
def suite(request: pytest.FixtureRequest) -> str:
    """Each release of Debian that the package is for."""
    return str(request.param)


@pytest.fixture(scope="session")
def deb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of the backup: that of T3_TEST_DEB, or one built now."""
    return packages.prebuilt("T3_TEST_DEB") or packages.build_package(
        packages.copy_checkout(tmp_path_factory.mktemp("deb") / "t3-backup")
    )


@pytest.fixture(scope="session")
def autoupdate_deb(deb: Path) -> Path:
    """The package of the bump, made in the same build."""
    return packages.autoupdate_package(deb)


@pytest.fixture(scope="session")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a higher version: that of T3_TEST_NEWER_DEB, or one built now."""
    folder = tmp_path_factory.mktemp("newer") / "t3-backup"
    return packages.prebuilt("T3_TEST_NEWER_DEB") or packages.build_newer(
        packages.copy_checkout(folder)
    )


@pytest.fixture
def installed(suite: str, deb: Path) -> Iterator[Machine]:
    """A machine with the package."""
    with boot(suite, packages=[deb]) as booted:
        yield booted
