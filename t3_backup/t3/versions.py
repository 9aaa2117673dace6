"""Order the versions of T3, and know what database each known one makes.

Pure. A version opens a database whose migrations are all its own, and migrates it; any other one
it only seems to open.
"""

from __future__ import annotations

import re

from t3_backup.errors import UsageError
from t3_backup.t3.databases import SUCCESSOR
from t3_backup.t3.files import DATABASE_NAME
from t3_backup.t3.ledger import Ledger

_VERSION = re.compile(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})(?:-([0-9A-Za-z.-]{1,64}))?")
_LAST_OF_V1, _FIRST_OF_V2 = "0.0.44", "0.0.46-0"  # nobody has seen what is between
# Of others it is found out by a trial on an empty state.
KNOWN_LEVELS = {
    "0.0.24": 30,
    "0.0.25": 31,
    "0.0.26": 32,
    "0.0.27": 32,
    "0.0.28": 32,
    "0.0.29": 34,
    "0.0.30": 34,
    "0.0.31": 34,
    "0.0.32": 37,
    "0.0.33": 40,
    "0.0.42": 52,
    "0.0.44": 54,
}
# The migrations of these versions, from id 1 on: each has a part of one and the same list.
_MIGRATIONS = """
    OrchestrationEvents OrchestrationCommandReceipts CheckpointDiffBlobs ProviderSessionRuntime
    Projections ProjectionThreadSessionRuntimeModeColumns ProjectionThreadMessageAttachments
    ProjectionThreadActivitySequence ProviderSessionRuntimeMode ProjectionThreadsRuntimeMode
    OrchestrationThreadCreatedRuntimeMode ProjectionThreadsInteractionMode
    ProjectionThreadProposedPlans ProjectionThreadProposedPlanImplementation
    ProjectionTurnsSourceProposedPlan CanonicalizeModelSelections ProjectionThreadsArchivedAt
    ProjectionThreadsArchivedAtIndex ProjectionSnapshotLookupIndexes AuthAccessManagement
    AuthSessionClientMetadata AuthSessionLastConnectedAt ProjectionThreadShellSummary
    BackfillProjectionThreadShellSummary CleanupInvalidProjectionPendingApprovals
    CanonicalizeModelSelectionOptions ProviderSessionRuntimeInstanceId
    ProjectionThreadSessionInstanceId ProjectionThreadDetailOrderingIndexes
    ProjectionThreadShellArchiveIndexes AuthAuthorizationScopes AuthPairingProofKeyThumbprint
    ProjectionThreadsSettled ProjectionThreadsSnoozed ProjectionThreadTitleRegeneration
    ProjectionThreadsPinned ProjectionTurnsKeysetIndex ProjectionThreadsPinOrderKey
    ProjectionProjectsDefaultThreadEnvMode ProjectionProjectFaviconPath
    AuthSessionClientConnection ProjectionThreadLinkedPullRequest ProjectionThreadsUnsettledAt
    ClearAutomaticProjectModelDefaults ProjectionProjectsAutoPull
    RepairAutomaticSettlementTimestamps ProjectionProjectIcon ProjectionThreadBranchPullRequest
    ProjectionThreadsActiveOrderKey ProjectionThreadPullRequests ProjectionThreadMessageContext
    ProjectionThreadTitleState PullRequestFilesViewed ProjectionThreadsAutoSettleDisabledAt
"""

VersionKey = tuple[int, int, int, bool, tuple[tuple[bool, int, str], ...]]


def known_database(version: str) -> str | None:
    """Name the database that a version makes, as far as releases have been looked at."""
    key = version_key(version)
    if key <= version_key(_LAST_OF_V1):
        return DATABASE_NAME
    return SUCCESSOR if key >= version_key(_FIRST_OF_V2) else None


def known_ledger(version: str) -> Ledger | None:
    """Give the ledger of a database that a known version has made; None of any other."""
    level = KNOWN_LEVELS.get(version)
    return None if level is None else tuple(enumerate(_MIGRATIONS.split()[:level], 1))


def is_lower(one: str, other: str) -> bool:
    """Tell whether a version is older than the other. Raises UsageError for what is none."""
    return version_key(one) < version_key(other)


def version_key(version: str) -> VersionKey:
    """Give a key that orders versions as semver.org does, pre-releases too.

    Raises UsageError.
    """
    match = _VERSION.fullmatch(version)
    if match is None:
        raise UsageError(f"{version!r} is no version of T3, such as 0.0.25")
    parts = match[4].split(".") if match[4] else []
    order = tuple((not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts)
    return int(match[1]), int(match[2]), int(match[3]), not parts, order


def is_version(text: str) -> bool:
    """Tell whether `text` is a version, and so the name of a folder."""
    return _VERSION.fullmatch(text) is not None
