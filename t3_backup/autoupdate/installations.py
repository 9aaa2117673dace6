"""T3 on the disk: each version in a prefix of its own, and a link for each account to the one that is its program.

    versions/0.0.24/bin/t3   and all that belongs to it, as npm lays it out
    versions/0.0.24.json     what is known of it
    alice/current            -> ../versions/0.0.24
    alice/held               while it is there, nothing of hers starts
    global/current           the program of whoever has no link of his own
    bin/t3                   what is called as `t3`: it runs the program of its caller

All of it is root's, and may be read by all. A link changes in one step.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import stat
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

from t3_backup.errors import Failure
from t3_backup.system import native
from t3_backup.system.atomic_file import opened, remove_path, replace_path
from t3_backup.t3 import versions

GLOBAL = "global"
_OURS = (GLOBAL, "versions", "bin")
_NEW = ".new-"
_MOST_BYTES = 4 << 30  # of a version; one of T3 has some hundred MiB
_ENTRY_BYTES = 4096  # that any file or folder takes besides
_DEEPEST = 100  # folders

_LAUNCHER = """\
#!/bin/sh
# Runs the T3 of whoever calls it: any call of a newer one migrates his database, which an older server can't work with.
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

    version: str
    origin: str  # where it came from
    level: int | None = None  # of a database that it has made


@dataclass(frozen=True)
class Programs:
    """All that is installed beneath `root`."""

    root: Path

    @property
    def launcher(self) -> Path:
        """What is called as `t3`."""
        return self.root / "bin" / "t3"

    def prefix(self, version: str) -> Path:
        """Where a version is, or would be. Raises UsageError where it is none."""
        versions.version_key(version)
        return self.root / "versions" / version

    def is_installed(self, version: str) -> bool:
        """Whether it is there, whole."""
        return os.access(self.prefix(version) / "bin" / "t3", os.X_OK)

    def installed(self) -> list[str]:
        """All that are, the oldest first."""
        with contextlib.suppress(FileNotFoundError):
            names = [name for name in os.listdir(self.root / "versions") if versions.is_version(name)]
            return sorted(filter(self.is_installed, names), key=versions.version_key)
        return []

    def about(self, version: str) -> About:
        """What is known of it."""
        with contextlib.suppress(OSError, ValueError, TypeError):
            value = json.loads((self.root / "versions" / f"{version}.json").read_text(encoding="utf-8"))
            level = value["level"]
            return About(version, str(value["origin"]), level if level is None else int(level))
        return About(version, "unknown", versions.KNOWN_LEVELS.get(version))

    def note(self, about: About) -> None:
        """Keep what is known of it. Raises OSError."""
        path = self.root / "versions" / f"{about.version}.json"
        replace_path(path, (json.dumps(asdict(about), indent=1) + "\n").encode(), 0o644)

    def begin(self) -> Path:
        """A new, empty folder beside the versions, which can become one of them; what others have left of theirs goes."""
        (self.root / "versions").mkdir(parents=True, exist_ok=True)
        for left in (self.root / "versions").glob(f"{_NEW}*"):
            shutil.rmtree(left)
        folder = self.root / "versions" / f"{_NEW}{secrets.token_hex(4)}"
        folder.mkdir(mode=0o755)
        return folder

    def settle(self, folder: Path, about: About) -> None:
        """Give a folder of `begin`, with a whole version in it, the name of that. Raises Failure and OSError."""
        if not os.access(folder / "bin" / "t3", os.X_OK):
            raise Failure(f"{about.origin}: there is no program t3 in it")
        os.sync()  # a program that a power cut has emptied in part would look whole
        os.rename(folder, self.prefix(about.version))
        self.note(about)

    def program_of(self, user: str) -> str | None:
        """The version that an account's link names; None where it has none. Raises Failure where the link names no version."""
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

    def link(self, user: str, version: str) -> None:
        """Let an account's program be `version`, in one step; durable when this returns. Raises Failure and OSError."""
        if not self.is_installed(version):
            raise Failure(f"T3 {version} is not installed in {self.root}")
        folder = self._folder(user)
        folder.mkdir(parents=True, exist_ok=True)
        replace_link(folder / "current", f"../versions/{version}")

    def linked(self) -> list[str]:
        """The accounts that have a link of their own."""
        names = os.listdir(self.root) if self.root.is_dir() else []
        return sorted(name for name in names if name not in _OURS and (self.root / name / "current").is_symlink())

    def hold(self, user: str) -> None:
        """From now on nothing of an account's starts, after a boot neither; durable when this returns. Raises OSError."""
        self._folder(user).mkdir(exist_ok=True)  # who has no link yet may be held, too
        with opened(self._folder(user)) as folder:
            os.close(os.open("held", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=folder))
            native.sync_directory(folder, str(self._folder(user)))

    def release(self, user: str) -> None:
        """The opposite of `hold`. Raises OSError."""
        with contextlib.suppress(FileNotFoundError):  # who has no folder is not held
            remove_path(self._folder(user) / "held")

    def is_held(self, user: str) -> bool:
        """Whether it is held."""
        return (self._folder(user) / "held").exists()

    def write_launcher(self) -> None:
        """Have `bin/t3`, as it is to be. Raises OSError."""
        (self.root / "bin").mkdir(parents=True, exist_ok=True)
        replace_path(self.launcher, _LAUNCHER.format(root=self.root).encode(), 0o755)

    def _folder(self, user: str) -> Path:
        if user != GLOBAL and user in _OURS:
            raise Failure(f"{user}: an account of this name can't have a program of its own: {self.root / user} is ours")
        return self.root / user


