"""Try to lock, fill, move and empty a store.

Usage: STORE FOLDER. Prints a line for each thing: its name, then `went through` or the error.
"""

import fcntl
import os
import sys
from collections.abc import Callable


def _attempt(name: str, step: Callable[[], object]) -> None:
    try:
        step()
        print(name, "went through")
    except OSError as error:
        print(name, error.strerror)


def _lock(store: str, flags: int) -> None:
    fcntl.flock(os.open(store, flags), fcntl.LOCK_EX)


def _empty(folder: str) -> None:
    for name in os.listdir(folder):
        os.unlink(f"{folder}/{name}")


def main() -> None:
    store, folder = sys.argv[1:]
    file = f"{folder}/state-20200101T000000Z.sqlite"
    _attempt("open", lambda: _lock(store, os.O_RDONLY))
    _attempt("open by path", lambda: _lock(store, os.O_PATH))
    _attempt("list", lambda: os.listdir(store))
    _attempt("folder", lambda: os.mkdir(f"{store}/bob"))
    _attempt("file", lambda: os.open(file, os.O_WRONLY | os.O_CREAT))
    _attempt("move", lambda: os.rename(store, f"{store}.old"))
    _attempt("replace", lambda: os.rmdir(folder))
    _attempt("chmod", lambda: os.chmod(store, 0o777))
    _attempt("remove", lambda: _empty(folder))


if __name__ == "__main__":
    main()
