"""A ledger of all that users wrote, held against every place where it may be by now.

A message counts as written once the server has said so. In the end each must be in the live
database, in a snapshot, or in a file that was put aside and that some command has told of.
"""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from support import programs
from support.booted.machine import Machine
from support.booted.t3_deployment import list_account_snapshots
from support.booted.t3_servers import PORTS


@dataclass
class WriteLedger:
    """What each user has written, and when: the name of the moment is in the text."""

    machine: Machine
    cookies: dict[str, str]  # of their browsers; whoever logs in again has a new one
    written: dict[str, list[str]] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)  # what the commands have printed

    @contextmanager
    def all_write(self, moment: str) -> Iterator[None]:
        """While everybody writes, as fast as their server takes it."""
        with ExitStack() as stack:
            writers = {
                user: stack.enter_context(self._writer(user, f"{user}-{moment}"))
                for user in self.cookies
            }
            try:
                yield
            finally:
                for user, process in writers.items():
                    said, _ = process.communicate(timeout=30)  # which ends its input
                    self.written.setdefault(user, []).extend(said.split())

    @contextmanager
    def _writer(self, user: str, prefix: str) -> Iterator[subprocess.Popen[str]]:
        line = programs.booted_line("keep_writing.py", str(PORTS[user]), self.cookies[user], prefix)
        with self.machine.start(*line) as process:
            try:
                yield process
            finally:
                process.kill()

    def since(self, user: str, moment: str) -> list[str]:
        """What a user wrote in a moment."""
        return [text for text in self.written[user] if text.startswith(f"{user}-{moment}-")]

    def read_files(self, user: str) -> dict[str, Any]:
        """What is in each database of a user's folder, by its name."""
        line = programs.booted_line("list_texts.py", f"/home/{user}/.t3/userdata")
        return self.machine.run(*line, user=user).document

    def assert_nothing_is_lost(self, live: str) -> Counter[str]:
        """Find each message; how many were found where. `live`: the file of the live databases."""
        found: Counter[str] = Counter()
        for user, texts in self.written.items():
            missing = set(texts)
            for place, said in self._places(user, live):
                found[place.partition(" ")[0]] += len(missing & said)
                missing -= said
                if not missing:
                    break
            assert not missing, f"{user}: {sorted(missing)} are lost"
        return found

    def _places(self, user: str, live: str) -> Iterator[tuple[str, set[str]]]:
        """What there is in each place, one after another: it takes a moment for each."""
        files = self.read_files(user)
        yield "live", set(files.pop(live)["texts"])
        for name, content in files.items():
            if any(name in said for said in self.told):
                yield f"aside {name}", set(content["texts"])
        # those that a command has taken for this first
        snapshots = list_account_snapshots(self.machine, user)
        for snapshot in sorted(snapshots, key=lambda one: not one["label"]):
            for name, content in self._export(user, snapshot).items():
                yield f"snapshot {snapshot['name']}/{name}", set(content["texts"])

    def _export(self, user: str, snapshot: dict[str, Any]) -> dict[str, Any]:
        folder = f"/var/tmp/exports/{user}-{snapshot['name']}"
        self.machine.run("mkdir", "-p", folder)
        for one in snapshot["databases"]:
            file = one["file"]
            words = [user, "--at", snapshot["name"], "--database", file, "--to", f"{folder}/{file}"]
            self.machine.run("t3-backup-state", "restore", *words)
        found: dict[str, Any] = self.machine.run(
            *programs.booted_line("list_texts.py", folder)
        ).document
        return found
