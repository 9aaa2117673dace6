"""The forms in which T3's program comes: npm's packages, and T3's own folder of versions."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).resolve().parent
FORMS = ("npm", "node", "launcher", "launcher-alone", "executable")
PLATFORM = "@t3code/t3-linux-x64"
_BESIDE = (
    *sorted((HERE / "program").glob("*.py")),
    *sorted((HERE / "program").glob("*.sql")),
    # the import and the compaction of V2, which tests run by themselves, too
    *(HERE.parent / "support/programs" / f"{name}_v2.py" for name in ("import", "compact")),
    *(HERE.parent / "data/t3" / name for name in ("schema-61.sql", "ledger-61.txt")),
)
# From 0.0.42 on a server keeps a program of its package running; this one reads, and waits.
_MONITOR = "resource-monitor/linux-x64/t3-resource-monitor"
_NODE = """#!/usr/bin/env node
// Node's part is to start the program that lies beside this, and to end as it does.
import { spawn } from "node:child_process";
const program = new URL("bin.py", import.meta.url).pathname;
const child = spawn(program, process.argv.slice(2), { stdio: "inherit" });
for (const name of ["SIGTERM", "SIGINT"]) process.on(name, () => child.kill(name));
child.on("exit", (code) => process.exit(code ?? 1));
"""
_LAUNCHER = f"""#!/usr/bin/python3
import os, sys
from pathlib import Path
program = Path(__file__).resolve().parent.parent / "node_modules/{PLATFORM}/t3"
try:
    os.execv(program, [str(program), *sys.argv[1:]])
except OSError:
    sys.exit("Error: Cannot find module '{PLATFORM}/t3'")
"""

Files = dict[str, tuple[bytes, int]]  # contents and mode, by path


def package_files(form: str, about: Mapping[str, object], engines: str = "") -> Files:
    """Make the files of a package; `engines`: the versions of node that it says it wants.

    The launcher has its platform package bundled, as a whole installation has it; the one alone is
    what `npm install --omit=optional` leaves.
    """
    version = str(about["version"])
    package: dict[str, object] = {"name": "t3", "version": version, "license": "MIT"}
    if engines:
        package["engines"] = {"node": engines}
    if form == "executable":
        package |= {"name": PLATFORM, "os": ["linux"]}
        return {"package.json": _json(package)} | executable_files(about)
    if form in ("npm", "node"):
        package["bin"] = {"t3": f"dist/bin.{'mjs' if form == 'node' else 'py'}"}
        files = {f"dist/{name}": file for name, file in _program("bin.py", about).items()}
        if form == "node":
            files["dist/bin.mjs"] = (_NODE.encode(), 0o755)
    else:
        package |= {
            "bin": {"t3": "dist/bin.mjs"},
            "optionalDependencies": {PLATFORM: version},
            "bundleDependencies": [PLATFORM],
        }
        files = {"dist/bin.mjs": (_LAUNCHER.encode(), 0o755)}
        if form == "launcher":
            inner = package_files("executable", about)
            files |= {f"node_modules/{PLATFORM}/{name}": file for name, file in inner.items()}
    return {"package.json": _json(package)} | files


def executable_files(about: Mapping[str, object]) -> Files:
    """Make the one executable, `t3`, and what it needs beside itself."""
    return _program("t3", about) | {
        "client/index.html": (b"<!doctype html><title>T3 Code</title>", 0o644),
        "node_modules/node-pty/package.json": (b'{"name": "node-pty"}', 0o644),
    }


def _program(entry: str, about: Mapping[str, object]) -> Files:
    files = {path.name: (path.read_bytes(), 0o644) for path in _BESIDE}
    program, _ = files.pop("bin.py")
    return files | {
        entry: (program, 0o755),
        "variant.json": _json(about),
        _MONITOR: (Path("/bin/cat").read_bytes(), 0o755),
    }


def _json(value: object) -> tuple[bytes, int]:
    return json.dumps(value).encode(), 0o644


def pack(files: Files, path: Path) -> Path:
    """Write them as npm's archive."""
    with tarfile.open(path, "w:gz") as archive:
        for name, (data, mode) in files.items():
            info = tarfile.TarInfo(f"package/{name}")
            info.size, info.mode = len(data), mode
            archive.addfile(info, io.BytesIO(data))
    return path


def write(files: Files, folder: Path) -> None:
    """Write them as they lie when installed."""
    for name, (data, mode) in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(mode)
