"""A host where all was well a moment ago, for whoever makes something wrong with it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from demo.users import User
from support.host import Host


@dataclass(frozen=True)
class Scene:
    """A host where all was well a moment ago: an account with two snapshots."""

    host: Host
    user: User
    stack: ExitStack  # what is to be undone at the end

    @property
    def folder(self) -> Path:
        """That of the account, in the store."""
        return self.host.account_dir(self.user)

    @property
    def newest(self) -> Path:
        """The data of the newest snapshot."""
        return self.host.snapshots(self.user)[-1]

    def set(self, **settings: str) -> None:
        """Change settings, for every command from now on."""
        self.host.environ |= {f"T3_BACKUP_{name}": value for name, value in settings.items()}

    def give(self, *paths: Path) -> None:
        """Make files the user's."""
        for path in paths:
            self.user.give(path)
