"""Hold every limit over a running worker, and take in what it says.

The worker may be stopped, hostile or stuck in the kernel; the parent never waits for it without a
bound, and never for the end of its socket, which a child of it could hold. Past a limit it is
killed, the new file is emptied, and what it held (the pin, the locks) is free again with
its death.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from t3_backup.errors import Cancelled, Failure, NoRoom, OverQuota, TryLater, WorkerLost
from t3_backup.system.disk import reserve_of
from t3_backup.worker import protocol
from t3_backup.worker.limits import Limits
from t3_backup.worker.protocol import MAX_LINE, Event, HomeState, Phase, Progress, Silent
from t3_backup.worker.sources import Source

_TICK_MS = 200
_REAP_SECONDS = 5
_POLITE_SECONDS = 2
# Of a home that hangs, or a worker that was stopped, nothing is known but its silence. It is to say
# something each second: first its account keeps no other any more, then it holds no -wal.
_BESIDE_S = 2.0
_SILENCE_S = 5.0
_LONGEST_TICK_S = 1.0  # that counts: what this process slept through is no silence of a worker
_NOISE = 2000  # characters of what a dying Python says
_PIECE_BYTES = 1 << 16
# more than a socket holds when its worker dies; what others go on writing into it is of no interest
_LAST_PIECES = 64

Listener = Callable[[Event], None]
# told what a worker has found, it gives the descriptors of the files that are to be written
Provider = Callable[[Source], Sequence[int]]


@dataclass
class WorkerState:
    """What the parent knows of a running worker."""

    limits: Limits
    provide: Provider | None = None
    files: Sequence[int] = ()  # that it writes to
    unsent: bytearray = field(default_factory=bytearray)  # of its request
    began: float = field(default_factory=time.monotonic)
    heard: float = field(default_factory=time.monotonic)
    source: Source | None = None
    pins: bool = False  # while it copies, it holds a moment of the source
    home: HomeState | None = None
    told_silent: bool = False
    silence: float = 0.0  # seconds since it told of the home, as far as we were awake
    result: Event | Failure | None = None
    noise: str = ""

    def may_pin(self) -> bool:
        """Tell whether it may hold a moment of the source now, which keeps the -wal growing."""
        return self.pins and self.source is not None and self.result is None

    def wait(self, seconds: float) -> None:
        """Count the time in which nothing was heard; of what we slept through but a moment."""
        self.silence += min(seconds, _LONGEST_TICK_S)

    def is_silent(self) -> bool:
        """Tell whether it may hold a moment of the source, and says no more what that costs."""
        return self.may_pin() and self.silence > _SILENCE_S

    def home_is_near_its_end(self) -> bool:
        """Tell whether the home's file system has less free than must stay so."""
        if self.home is None:
            return False
        return self.home.free < reserve_of(self.limits.home_reserve, self.home.total)


def supervise(
    process: subprocess.Popen[bytes],
    end: int,
    channel: socket.socket,
    state: WorkerState,
    stopping: threading.Event,
    listen: Listener,
) -> None:
    """Watch over the worker until it is dead and reaped; `end` is readable once it is dead.

    Raises TryLater, Cancelled and WorkerLost once it is killed; no TryLater where it had answered.
    """
    channel.setblocking(False)
    poll = select.poll()
    poll.register(end, select.POLLIN)
    poll.register(channel, select.POLLIN | select.POLLOUT)
    pending, last = bytearray(), time.monotonic()
    try:
        while True:
            ready = dict(poll.poll(_TICK_MS))
            # It may be stopped, or dead, before it has read its request.
            if ready.get(channel.fileno(), 0) & select.POLLOUT:
                _send(channel, state.unsent)
                if not state.unsent:
                    poll.modify(channel, select.POLLIN)
            # One piece at a time: a worker that writes without end must not keep the limits from
            # being looked at.
            heard = ready.get(channel.fileno(), 0) & ~select.POLLOUT
            if heard and not _receive(channel, pending, state, listen):
                poll.unregister(channel)  # it closed the socket; its death is what ends the watch
            if end in ready:
                for _ in range(_LAST_PIECES):
                    if not _receive(channel, pending, state, listen):
                        break
                process.wait()
                return
            if stopping.is_set():
                _stop(process, end)
                raise Cancelled("stopped before it was done")
            now = time.monotonic()
            state.wait(now - last)
            last = now
            if not state.told_silent and now - state.heard > _BESIDE_S:
                state.told_silent = True
                listen(Silent())
            _check_limits(state)
    except TryLater:
        answered = isinstance(state.result, Event)
        kill_worker(process, () if answered else state.files)
        if not answered:
            raise
    except BaseException:
        kill_worker(process, state.files)
        raise


