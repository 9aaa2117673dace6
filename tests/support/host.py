"""The command on a host of its own: a store, a user map, and what a call of it printed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from demo.users import User
from support import sandbox
from support.paths import ROOT


@dataclass
class Answer:
    """What a call of the command printed, and its exit code."""

    code: int
    out: str
    err: str

    @classmethod
    def of(
        cls,
        line: Sequence[str | Path],
        env: Mapping[str, str],
        *,
        cwd: Path = ROOT,
        timeout: float = 120,
        **options: Any,
    ) -> Self:
        """Run a command to its end, with nothing to read; further `options` of `subprocess.run`."""
        done = subprocess.run(
            line,
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            **options,
        )
        return cls(done.returncode, done.stdout, done.stderr)

    @property
    def document(self) -> dict[str, Any]:
        """The JSON document on standard output."""
        return json.loads(self.out)

    def account(self, user: str) -> dict[str, Any]:
        """The entry of one account in the document."""
        return next(entry for entry in self.document["accounts"] if entry["user"] == user)


@dataclass
class Host:
    """What the command is called on: a folder that every user may enter, with a store, a user map,
    and users who have T3 databases."""

    folder: Path
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def store(self) -> Path:
        return (sandbox.STORE / self.folder.name if sandbox.ACTIVE else self.folder) / "store"

    @property
    def map(self) -> Path:
        return self.folder / "map"

    def account_dir(self, user: User) -> Path:
        return self.store / user.name

    def snapshots(self, user: User) -> list[Path]:
        """The sealed data files of a user, oldest first by name."""
        return sorted(self.account_dir(user).glob("state-*.sqlite"), key=_age)

    def write_map(self, *users: User | str) -> None:
        names = [user if isinstance(user, str) else user.name for user in users]
        self.map.write_text("".join(f"{name}@example={name}\n" for name in names))

    def command(self, *words: str, **more: str) -> list[str]:
        """The command line; where things are, `env` says."""
        if sandbox.ACTIVE:
            return sandbox.command(
                sandbox.new_name(), self.settings(**more), "/usr/bin/t3-backup-state", *words
            )
        return [sys.executable, "-m", "t3_backup", *words]

    def env(self, **more: str) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(ROOT),
        } | self.settings(**more)

    def settings(self, **more: str) -> dict[str, str]:
        base = {
            "T3_BACKUP_DEST": str(self.store),
            "T3_BACKUP_MAP": str(self.map),
            "T3_BACKUP_RESERVE": "1M",
        }
        base["T3_BACKUP_COMPACT"] = "off"  # each snapshot is a file of its own, to be looked into
        base["T3_BACKUP_LOG"] = str(self.folder / "log")
        base["T3_BACKUP_STATE"] = str(self.folder / "state")
        base["T3_BACKUP_TEXTFILE_DIR"] = "none"  # the machine's may be there
        base["T3_BACKUP_HOOKS"] = str(self.folder / "hooks.d")
        return base | self.environ | more

    def t3(self, *words: str, timeout: float = 120, **more: str) -> Answer:
        """Call `t3-backup-state` as a person does; further settings as T3_BACKUP_... keywords."""
        return Answer.of(self.command(*words, **more), self.env(**more), timeout=timeout)

    def start(self, *words: str, **more: str) -> subprocess.Popen[str]:
        """The same, left running."""
        if sandbox.ACTIVE:
            line = ["/usr/bin/t3-backup-state", *words]
            return sandbox.Process(
                self.settings(**more), line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )  # type: ignore[return-value]
        return subprocess.Popen(
            self.command(*words),
            env=self.env(**more),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


@contextlib.contextmanager
def started(host: Host, *words: str, **more: str) -> Iterator[subprocess.Popen[str]]:
    """The command, left running; ended by force, and its workers with it, where it is still there
    when the block is left."""
    with host.start(*words, **more) as process:
        try:
            yield process
        finally:
            process.kill()


def succeeded(answer: Answer) -> Answer:
    """The answer, which must be one of success."""
    assert answer.code == 0, answer.out + answer.err
    return answer


def list_snapshots(host: Host, user: User) -> list[dict[str, Any]]:
    """The snapshots of an account as the command lists them, newest first."""
    return host.t3("list", user.name, "--json").account(user.name)["snapshots"]


def _age(path: Path) -> tuple[str, int, str]:
    """By its name; of those of one second the first has no number."""
    [(time, number), *_] = re.findall(r"(state-[^.-]*)(?:\.(\d+))?", path.name)
    return time, int(number or 1), path.name
