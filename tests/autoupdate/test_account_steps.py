"""The data of before a bump, put back by the command: what that keeps aside is told, and no reason
to leave a server down."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.host import Host
from support.users import needs_root

from demo.users import User
from t3_backup.autoupdate import settings, snapshots
from t3_backup.autoupdate.account_steps import LiveSteps
from t3_backup.autoupdate.installations import Installations
from t3_backup.autoupdate.snapshots import Snapshots
from t3_backup.t3 import servers

pytestmark = needs_root


def test_what_no_snapshot_gives_back_lies_aside_and_is_told(
    host: Host, make_user: Callable[..., User], small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 38, of a rollback, and of the way back from a version that failed."""
    user = make_user("back-ann", small)
    host.write_map(user)
    attachments = user.database.parent / "attachments"
    attachments.mkdir()
    (attachments / "a.png").write_text("a picture")
    for path in (attachments, attachments / "a.png"):
        user.give(path)
    monkeypatch.setattr(snapshots, "COMMAND", (sys.executable, "-m", "t3_backup.cli.main"))
    for name, value in host.env().items():
        monkeypatch.setenv(name, value)
    told: list[str] = []
    knobs = settings.load({}, host.folder / "no-defaults")
    server = servers.find_server(user.name, knobs.serve, lambda _: None)
    steps = LiveSteps(
        server, Installations(host.folder / "root"), Snapshots(host.store), knobs, told.append
    )
    name = steps.keep_snapshot("prebump-0.0.25", proven=True)
    (attachments / "link.png").symlink_to("a.png")
    steps.restore_snapshot(name, kept=None)
    [aside] = user.database.parent.glob("*.replaced-*")
    assert (aside / "old/attachments/link.png").is_symlink()
    assert (
        told[-1]
        == f"{user.name}: the part of the old state that no snapshot holds was kept at {aside}/old"
    )
    assert (
        f"{user.name}: not packed: attachments/link.png: a symlink, which is not followed" in told
    )
    assert not (attachments / "link.png").is_symlink()
