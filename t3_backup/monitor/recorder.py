"""Record what a run came to, in the ledger of attempts and as metrics.

Written while the store's lock is held. Whatever of it can't be written is said, and costs nobody
their backup, but the command its exit code 0.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path

from t3_backup.accounts import UserMap
from t3_backup.backup.result import AccountResult
from t3_backup.errors import Failure, explain
from t3_backup.monitor import attempts, collect, health, metrics
from t3_backup.monitor import status as monitor_status
from t3_backup.monitor.attempts import Ledger
from t3_backup.output.console import Console
from t3_backup.output.reporter import Reporter
from t3_backup.settings import DEFAULT_TEXTFILES, Settings
from t3_backup.store.store import Store
from t3_backup.text import INFO, utc_now


class Recorder:
    """Add to the ledger during a run; `broken` where it could not be written."""

    def __init__(self, store: Store, run: str, out: Reporter) -> None:
        self._store = store
        self._run = run
        self._out = out
        self._ledger = Ledger(store.fd)
        self._lock = threading.Lock()
        self.broken = False

    def begin(self, failures: Sequence[AccountResult]) -> None:
        """Say what is wrong with the ledger, and note who could not be backed up."""
        if self._ledger.problem:
            self._out.warn(f"{self._store.path}: {self._ledger.problem}")
        for result in failures:
            self._note_result(result)

    def finished(self, result: AccountResult) -> None:
        """Report what became of an account, and note it."""
        self._out.finished(result)
        self._note_result(result)

    def _note_result(self, result: AccountResult) -> None:
        with self._lock:
            try:
                self._ledger.add(result.user, attempts.make_attempt(result, self._run, utc_now()))
            except OSError as error:
                first, self.broken = not self.broken, True
                if first:
                    why = error.strerror or explain(error)
                    self._out.warn(f"{self._store.path / attempts.NAME} can't be written: {why}")


def metrics_folder(values: Settings, dest: str | None) -> Path | None:
    """Return where the metrics of a command go; None where it writes none.

    `dest` is its --dest: another store is nobody's to watch. The folder of the default alone may be
    missing without a word.
    """
    if os.geteuid() != 0 or dest is not None:
        return None
    absent = values.textfiles == DEFAULT_TEXTFILES and not os.path.lexists(DEFAULT_TEXTFILES)
    return None if absent else values.textfiles


def write_metrics(
    store: Store,
    values: Settings,
    dest: str | None,
    out: Reporter | Console,
    results: Sequence[AccountResult] = (),
) -> bool:
    """Write the metrics of the locked store; say so, and return False, if that fails.

    A command with this `dest` may have none to write. `results` are those of the run that holds it:
    what it knows of a folder is not read again.
    """
    folder = metrics_folder(values, dest)
    if folder is None:
        return True
    try:
        known = collect.users_to_watch(values.map)
    except Failure:  # a run for named accounts needs no map
        known = UserMap(tuple(store.users()), ())
    listings = {result.user: result.listing for result in results if result.listing is not None}
    overview = collect.collect_overview(store, known, listings=listings)
    status = monitor_status.status_of(overview, utc_now(), health.Thresholds())
    try:
        metrics.write(folder, metrics.render(status))
    except ImportError:
        remedy = "apt install python3-prometheus-client, or set T3_BACKUP_TEXTFILE_DIR=none"
        out.line(INFO, f"no metrics are written to {folder}: {remedy}")
    except OSError as error:
        out.warn(f"the metrics can't be written to {folder}: {error.strerror or explain(error)}")
        return False
    return True
