"""A disk that is really full: the store refuses, reads on, and goes on when there is room."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
DISK_BYTES = 4 << 20
BALLAST_BYTES = 1 << 20

SCRIPT = f"""
import asyncio, json, pathlib, sys
from runtime.clock import ManualClock
from runtime.errors import StoreFullError
from runtime.store.contract import Commit, Committed, Put, Send
from runtime.store.sqlite import SqliteStore

DISK = pathlib.Path("/mnt")
A = "acme/counter:a"

async def opened():
    return await SqliteStore.open(DISK / "store.db", ManualClock())

async def fill(store, accepted):
    refused = 0
    while refused < 3:
        number = len(accepted)
        send = Send(f"m{{number}}", "acme/client:x", A, b"x" * 3000)
        puts = (Put("number", f"m{{number}}", "acme", b"x"),)
        try:
            [answer] = await store.commit([Commit("acme", sends=(send,), puts=puts)])
        except StoreFullError:
            refused += 1
            continue
        assert isinstance(answer, Committed), answer
        accepted.append(send.message_id)
    return refused

async def present(store):
    found, after = [], 0
    while page := await store.inbox(A, after, 1000):
        found += [one.message_id for one in page]
        after = page[-1].seq
    assert await store.count("number") == len(found)
    return found

async def main():
    ballast = DISK / "ballast"
    ballast.write_bytes(b"x" * {BALLAST_BYTES})
    store, accepted, report = await opened(), [], {{}}
    report["refused"] = await fill(store, accepted)
    report["whileFull"] = len(accepted)
    assert await present(store) == accepted
    ballast.unlink()
    await fill(store, accepted)
    report["withRoom"] = len(accepted)
    assert await present(store) == accepted
    await store.close()
    store = await opened()
    assert await present(store) == accepted
    await store.close()
    print(json.dumps(report))

asyncio.run(main())
"""


async def test_a_disk_that_is_full_costs_no_accepted_commit():
    """A full disk would lose accepted work, leave half a commit, or need a repair."""
    child = await asyncio.create_subprocess_exec(
        *("bwrap", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"),
        *("--size", str(DISK_BYTES), "--tmpfs", "/mnt", "--die-with-parent"),
        *("--chdir", str(ROOT), sys.executable, "-c", SCRIPT),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await asyncio.wait_for(child.communicate(), 60)
    assert child.returncode == 0, errors.decode()
    report = json.loads(out)
    assert report["refused"] == 3
    assert 50 < report["whileFull"] < report["withRoom"]
