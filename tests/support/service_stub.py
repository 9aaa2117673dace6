"""A service that is only noted: what stands in for systemctl on a machine that is not booted."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from support import programs
from support.host import Answer, Host

_STUB = """#!/bin/sh
# The last of start, stop, mask and unmask that was asked for says how the service is.
for verb; do
  case "$verb" in
    start) [ ! -e {state}.broken ] || exit 1; echo active >{state} ;;
    stop) echo inactive >{state} ;;
    mask) touch {state}.masked ;;
    unmask) rm -f {state}.masked ;;
    --property=LoadState) if [ -e {state}.masked ]; then echo masked; else echo loaded; fi ;;
    --property=ActiveState) cat {state} ;;
  esac
done
"""


@dataclass(frozen=True)
class ServiceStub:
    """The command on a host whose only service runs, until it is stopped."""

    host: Host

    @property
    def _state(self) -> Path:
        return self.host.folder / "service"

    def make(self) -> None:
        """Have it run."""
        program = self.host.folder / "systemctl"
        program.write_text(_STUB.format(state=self._state))
        program.chmod(0o755)
        self._state.write_text("active\n")

    def stop(self) -> None:
        """Have somebody stop it."""
        self._state.write_text("inactive\n")

    @contextlib.contextmanager
    def broken(self) -> Iterator[None]:
        """Have it not start."""
        mark = self._state.with_name("service.broken")
        mark.touch()
        try:
            yield
        finally:
            mark.unlink()

    @property
    def runs(self) -> bool:
        """Whether it runs, and may be started."""
        masked = self._state.with_name("service.masked").exists()
        return self._state.read_text() == "active\n" and not masked

    def t3(self, *words: str, python: str | None = None, **more: str) -> Answer:
        """Call `t3-backup-state`, whose workers the interpreter `python` runs, where named."""
        line = programs.line(
            "with_systemctl.py", str(self.host.folder / "systemctl"), *words, isolated=False
        )
        called = [python or line[0], *line[1:]]
        return Answer.of(called, self.host.env(**more), executable=line[0])