def replace_link(path: Path, target: str) -> None:
    """Let `path` be a symlink to `target`, in one step, whatever it was before; durable when this returns. Raises OSError."""
    with opened(path.parent) as folder:
        new = f"{_NEW}{path.name}"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new, dir_fd=folder)
        os.symlink(target, new, dir_fd=folder)
        os.rename(new, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        native.sync_directory(folder, str(path.parent))


def copy_package(source: Path, target: Path, allowed: Sequence[int]) -> None:
    """Copy the tree of a program to `target`, as root's; what is set-id, special, too much, or leads out of it is refused.

    `allowed` are the uids that may own what is copied. Raises Failure and OSError.
    """
    _must_be_plain(source, source, allowed)
    left = _MOST_BYTES
    for folder, folders, files in os.walk(source, onerror=_raise):
        if len(Path(folder).parts) - len(source.parts) > _DEEPEST:
            raise Failure(f"{source} has folders in folders more than {_DEEPEST} deep")
        for name in (*folders, *files):
            left -= _must_be_plain(Path(folder, name), source, allowed)
            if left < 0:  # a hole counts: a copy has none
                raise Failure(f"{source} is greater than {_MOST_BYTES >> 30} GiB")
    shutil.copytree(source, target, symlinks=True)


def _raise(error: OSError) -> NoReturn:
    raise error


def remove_tree(path: Path) -> None:
    """Remove a folder with all that somebody else has put into it. Raises Failure and OSError."""
    # shutil.rmtree() ends where folders are deeper in each other than Python calls itself.
    done = subprocess.run(
        ["/usr/bin/rm", "-rf", "--", str(path)], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise Failure(f"{path} can't be removed: {(done.stderr.strip().splitlines() or ['no reason is given'])[0]}")


def _must_be_plain(path: Path, source: Path, allowed: Sequence[int]) -> int:
    """How many bytes it takes, about. Raises Failure."""
    status = path.lstat()
    if status.st_uid not in allowed:
        raise Failure(f"{path} belongs to uid {status.st_uid}: what everybody runs must be root's")
    if stat.S_ISLNK(status.st_mode):
        target = Path(os.readlink(path))
        if target.is_absolute() or not (path.parent / target).resolve().is_relative_to(source.resolve()):
            raise Failure(f"{path} leads out of {source}")
    elif not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise Failure(f"{path} is neither a file nor a folder")
    elif status.st_mode & (stat.S_ISUID | stat.S_ISGID) and stat.S_ISREG(status.st_mode):
        raise Failure(f"{path} runs as another user (set-id)")
    elif status.st_mode & 0o022:
        raise Failure(f"{path} can be written to by others than its owner (mode {stat.S_IMODE(status.st_mode):04o})")
    return status.st_size + _ENTRY_BYTES
