"""Flip single bits of a store, one after the other, and look what verify and restore make of each.

Usage: STORE USER LIVE COUNT SEED. The store is put back after each; LIVE is the user's database.
Prints one JSON document: `counts` (kind of file, and whether the flip was `found` or `harmless`),
and what must not be, in `wrong`. The command runs in this process, its workers as ever.
"""

import contextlib
import hashlib
import io
import json
import os
import shutil
import sys
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

from t3_backup.cli import main as command
from t3_backup.cli import verify
from t3_backup.system import signals

_IN_PLACE = 10  # one in so many flips is followed by a restore in place as well
_KINDS = {".sqlite": "plain image", ".delta": "delta", ".json": "manifest", ".zst": "archive"}


def _call(*words: str) -> tuple[int, str]:
    """The exit code of a command, and what it printed on standard output."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = command.main(list(words))
        except SystemExit as ended:
            code = int(ended.code or 0)
    assert "Traceback" not in err.getvalue(), err.getvalue()
    return code, out.getvalue()


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Rot:
    """One store, and what it holds while nothing is wrong with it."""

    def __init__(self, store: Path, user: str, live: Path, random: Random) -> None:
        self.random = random
        self.store, self.user, self.live = store, user, live
        self.pristine = store.with_name(f"{store.name}-pristine")
        shutil.copytree(store, self.pristine, symlinks=True)
        code, text = _call("list", user, "--json")
        assert code == 0
        # newest first
        self.snapshots: list[dict[str, Any]] = json.loads(text)["accounts"][0]["snapshots"]
        self.names = [one["name"] for one in self.snapshots]
        self.sealed = {
            (one["name"], image["file"]): image["sha256"]
            for one in self.snapshots
            for image in one["databases"]
        }
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []

    def files(self) -> dict[str, list[Path]]:
        """What there is to rot, by kind."""
        found: dict[str, list[Path]] = {}
        for path in sorted((self.store / self.user).iterdir()):
            found.setdefault(_KINDS.get(path.suffix, "hint"), []).append(path)
        if catalogs := sorted(self.store.glob(f"{self.user}+catalog*")):
            found["catalog"] = catalogs
        return found

    def flip(self, kind: str, path: Path, bit: int, *, in_place: bool) -> None:
        """Change one bit, look, and change it back."""
        where = f"{path.name} bit {bit}"
        content = bytearray(path.read_bytes())
        content[bit // 8] ^= 1 << bit % 8
        self._write(path, content)
        try:
            self._look(kind, path, where)
            if in_place:
                self._put_back(where)
        finally:
            self._heal(where)

    def _look(self, kind: str, path: Path, where: str) -> None:
        before = self._hashes(path)
        code, text = _call("verify", self.user, "--json")
        [account] = json.loads(text)["accounts"]
        told = {one["name"]: one["verifies"] for one in account["snapshots"]}
        rotten = [name for name in self.names if not told.get(name)]
        self.counts[f"{kind} {'found' if code else 'harmless'}"] += 1
        if rotten and code == 0:
            self.wrong.append(f"{where}: not told of {rotten}")
        for name in self._untouched(kind, path):
            if name in rotten:
                self.wrong.append(f"{where}: {name} has nothing to do with it, and is lost")
        # of what is sound, and is not what changed, one stands for all
        sound = [image for image in self.sealed if image[0] not in rotten]
        chosen = set(self.random.sample(sound, min(1, len(sound))))
        chosen |= {image for image in self.sealed if path.name.startswith(f"{image[0]}.")}
        for name, file in chosen | (set(self.sealed) - set(sound)):
            sha256 = self.sealed[name, file]
            self._export(where, name, file, sha256, sound=name not in rotten)
        if self._hashes(path) != before:
            self.wrong.append(f"{where}: verify or restore --to changed the store")

    def _untouched(self, kind: str, path: Path) -> list[str]:
        """Name the snapshots that a file has nothing to do with.

        Those that are newer than its own, on which it may hang; of an archive, all that don't name
        it.
        """
        if kind == "archive":
            return [
                one["name"]
                for one in self.snapshots
                if (one["companion"] or {}).get("sha256", "-") not in path.name
            ]
        owner = next((name for name in self.names if path.name.startswith(f"{name}.")), None)
        return self.names if owner is None else self.names[: self.names.index(owner)]

    def _export(self, where: str, name: str, file: str, sha256: str, *, sound: bool) -> None:
        to = self.store.parent / "exported"
        code, _ = _call("restore", self.user, "--at", name, "--database", file, "--to", str(to))
        if code == 0 and _digest(to) != sha256:
            self.wrong.append(f"{where}: {name} {file} came out as something else")
        if code != 0 and (sound or to.exists()):
            self.wrong.append(f"{where}: {name} {file} did not come out (exit code {code})")
        to.unlink(missing_ok=True)

    def _put_back(self, where: str) -> None:
        """What a restore in place brings is a sealed state, or it changes nothing."""
        before = _digest(self.live)
        code, text = _call("restore", self.user, "--yes", "--no-service", "--json")
        now = _digest(self.live)
        if code == 0:
            live = json.loads(text)["snapshot"]
            if now != live["sha256"]:
                self.wrong.append(f"{where}: a restore brought what was not sealed")
        elif now != before and now not in self.sealed.values():
            self.wrong.append(f"{where}: a restore that failed (exit code {code}) changed the data")
        self.counts[f"restored in place, exit code {code}"] += 1

    def _hashes(self, but: Path) -> dict[str, str]:
        """All that was sealed, but for one file and what commands may write."""
        return {
            path.name: _digest(path)
            for path in (self.store / self.user).iterdir()
            if path != but and path.suffix != ".pages"
        }

    def _heal(self, where: str) -> None:
        """Put all back as it was; the newest state of the account included."""
        shutil.rmtree(self.store)
        shutil.copytree(self.pristine, self.store, symlinks=True)
        if self._hashes(self.store) != {
            path.name: _digest(path)
            for path in (self.pristine / self.user).iterdir()
            if path.suffix != ".pages"
        }:
            self.wrong.append(f"{where}: not healed")

    @staticmethod
    def _write(path: Path, content: bytearray) -> None:
        with path.open("r+b") as file:
            file.write(content)


def main() -> None:
    store, user, live, count, seed = sys.argv[1:]
    vars(verify)["GAP_S"] = 0  # nobody else wants the store
    vars(signals)["lower_priority"] = lambda: None
    random = Random(seed)
    rot = Rot(Path(store), user, Path(live), random)
    for number in range(int(count)):
        files = rot.files()
        kind = sorted(files)[number % len(files)]
        path = random.choice(files[kind])
        bit = random.randrange(path.stat().st_size * 8)
        rot.flip(kind, path, bit, in_place=number % _IN_PLACE == 0)
    print(json.dumps({"counts": dict(sorted(rot.counts.items())), "wrong": rot.wrong}))


if __name__ == "__main__":
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    main()
