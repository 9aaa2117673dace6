"""SHA-256 without OpenSSL: to load that takes longer than all that a worker has to hash.

Python's own `random` does the same. Python 3.11 has it in another module than later ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hashlib import sha256
else:
    try:
        from _sha256 import sha256
    except ImportError:
        try:
            from _sha2 import sha256
        except ImportError:
            from hashlib import sha256

__all__ = ["sha256"]
