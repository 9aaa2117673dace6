"""Name everything that can go wrong, as one tree; each error knows its exit code.

    Failure                    1   an account, or the run, could not be done
      SourceError                  the user's database cannot be copied as it stands
        SourceAbsent               there is none (the account is skipped)
        SourceRefused              a symlink, a hard link, a strange owner
      TryLater                     nothing is wrong, but not now: busy, over a budget, out of time
        LeftBehind                   a worker can't be ended, and the account gets no other one
      WorkerLost                   the process that worked as the user died or broke its word
        NotTheSame                 a copy is not what its source was
      ProofFailed                  a snapshot is not what was sealed
      NoRoom                       it would use up disk space that must stay free
        OverQuota                  it is more than the account may take
      StoreError                   the place for the snapshots is not as it must be
      Cancelled                    somebody stopped the run
      InUse                    4   somebody has the database open that is to be replaced
      SystemdUnanswered            systemd did not answer, and so it is not known how a unit is
    UsageError                 2   wrong use or configuration
    LockHeld                  75   another run holds the store (EX_TEMPFAIL: try again later)
    Upgraded                  75   the package was upgraded meanwhile

Errors are raised, not logged: `output` alone speaks to people. A message is one line that says
what, where and what to do.
"""

from __future__ import annotations

EXIT_OK = 0
EXIT_UNCHECKED = 3  # nothing failed, but something could not be checked


class Failure(Exception):
    """An account, or the whole run, could not be done."""

    exit_code = 1


class SourceError(Failure):
    """The user's database cannot be copied as it stands."""


class SourceAbsent(SourceError):
    """The account has no database of T3's."""


class SourceRefused(SourceError):
    """The path is no plain file of the user's: a symlink, a hard link, another's."""


class TryLater(Failure):
    """Nothing is broken; the copy would cost too much, or take too long, right now."""


class LeftBehind(TryLater):
    """A worker was killed and has not died; its account gets no other one until it has."""


class WorkerLost(Failure):
    """The worker died, or said something that cannot be true."""


class NotTheSame(WorkerLost):
    """A copy is not what its source was at one moment."""


class ProofFailed(Failure):
    """A sealed snapshot is not what was sealed any more; `reason` says in what."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(text)
        self.reason = reason


class NoRoom(Failure):
    """What it takes would use up what must stay free."""


class OverQuota(NoRoom):
    """It is more than one account may take of the store's disk."""


class StoreError(Failure):
    """The store or an account folder is not private, not ours, or out of room."""


class Cancelled(Failure):
    """The run was stopped from outside."""


class InUse(Failure):
    """Somebody has the live database open, or had it. Nothing was changed."""

    exit_code = 4


class SystemdUnanswered(Failure):
    """systemd did not answer, though asked several times: how a unit is, is not known."""


class UsageError(Failure):
    """Wrong use or configuration; nothing was begun."""

    exit_code = 2


class LockHeld(Failure):
    """Another run holds the store's lock."""

    exit_code = 75


class Upgraded(Failure):
    """The package's files were replaced while the command ran."""

    exit_code = 75


# What a worker may report of itself, by the name that travels on the pipe.
WORKER_ERRORS: dict[str, type[Failure]] = {
    error.__name__: error
    for error in (SourceError, SourceAbsent, SourceRefused, TryLater, Cancelled, InUse)
}


def explain(error: Exception) -> str:
    """Say what went wrong in one line: of an OSError where and why, no number."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)
