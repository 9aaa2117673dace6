"""Stores that earlier versions made, in the formats of their manifests."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import zstandard

DATA = Path(__file__).resolve().parent.parent / "data"
STORES: tuple[str, ...] = ("format-1", "format-2")
ACCOUNT = "alice"
LABEL = "before-upgrade"


def unpack_store(name: str, target: Path) -> Path:
    """Unpack one of `STORES` to `target`, which is the store then, and return that."""
    target.mkdir(mode=0o700)
    unpack(DATA / "stores" / f"{name}.tar.zst", target)
    return target


def unpack(archive: Path, target: Path) -> None:
    """Unpack a compressed archive; what root unpacks belongs to root."""
    content = zstandard.ZstdDecompressor().decompressobj().decompress(archive.read_bytes())
    with tarfile.open(fileobj=io.BytesIO(content)) as files:
        files.extraction_filter = lambda member, _: member  # ours: modes are as they were
        files.extractall(target, numeric_owner=True)
