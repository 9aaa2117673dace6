"""Follow up a failed run, or weekly proof: call the hooks with its document.

By hand the command calls them itself. A service can't (it has no network): it leaves the document
in its runtime folder, for the unit that systemd starts then. That unit also speaks for a run that
could say nothing any more: systemd tells how it ended.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import t3_backup
from t3_backup.backup.result import AccountResult
from t3_backup.errors import Failure, explain
from t3_backup.monitor import hooks
from t3_backup.output import documents, logfile
from t3_backup.output.console import Console
from t3_backup.settings import DEFAULT_HOOKS, Settings
from t3_backup.system import signals

_LEFT = "failed-run.json"  # in the service's runtime folder


@dataclass(frozen=True)
class RunEnd:
    """How a run ended, and what it had done; the keys of the document."""

    run: str  # its id, as in the log
    result: str  # as systemd calls it: exit-code, timeout, oom-kill ...; test where there was none
    exit: int | None
    signal: str | None  # by which it ended, without SIG; neither where nothing could be started
    error: str | None  # what ended the whole of it
    version: str
    accounts: Sequence[Mapping[str, Any]]  # as in `run --json`; none where it could not say
    unit: str | None = None  # of systemd; None where it was run by hand

    def document(self) -> bytes:
        """Return what a hook has on its standard input."""
        return json.dumps(asdict(self), indent=1).encode() + b"\n"

    def variables(self) -> dict[str, str]:
        """Return what a hook has in its environment."""
        bad = [str(one["user"]) for one in self.accounts if documents.needs_attention(one)]
        return {
            "T3_BACKUP_RUN": self.run,
            "T3_BACKUP_RESULT": self.result,
            "T3_BACKUP_EXIT": str(self.exit) if self.exit is not None else self.signal or "unknown",
            "T3_BACKUP_NOT_WELL": " ".join(bad),
            "T3_BACKUP_UNIT": self.unit or "",
        }


def describe_own_end(run: str, code: int, error: str, results: Sequence[AccountResult]) -> RunEnd:
    """Describe the end of a run which knows itself what it came to."""
    accounts = documents.run_document(results)["accounts"]
    return RunEnd(run, "exit-code", code, None, error or None, t3_backup.__version__, accounts)


def follow_failure(ending: RunEnd, values: Settings, out: Console) -> None:
    """Call the hooks after a failed run, or leave its document for the unit that does."""
    folder = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    if logfile.is_service() and folder:
        try:
            _leave_document(Path(folder), ending)
        except OSError as error:
            out.warn(f"the result of the run can't be saved for the hooks: {explain(error)}")
    elif ending.exit == Failure.exit_code:  # 2: nothing was begun; 75: it is to be tried again
        call_hooks_for(ending, values, out)


def describe_end_by_systemd(environ: Mapping[str, str], left: Mapping[str, Any] | None) -> RunEnd:
    """Describe the end of the run of which systemd speaks.

    It does so by MONITOR_... (systemd.exec(5)); `left` counts where it is of that run. Where
    systemd speaks of none, somebody tries their hooks: then they are called as for any failure.
    """
    if "MONITOR_SERVICE_RESULT" not in environ:
        return RunEnd("", "test", Failure.exit_code, None, None, t3_backup.__version__, [])
    run, status = environ.get("MONITOR_INVOCATION_ID", ""), environ.get("MONITOR_EXIT_STATUS", "")
    same = left if left is not None and left["run"] == run else {}
    exited = status.isdecimal()
    return RunEnd(
        run=run,
        result=environ["MONITOR_SERVICE_RESULT"],
        exit=int(status) if exited else None,
        signal=None if exited else status or None,
        error=same.get("error"),
        version=t3_backup.__version__,
        accounts=same.get("accounts", []),
        unit=environ.get("MONITOR_UNIT"),
    )


def call_hooks_for(ending: RunEnd, values: Settings, out: Console) -> bool:
    """Call the hooks (the default ones for root alone); tell whether all ended well."""
    if values.hooks == DEFAULT_HOOKS and os.geteuid() != 0:
        return True
    found = hooks.find_hooks(values.hooks)
    stop = signals.stop_on_signals()
    document, variables = ending.document(), ending.variables()
    well = hooks.call_all(found, document, variables, values.hook_timeout, stop, out)
    stop.end()
    return well and not found.passed_over


def _leave_document(folder: Path, ending: RunEnd) -> None:
    """Put the document into a folder, whole or not at all. Raises OSError."""
    unfinished = folder / f".{_LEFT}"
    unfinished.write_bytes(ending.document())
    unfinished.replace(folder / _LEFT)
