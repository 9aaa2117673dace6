"""What root's processes ask the kernel about files: read from a trace of strace.

A process counts as root's until it has become another user, and so does each of its threads.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

# every call that takes a path or a descriptor; -yy would ask sockets, too
OPTIONS = ("-y", "-s", "4096", "-e", "trace=%file,%desc,setresuid")
_LINE = re.compile(r"(\d+) +(\w+)\((.*)")
# Of these the text is content, which names no file that is touched.
_CONTENT = {
    *("read", "write", "pread64", "pwrite64", "readv", "writev", "recvfrom", "sendto"),
    *("recvmsg", "sendmsg", "poll", "ppoll", "close", "dup", "dup2", "dup3", "fcntl"),
}
# of these only the first path is one: the rest is an answer, or the words of a command
_FIRST_ALONE = {"readlink", "readlinkat", "getcwd", "execve"}


def touched(trace: Path, folder: Path, *, by_user: bool = False) -> list[str]:
    """Give each call in the trace that names `folder`, or what is beneath it.

    Those of root's processes; or those of the user's.
    """
    name = re.compile(rf"{re.escape(str(folder))}(?![\w.-])")
    calls = _calls(trace, by_user)
    return [f"{pid} {call}({text}" for pid, call, text in calls if name.search(text)]


def _calls(trace: Path, by_user: bool) -> Iterator[tuple[str, str, str]]:
    became = set[str]()
    for line in trace.read_text(errors="replace").splitlines():
        if not (match := _LINE.match(line)):
            continue
        pid, call, text = match.groups()
        if call == "setresuid" and not text.startswith("0"):
            became.add(pid)
        elif (pid in became) == by_user:
            if call in _CONTENT:
                text = text.partition('"')[0]
            elif call in _FIRST_ALONE:
                text = re.split(r'", [\["]', text)[0]
            yield pid, call, text
