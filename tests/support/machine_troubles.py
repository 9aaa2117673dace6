"""What can become of the machine around backups, by real means."""

from __future__ import annotations

import shutil

from demo.users import throwaway_user
from support.account_troubles import link
from support.scene import Scene
from support.users import user_name
from t3_backup.t3.login_report import Login, write_login
from t3_backup.text import format_time, utc_now


def add_stranger(scene: Scene) -> None:
    with scene.host.map.open("a") as lines:
        lines.write("nobody@example=t3-no-such-user\n")


def add_nonsense(scene: Scene) -> None:
    with scene.host.map.open("a") as lines:
        lines.write("no sense in it\n")


def add_newcomer(scene: Scene) -> None:
    """Another account, whose first backup fails."""
    name = user_name("new")
    user = scene.stack.enter_context(throwaway_user(name, scene.host.folder / "new"))
    user.database.symlink_to("/etc/passwd")
    scene.host.write_map(scene.user, user)


def leave_map(scene: Scene) -> None:
    scene.host.map.write_text("")


def fail_login(scene: Scene) -> None:
    logins = scene.host.folder / "logins"
    logins.mkdir()
    now = format_time(utc_now())
    write_login(logins, scene.user.name, Login(False, "0.0.25", now, now, "exchange: 401"))
    scene.set(LOGINS=str(logins))


def fail_hook(scene: Scene) -> None:
    """It is called for the link in the place of the database, and fails."""
    link(scene)
    folder = scene.host.folder / "hooks.d"
    folder.mkdir()
    (folder / "page").write_text("#!/bin/sh\necho no network; exit 3\n")
    (folder / "page").chmod(0o755)


def open_hook(scene: Scene) -> None:
    """A hook that everybody may change is passed over."""
    fail_hook(scene)
    (scene.host.folder / "hooks.d" / "page").chmod(0o777)


def lose_log(scene: Scene) -> None:
    scene.set(LOG=str(scene.host.folder / "not there" / "log"))


def lose_metrics(scene: Scene) -> None:
    folder = scene.host.folder / "textfiles"
    shutil.rmtree(folder)
    folder.symlink_to("/var/tmp")
