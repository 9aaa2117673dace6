"""What can become of a store and of what is in it, by real means."""

from __future__ import annotations

import json
import re
import shutil
import uuid
from datetime import timedelta
from pathlib import Path

from support.databases import commit_row
from support.filesystems import disk, fill_disk
from support.host import succeeded
from support.live_database import paused_restore
from support.manifests import rewrite_manifest
from support.scene import Scene
from t3_backup.text import format_time, utc_now


def rot(path: Path) -> None:
    """Four bytes of a sealed image, as a failing disk changes them."""
    with path.open("r+b") as file:
        file.seek(8200)
        before = file.read(4)
        file.seek(8200)
        file.write(bytes(byte ^ 0x55 for byte in before))


def rot_oldest(scene: Scene) -> None:
    rot(scene.host.snapshots(scene.user)[0])


def rot_newest(scene: Scene) -> None:
    """The database is still what it holds, so the next run takes it again."""
    rot(scene.newest)


def remove_data(scene: Scene) -> None:
    scene.newest.unlink()


def remove_manifest(scene: Scene) -> None:
    scene.newest.with_suffix(".json").unlink()


def remove_account_folder(scene: Scene) -> None:
    shutil.rmtree(scene.folder)


def unmount(scene: Scene) -> None:
    """The disk of the store is not there; the folder that it was mounted on is."""
    succeeded(scene.host.t3("run"))  # which remembers the store of this place
    scene.host.store.rename(scene.host.folder / "elsewhere")
    scene.host.store.mkdir(mode=0o700)


def mount_another(scene: Scene) -> None:
    """The disk in its place has a store of its own."""
    succeeded(scene.host.t3("run"))
    mark = {"format": 1, "id": str(uuid.uuid4())}
    (scene.host.store / "+store").write_text(json.dumps(mark))


def mistype(scene: Scene) -> None:
    """The name of the store in the settings has a slip."""
    succeeded(scene.host.t3("run"))
    scene.set(DEST=f"{scene.host.store}s")


def future(scene: Scene) -> None:
    """The clock was ahead when the newest was taken."""
    ahead = format_time(utc_now() + timedelta(days=400))
    rewrite_manifest(scene.newest.with_suffix(".json"), taken_at=ahead)


def grow_old(scene: Scene) -> None:
    """No run for five days: the machine was off, or the timer was."""
    long_ago = utc_now() - timedelta(days=5)
    for number, path in enumerate(scene.host.snapshots(scene.user)):
        taken = format_time(long_ago + timedelta(hours=number))
        rewrite_manifest(path.with_suffix(".json"), taken_at=taken)
    ledger = json.loads((scene.host.store / "attempts.json").read_text())
    for attempt in ledger["accounts"][scene.user.name]:
        attempt["at"] = format_time(long_ago)
    (scene.host.store / "attempts.json").write_text(json.dumps(ledger))
    metrics = scene.host.folder / "textfiles" / "t3_backup.prom"
    stamp = re.compile(r"^(t3_backup_\w+_timestamp_seconds\{.*\}) .*$", re.MULTILINE)
    metrics.write_text(stamp.sub(rf"\1 {long_ago.timestamp()}", metrics.read_text()))


def give_folder_away(scene: Scene) -> None:
    scene.give(scene.folder)


def break_attempts(scene: Scene) -> None:
    (scene.host.store / "attempts.json").write_text("broken")


def break_catalog(scene: Scene) -> None:
    [catalog] = scene.host.store.glob("*+catalog")
    catalog.write_bytes(b"broken" * 100)


def take_all_room(scene: Scene) -> None:
    """The store is on a disk of its own, which somebody else has filled."""
    commit_row(scene.user)
    where = scene.stack.enter_context(disk(scene.host.folder, "ext4"))
    shutil.move(scene.host.store, where / "store")
    scene.set(DEST=str(where / "store"))
    fill_disk(where)


def limit_account(scene: Scene) -> None:
    commit_row(scene.user)
    used = sum(path.stat().st_size for path in scene.folder.iterdir())
    scene.set(MAX_BYTES=str(used), KEEP="100")


def interrupt_restore(scene: Scene) -> None:
    with paused_restore(scene.host, scene.user) as process:
        process.kill()
        process.wait()
