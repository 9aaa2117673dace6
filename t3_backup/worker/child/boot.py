"""Begin a worker with as little to import as can be: that is most of what a small account costs."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

_LATER = "inspect"  # of a worker's start it takes a tenth


class _Later(ModuleType):
    """A module that is imported once something of it is asked for.

    `dataclasses` imports `inspect`, for the signature of a class without a docstring. Ours have
    one, so that nothing is ever asked for (Python 3.13 asks, and gets it).
    """

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(_LATER) is self:
            del sys.modules[_LATER]
        return getattr(import_module(_LATER), name)


def main() -> int:
    """Serve one request, of the operation on the command line."""
    sys.modules.setdefault(_LATER, _Later(_LATER))
    from t3_backup.worker.child.main import main as serve  # noqa: PLC0415 - after that

    return serve()
