"""Tell whether this process may use a file, by the oldest system call for it.

With an open folder or any flag, os.access is faccessat2 to the C library. The filters of older
container runtimes, which don't know that call, answer it with EPERM, and that is taken for a no.
"""

from __future__ import annotations

import os


def may_access(folder: int, name: str, mode: int) -> bool:
    """Tell whether this process may use `name` in an open folder, as os.access does.

    Its real and its effective user have to be one. A symlink is followed.
    """
    return os.access(f"/proc/self/fd/{folder}/{name}", mode)
