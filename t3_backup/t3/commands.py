"""Call T3's program for what it prints, within limits of time and size.

Nothing that it has started outlives the call.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from t3_backup.t3.output import innermost_error

_CHUNK_BYTES = 64 << 10
_END_S = 2.0


@dataclass(frozen=True)
class Printed:
    """How a call ended, and what it printed: the limit of bytes, and one more where there were."""

    code: int
    out: bytes
    err: bytes

    def why(self) -> str:
        """Say why it failed, without secrets; empty where it does not say.

        T3 says it on its standard output, Node on the other one.
        """
        said = (innermost_error(one.decode(errors="replace")) for one in (self.out, self.err))
        return next(filter(None, said), "")


async def call(line: Sequence[str], seconds: float, limit: int) -> Printed:
    """Run a command line of T3's, and keep `limit` bytes of each of its streams.

    Raises OSError where it can't be started, and TimeoutError.
    """
    nothing, pipe = asyncio.subprocess.DEVNULL, asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *line, stdin=nothing, stdout=pipe, stderr=pipe, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(seconds):
            out, err = await asyncio.gather(
                read_some(process.stdout, limit), read_some(process.stderr, limit)
            )
            return Printed(await process.wait(), out, err)
    finally:
        await _end(process)


async def read_some(stream: asyncio.StreamReader, limit: int) -> bytes:
    """Read all of a stream, and keep `limit` bytes, and one more where there are more."""
    kept = b""
    while data := await stream.read(_CHUNK_BYTES):
        kept += data[: limit + 1 - len(kept)]
    return kept


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a process and whatever it has started, and let go of its pipes."""
    assert process.stdout is not None
    assert process.stderr is not None
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(TimeoutError):
        async with asyncio.timeout(_END_S):
            await asyncio.gather(
                read_some(process.stdout, 0), read_some(process.stderr, 0), process.wait()
            )
