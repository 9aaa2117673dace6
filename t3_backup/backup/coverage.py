"""Hear what an account has, and tell what of it no snapshot will hold.

T3 has moved its data to another file before. So what its servers have open is what must be in a
snapshot; what is not fails the account by its name.
"""

from __future__ import annotations

from collections.abc import Sequence

from t3_backup.t3 import databases, open_findings
from t3_backup.t3.open_databases import find_held_names
from t3_backup.worker.protocol import Event
from t3_backup.worker.sources import Source
from t3_backup.worker.supervisor import Listener

BASE_DIRS = "T3_BACKUP_BASE_DIRS"
IGNORE = "T3_BACKUP_IGNORE"


class SourceListener:
    """A listener that takes in what is not copied, and hands all else on."""

    def __init__(
        self, user: str, ignored: Sequence[str], listen: Listener = lambda _: None
    ) -> None:
        """`ignored`: shell patterns of paths that are meant not to be backed up."""
        self._user, self._ignored, self._listen = user, ignored, listen
        self.looked = False  # whether it was heard what there is
        self.source: Source | None = None
        # names of databases that are not copied, or paths where T3 has them open elsewhere
        self.uncovered: tuple[str, ...] = ()
        self.unlisted: tuple[str, ...] = ()
        self.failures: tuple[str, ...] = ()  # why the account can't be well, with what to do
        self.warnings: tuple[str, ...] = ()  # what somebody should know
        # databases that nobody can write to, and why: a copy may have been made all the same
        self.obstacles: tuple[str, ...] = ()

    def __call__(self, event: Event) -> None:
        """Hear of `event`."""
        if not isinstance(event, Source):
            self._listen(event)
        elif event.opened is not None and not self.looked:
            self.looked, self.source = True, event
            self._take(event)

    def _take(self, source: Source) -> None:
        assert source.opened is not None
        inodes = {one.file: one.inode for one in source.databases}
        opened = open_findings.uncovered_open(
            source.opened.held, source.base_dir, inodes, self._ignored, source.device
        )
        self.uncovered = (*source.others, *dict.fromkeys(one.path for one in opened))
        self.unlisted = source.unlisted
        self.obstacles = tuple(
            databases.explain_obstacle(one.file, one.obstacle)
            for one in source.databases
            if one.obstacle
        )
        failures = [databases.explain(source.others)] if source.others else []
        if opened:
            failures.append(
                open_findings.explain_uncovered(
                    self._user, opened, source.base_dir, BASE_DIRS, IGNORE
                )
            )
        if problems := source.opened.problems:
            failures.append(f"what T3 has open can't be told: {'; '.join(problems)}")
        self.failures = tuple(failures)
        doubles = open_findings.double_servers(source.opened.servers, source.opened.held)
        held = find_held_names(source.opened.held, source.base_dir, inodes, source.device)
        stale = databases.stale_successor(next(iter(held), None), inodes) if len(held) == 1 else ""
        self.warnings = (
            *([databases.explain_stale(self._user, stale, "its T3 server")] if stale else []),
            *map(open_findings.explain_double, doubles),
            *map(open_findings.explain_stranger, source.opened.strangers),
        )
