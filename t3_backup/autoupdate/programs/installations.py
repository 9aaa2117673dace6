"""Hold T3's versions on the disk, and each account's link to one of them.

    versions/0.0.24/bin/t3   and all that belongs to it, as npm lays it out
    versions/0.0.24.json     what is known of it
    alice/current            -> ../versions/0.0.24
    alice/held               while it is there, nothing of theirs starts
    global/current           the default: the program of every account that has no link of its own
    bin/t3                   what is called as `t3`: it runs the program of its caller

All of it is root's, and may be read by all. A link changes in one step.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

from t3_backup.autoupdate.programs.package_tree import remove_tree
from t3_backup.errors import Failure
from t3_backup.records import GROWING, decode_record, parse_object
from t3_backup.system import native
from t3_backup.system.atomic_file import opened, remove_path, replace_path
from t3_backup.t3 import databases, ledger, versions
from t3_backup.t3.files import DATABASE_NAME
from t3_backup.t3.ledger import Ledger, check_ledger
from t3_backup.t3.program import NAME

GLOBAL = "global"
PROGRAM = Path("bin") / NAME  # beneath the prefix of a version
_OURS = (GLOBAL, "versions", "bin", "journal.json", "history.json")  # beneath the root
_NEW = ".new-"

_LAUNCHER = """\
#!/bin/sh
# Runs the T3 of whoever calls it: a call of a newer one migrates the database, and an older \
server can't work with that.
root={root}
own="$root/$(id -un)"
if [ -e "$own/held" ]; then
    echo "t3: its version is being changed; try again in a minute" >&2
    exit 75
fi
[ -x "$own/current/bin/t3" ] || own="$root/global"
exec "$own/current/bin/t3" "$@"
"""


@dataclass(frozen=True)
class About:
    """What is known of an installed version."""

    JSON_KEYS = GROWING

    version: str
    origin: str  # where it came from
    level: int | None = None  # of the database that it makes where there is none
    ledger: Annotated[Ledger, check_ledger] | None = None  # of that; None: not known
    database: str | None = None  # its file name

    def why_unfit(self, file: str, level: int | None, found: Ledger | None) -> str:
        """Say why it can't work with a database; empty where it can, or too little is known."""
        if self.database == DATABASE_NAME and file == databases.SUCCESSOR:
            return f"T3 {self.version} works with {DATABASE_NAME} alone"
        if self.ledger is not None and found is not None:
            return ledger.why_unfit(found, self.ledger)
        if self.level is None or level is None or level <= self.level:
            return ""
        return f"it is of level {level}, above {self.level}"

    def completed(self) -> About:
        """Add what is known of releases that have been looked at."""
        known = versions.known_ledger(self.version)
        level = None if known is None else ledger.level_of(known)
        found = replace(self, database=self.database or versions.known_database(self.version))
        if self.ledger is not None or known is None or self.level not in (None, level):
            return found
        return replace(found, level=level, ledger=known)


