"""The result of maintenance: what pruning and compaction did to an account's folder."""

from __future__ import annotations

from dataclasses import dataclass, field

from t3_backup.store.account_dir import AccountDir
from t3_backup.store.listing import Listing


@dataclass
class MaintenanceResult:
    """What pruning and compaction did, and the folder since then."""

    listing: Listing
    pruned: list[str] = field(default_factory=list)
    compacted: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    stopped: bool = False  # it did not come to its end
    stale: bool = False  # a change failed half way: what `listing` says may not be so any more

    @property
    def freed_space(self) -> bool:
        """Tell whether something was removed or became smaller."""
        return bool(self.pruned or self.compacted)

    def refresh(self, account_dir: AccountDir) -> None:
        """Read the folder again where a change failed half way. Raises OSError."""
        if self.stale:
            self.listing, self.stale = account_dir.read_listing(), False
