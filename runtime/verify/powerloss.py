"""Power cuts of the SQLite store: record its writes and syncs, replay what a cut may leave.

The real store runs in a process of its own, under a recorder that is compiled
on the spot (`recorder.c`, needs gcc).  Then, at points drawn by a seed, the
files are made as a cut could have left them, the store is opened on them as
after a boot, and asked: is every commit that was answered still there (with
durability `power loss`), and is none there in part (with both)?
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from runtime.clock import SystemClock
from runtime.errors import StoreError
from runtime.store.sqlite import SqliteStore
from runtime.store.sqlite_file import Durability
from runtime.verify.commits import ACKS, DATABASE, inspect
from runtime.verify.replay import Disk, Operation, read_log
from runtime.verify.report import Outcome
from runtime.verify.simulate import silenced

COMMITS: Final = 120
"""Numbers of the workload; each is two commits."""
RECORD_S_MAX: Final = 120.0
DETAILS_MAX: Final = 10


@dataclass
class Replayed:
    """What cuts of one run have shown."""

    points: int = 0
    lost_points: int = 0
    """Cuts after which something answered was missing."""
    lost_most: int = 0
    """Commits missing after the worst of them."""
    torn: int = 0
    """Cuts after which something was there in part, or the store did not open."""
    acked: int = 0
    syncs: int = 0
    details: list[str] = field(default_factory=list)

    def figure(self) -> dict[str, Any]:
        return {
            "points": self.points,
            "acked": self.acked,
            "syncs": self.syncs,
            "lostPoints": self.lost_points,
            "lostMost": self.lost_most,
            "torn": self.torn,
        }


def powerloss(points: int = 1000, seed: int = 1) -> Outcome:
    """Cut the power at so many points of a run with each durability."""
    began = time.monotonic()
    if shutil.which("gcc") is None:
        sentence = "The recorder needs gcc, and there is none here."
        return Outcome({"gcc": False}, sentence, False)
    with tempfile.TemporaryDirectory(dir=_fast_directory()) as place, silenced():
        recorder = _compile(Path(place))
        full, normal = (
            asyncio.run(_replay(_record(Path(place), recorder, durability), points, seed))
            for durability in ("power loss", "process kill")
        )
    good = not full.lost_points and not full.torn and not normal.torn and full.points >= points
    figure: dict[str, Any] = {"full": full.figure(), "normal": normal.figure()}
    figure["seconds"] = round(time.monotonic() - began, 1)
    sentence = (
        f"{full.points} cuts with durability `power loss`: {full.lost_points} lost something "
        f"answered, {full.torn} left something torn. {normal.points} with `process kill`: "
        f"{normal.torn} torn, {normal.lost_points} lost something, {normal.lost_most} at most."
    )
    return Outcome(figure, sentence, good, full.details + normal.details)


def _fast_directory() -> str | None:
    """Memory, where there is some: what is synced here need not survive anything."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - removed again


def _compile(place: Path) -> Path:
    library = place / "recorder.so"
    source = Path(__file__).with_name("recorder.c")
    command = ["gcc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source)]
    subprocess.run([*command, "-ldl", "-lpthread"], check=True, capture_output=True)
    return library


def _record(place: Path, recorder: Path, durability: Durability) -> list[Operation]:
    """What the store did to its files during the workload."""
    directory = Path(tempfile.mkdtemp(dir=place))
    log = place / f"{directory.name}.log"
    environment = {
        **os.environ,
        "LD_PRELOAD": str(recorder),
        "POWERLOSS_DIR": str(directory),
        "POWERLOSS_LOG": str(log),
    }
    command = [sys.executable, "-m", "runtime.verify.commits", str(directory), durability]
    subprocess.run(
        [*command, str(COMMITS)],
        check=True,
        env=environment,
        timeout=RECORD_S_MAX,
        cwd=Path(__file__).parents[2],
    )
    return list(read_log(log.read_bytes()))


async def _replay(operations: list[Operation], points: int, seed: int) -> Replayed:
    source = random.Random(seed)  # noqa: S311 - no secret: it must repeat
    chosen = sorted(source.choices(range(1, len(operations) + 1), k=points))
    found = Replayed(syncs=sum(one.kind == "S" for one in operations))
    disk = Disk()
    acked: set[str] = set()
    done = 0
    with tempfile.TemporaryDirectory(dir=_fast_directory()) as place:
        for point in chosen:
            for one in operations[done:point]:
                if one.name == ACKS:
                    acked |= set(one.data.decode().splitlines())
                else:
                    disk.do(one)
            done = max(done, point)
            await _cut(disk.cut(source), acked, point, found, Path(place))
    found.acked = len(acked)
    return found


async def _cut(
    files: dict[str, bytes], acked: set[str], point: int, found: Replayed, place: Path
) -> None:
    """Boot on these files and look."""
    found.points += 1
    for name, content in files.items():
        if not name.endswith(".lock"):
            (place / name).write_bytes(content)
    try:
        store = await SqliteStore.open(
            place / DATABASE, SystemClock(), boot_id="after", on_fatal=lambda: None
        )
        try:
            inspected = await inspect(store)
        finally:
            await store.close()
        broken = inspected.torn or _integrity(place / DATABASE)
    except (StoreError, sqlite3.Error) as error:
        broken, inspected = [f"{type(error).__name__}: {error}"], None
    missing = acked - inspected.there if inspected is not None else acked
    found.torn += bool(broken)
    found.lost_points += bool(missing)
    found.lost_most = max(found.lost_most, len(missing))
    if broken and len(found.details) < DETAILS_MAX:
        found.details.append(f"cut at operation {point}: {broken[:3]}")
    _empty(place)


def _empty(place: Path) -> None:
    for left in place.iterdir():
        left.unlink()


def _integrity(path: Path) -> list[str]:
    connection = sqlite3.connect(path)
    try:
        rows = connection.execute("PRAGMA quick_check").fetchall()
    finally:
        connection.close()
    return [] if rows == [("ok",)] else [str(row) for row in rows[:3]]