def _send(channel: socket.socket, unsent: bytearray) -> None:
    """Send what there is room for; all of it counts as sent where nobody is there to read it."""
    try:
        del unsent[: channel.send(unsent)]
    except BlockingIOError:
        pass
    except ConnectionError:  # it has died, and its end says why
        unsent.clear()


def _receive(
    channel: socket.socket, pending: bytearray, state: WorkerState, listen: Listener
) -> bool:
    """Take in a piece of what has come; False where nothing has, or ever will again."""
    try:
        data = channel.recv(_PIECE_BYTES)
    except (BlockingIOError, ConnectionResetError):
        return False
    if not data:
        return False
    pending += data
    *lines, rest = pending.split(b"\n")
    pending[:] = rest
    if len(pending) > MAX_LINE:
        raise WorkerLost("the worker sent a line without an end")
    for line in lines:
        _hear(bytes(line), channel, state, listen)
    return True


def _hear(line: bytes, channel: socket.socket, state: WorkerState, listen: Listener) -> None:
    event = protocol.decode_event(line)
    if event is None:
        state.noise = (state.noise + line.decode(errors="replace") + "\n")[-_NOISE:]
        return
    if isinstance(event, HomeState):  # no progress: what copies may hang all the same
        state.home, state.silence = event, 0.0
        return
    state.heard = time.monotonic()
    if isinstance(event, Source):
        if state.source is None:
            state.silence = 0.0
            state.source = event
            listen(event)
            _must_fit(event, state.limits)
            if state.unsent:
                raise WorkerLost("the worker answered before it was asked")
            if state.provide is not None and event.usable:
                state.files = state.provide(event)
                socket.send_fds(channel, [b"\n"], list(state.files))
    elif isinstance(event, Phase | Progress):
        listen(event)
    else:
        state.result = event


def _must_fit(source: Source, limits: Limits) -> None:
    needed, free = source.bytes + source.wal_bytes, limits.free_bytes()
    if free - needed < limits.reserve:
        raise NoRoom(
            f"no room: the copy needs {needed} bytes, {free} are free, and {limits.reserve} of "
            "them must stay so "
            "(T3_BACKUP_RESERVE); free some space"
        )
    if limits.allowance is not None and needed > limits.allowance:
        raise OverQuota(
            f"no room: the copy needs {needed} bytes, and {max(0, limits.allowance)} are left to "
            "the account "
            "(T3_BACKUP_MAX_BYTES); keep fewer, or allow more"
        )


def _check_limits(state: WorkerState) -> None:
    limits, now = state.limits, time.monotonic()
    if now - state.began > limits.seconds:
        raise TryLater(f"timed out after {limits.seconds:.0f} s (T3_BACKUP_TIMEOUT)")
    if now - state.heard > limits.stall:
        raise TryLater(f"no progress for {limits.stall:.0f} s; its worker was ended")
    if state.is_silent():
        raise TryLater(
            f"its worker has not said for {_SILENCE_S:.0f} s by how much the -wal grows that it "
            "holds: it was stopped, or the home does not answer; try again later"
        )
    growth = 0 if state.home is None else state.home.wal_growth
    if growth > limits.wal_budget:
        raise TryLater(
            f"the -wal grew by {growth} bytes during the copy, more than the budget of "
            f"{limits.wal_budget}; try again later"
        )
    if growth > 0 and state.home_is_near_its_end():
        raise TryLater(
            "the -wal that the copy holds has nearly filled the disk of the home; free some space"
        )
    if not state.files:
        return
    most = protocol.copy_limit(state.source.bytes + state.source.wal_bytes if state.source else 0)
    used = [os.fstat(file) for file in state.files]
    if max(sum(one.st_size for one in used), sum(one.st_blocks for one in used) * 512) > most:
        raise WorkerLost(f"the new snapshot grew past {most} bytes, more than its source can need")
    if limits.free_bytes() < limits.reserve:
        raise NoRoom(
            "the store's disk has fallen below its reserve (T3_BACKUP_RESERVE); free some space"
        )


def _stop(process: subprocess.Popen[bytes], end: int) -> None:
    """Ask the worker to end by itself, for a moment."""
    process.terminate()
    poll = select.poll()
    poll.register(end, select.POLLIN)
    poll.poll(_POLITE_SECONDS * 1000)


def kill_worker(process: subprocess.Popen[bytes], files: Sequence[int] = ()) -> None:
    """Kill and reap; give the blocks of the new files back.

    One that can't be reaped (asleep in the kernel) is left behind.
    """
    process.kill()  # it is not reaped yet, so that its number is nobody else's
    for file in files:
        with contextlib.suppress(OSError):
            os.ftruncate(file, 0)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_REAP_SECONDS)
