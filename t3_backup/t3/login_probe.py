"""Log in to an account's server as its owner, and end the logins that this leaves.

Root's part: what parses a server's answers is a process of the owner's, in a transient unit.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t3_backup.errors import Failure
from t3_backup.system import transient_unit
from t3_backup.t3 import limits
from t3_backup.t3.output import redact
from t3_backup.text import printable

# What reading an answer may raise: it is the owner's word, who may put any text in its place.
_NO_ANSWER = (ValueError, KeyError, TypeError, RecursionError)
_MOST = 500  # characters of a reason


@dataclass(frozen=True)
class LoginProbe:
    """A login of `user` on `port`, whose credential `program` makes in `base_dir`."""

    user: str
    port: int
    base_dir: Path
    program: Path
    patience: float  # seconds for each step

    def log_in(self, warn: Callable[[str], None]) -> str:
        """Log in, and return the endpoint. Raises Failure.

        Where a step only took too long, which `warn` hears of, it is tried once more.
        """
        found, reason, slow = self._try()
        if not found and slow:
            warn(f"{self.user}: no login on port {self.port} yet, it is tried once more: {reason}")
            found, reason, slow = self._try()
        if found:
            return found
        too_slow = "too slow, twice: " if slow else ""
        raise Failure(f"{self.user}: no login on port {self.port}: {too_slow}{reason}")

    def end_logins(self) -> str:
        """End the logins that this and earlier checks have left in the database.

        Return what is left, and why; empty: nothing is.
        """
        seconds = limits.ending_seconds(self.patience)
        try:
            done = self._call("sessions_command", seconds)
            return _shown(json.loads(done.out)["left"])
        except _NO_ANSWER:
            why = "it took too long" if done.timed_out else f"it ended with {done.code}"
        except Failure as failure:
            why = str(failure)
        return f"a login of our checks: {why}"

    def _try(self) -> tuple[str, str, bool]:
        """Try it; return the endpoint, or why there is none and whether it only was slow."""
        words = (f"--port={self.port}", "--json", "--keep")
        done = self._call("pair_command", limits.login_seconds(self.patience), *words)
        try:
            said = json.loads(done.out)
            if done.code == 0 and said["paired"] is True:
                return str(said["endpoint"])[:200], "", False
            return "", _shown(f"{said['step']}: {said['reason']}"), said["slow"] is True
        except _NO_ANSWER:
            if done.timed_out:
                return "", "the check took too long", True
            ended = f"the check ended with {done.code}: {done.err[-300:].strip()}"
            return "", _shown(ended), False

    def _call(self, module: str, seconds: float, *words: str) -> transient_unit.Done:
        line = [sys.executable, "-I", "-m", f"t3_backup.t3.{module}"]
        line += [f"--t3={self.program}", f"--base-dir={self.base_dir}"]
        line += [f"--seconds={self.patience:g}", *words]
        return transient_unit.as_owner(self.user, line, seconds + limits.UNIT_S)


def _shown(text: Any) -> str:
    return printable(redact(str(text)), _MOST)