@dataclass(frozen=True)
class Installations:
    """All that is installed beneath `root`."""

    root: Path

    @property
    def launcher(self) -> Path:
        """Name the file that is called as `t3`."""
        return self.root / PROGRAM

    def prefix(self, version: str) -> Path:
        """Say where a version is, or would be. Raises UsageError for what is no version."""
        versions.version_key(version)
        return self.root / "versions" / version

    def is_installed(self, version: str) -> bool:
        """Tell whether a version is there, whole."""
        return os.access(self.prefix(version) / PROGRAM, os.X_OK)

    def installed_versions(self) -> list[str]:
        """List the versions that are there, the oldest first."""
        with contextlib.suppress(FileNotFoundError):
            names = filter(versions.is_version, os.listdir(self.root / "versions"))
            return sorted(filter(self.is_installed, names), key=versions.version_key)
        return []

    def about(self, version: str) -> About:
        """Read what is known of a version."""
        with contextlib.suppress(OSError, ValueError):
            text = self._about(version).read_text(encoding="utf-8")
            return decode_record(About, parse_object(text)).completed()
        return About(version, "unknown").completed()

    def save_about(self, about: About) -> None:
        """Keep what is known of a version. Raises OSError."""
        text = json.dumps(asdict(about), indent=1) + "\n"
        replace_path(self._about(about.version), text.encode(), 0o644)

    def begin_version(self) -> Path:
        """Make an empty folder that can become a version, and remove older ones."""
        (self.root / "versions").mkdir(parents=True, exist_ok=True)
        self.remove_unfinished()
        folder = self.root / "versions" / f"{_NEW}{secrets.token_hex(4)}"
        folder.mkdir(mode=0o755)
        return folder

    def remove_unfinished(self) -> None:
        """Remove what an installation that died has left. Raises Failure and OSError."""
        for left in (self.root / "versions").glob(f"{_NEW}*"):
            remove_tree(left)

    @contextlib.contextmanager
    def new_version(self) -> Iterator[Path]:
        """Give an empty folder that can become a version; it goes if that fails."""
        folder = self.begin_version()
        try:
            yield folder
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def finish_version(self, folder: Path, about: About) -> None:
        """Name a folder of `begin_version` after the version in it. Raises Failure and OSError."""
        if not os.access(folder / PROGRAM, os.X_OK):
            raise Failure(f"{about.origin}: there is no program t3 in it")
        os.sync()  # a program that a power cut has emptied in part would look whole
        os.rename(folder, self.prefix(about.version))
        self.save_about(about)

    def remove_version(self, version: str) -> None:
        """Remove a version, which nobody must need. Raises Failure and OSError."""
        # what a kill leaves of it is no version any more
        left = self.root / "versions" / f"{_NEW}{secrets.token_hex(4)}"
        os.rename(self.prefix(version), left)
        self._about(version).unlink(missing_ok=True)
        remove_tree(left)

    def linked_version(self, user: str) -> str | None:
        """Read the version that an account's own link names; None without one. Raises Failure."""
        path = self._folder(user) / "current"
        try:
            target = os.readlink(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Failure(f"{path}: {error.strerror}: it must be a link to a version") from None
        name = target.removeprefix("../versions/")
        if not versions.is_version(name):
            raise Failure(f"{path} leads to {target}, which is no version")
        return name

    def version_of(self, user: str) -> str:
        """Read an account's version: that of its own link, or the default. Raises Failure."""
        found = self.linked_version(user) or self.linked_version(GLOBAL)
        if found is None:
            raise Failure("T3 is not taken over yet: t3-autoupdate adopt")
        return found

    def program_of(self, user: str) -> Path:
        """Name the program that an account runs. Raises Failure."""
        self.version_of(user)
        own = self.root / user / "current"
        return (own if own.is_symlink() else self.root / GLOBAL / "current") / PROGRAM

    def link_version(self, user: str, version: str) -> None:
        """Make `version` the program of an account, in one durable step.

        Raises Failure and OSError.
        """
        if not self.is_installed(version):
            raise Failure(f"T3 {version} is not installed in {self.root}")
        folder = self._folder(user)
        folder.mkdir(parents=True, exist_ok=True)
        replace_link(folder / "current", f"../versions/{version}")

    def linked_users(self) -> list[str]:
        """List the accounts that have a link of their own."""
        names = os.listdir(self.root) if self.root.is_dir() else []
        linked = {name for name in names if (self.root / name / "current").is_symlink()}
        return sorted(linked.difference(_OURS))

    def link_newcomers(self, users: Iterable[str]) -> None:
        """Link each account without a link to its version, so that it stays there.

        Raises Failure and OSError.
        """
        for user in users:
            if self.linked_version(user) is None:
                self.link_version(user, self.version_of(user))

    def lower_default(self) -> None:
        """Lower the default to the lowest version of an account. Raises Failure and OSError."""
        found = [self.version_of(user) for user in self.linked_users()]
        lowest = min(found, key=versions.version_key, default=None)
        if lowest is not None and self.linked_version(GLOBAL) != lowest:
            self.link_version(GLOBAL, lowest)

    def hold(self, user: str) -> None:
        """Let nothing of an account's start, after a boot neither; durable. Raises OSError."""
        self._folder(user).mkdir(exist_ok=True)  # an account without a link may be held, too
        replace_path(self._folder(user) / "held", b"", 0o644)

    def release(self, user: str) -> None:
        """End the hold of an account. Raises OSError."""
        with contextlib.suppress(FileNotFoundError):  # an account without a folder is not held
            remove_path(self._folder(user) / "held")

    def is_held(self, user: str) -> bool:
        """Tell whether an account is held."""
        return (self._folder(user) / "held").exists()

    def write_launcher(self) -> None:
        """Write the launcher. Raises OSError."""
        self.launcher.parent.mkdir(parents=True, exist_ok=True)
        replace_path(self.launcher, _LAUNCHER.format(root=self.root).encode(), 0o755)

    def require_folder(self, user: str) -> None:
        """Check that the folder of an account's name is not something of ours. Raises Failure."""
        if user in _OURS:
            why = "an account of this name can't have a program of its own"
            raise Failure(f"{user}: {why}: {self.root / user} is ours")

    def _folder(self, user: str) -> Path:
        if user != GLOBAL:
            self.require_folder(user)
        return self.root / user

    def _about(self, version: str) -> Path:
        return self.root / "versions" / f"{version}.json"


def replace_link(path: Path, target: str) -> None:
    """Make `path` a symlink to `target`, in one durable step, whatever it was. Raises OSError."""
    with opened(path.parent) as folder:
        new = f"{_NEW}{path.name}"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new, dir_fd=folder)
        os.symlink(target, new, dir_fd=folder)
        os.rename(new, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        native.sync_directory(folder, str(path.parent))
