"""Let the clock of our commands be so many days ahead as /run/days-later says, and nobody else's.

Each interpreter imports it, by a .pth file, also where it is isolated (-I).
"""

import datetime as dt
from pathlib import Path

try:
    _days = int(Path("/run/days-later").read_text())
    from t3_backup import text
except (OSError, ImportError):
    pass
else:
    _now = text.utc_now

    def _later() -> dt.datetime:
        return _now() + dt.timedelta(days=_days)

    text.utc_now = _later
