"""How much of the disk lies below a folder, asked beside the event loop."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path

BLOCK_BYTES = 512


async def used_bytes(path: Path) -> int:
    """What a folder takes on the disk; what vanishes meanwhile is not counted."""
    return await asyncio.to_thread(_used_bytes, path)


def _used_bytes(path: Path) -> int:
    total = 0
    counted: set[tuple[int, int]] = set()
    waiting = [str(path)]
    while waiting:
        with suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                with suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    if status.st_nlink > 1 and not entry.is_dir(follow_symlinks=False):
                        if (status.st_dev, status.st_ino) in counted:
                            continue
                        counted.add((status.st_dev, status.st_ino))
                    total += status.st_blocks * BLOCK_BYTES
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
    return total
