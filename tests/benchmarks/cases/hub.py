"""P5's peer, listened to as ours is: the peers' hub behind Ray Serve.

    cd $BENCH_HOME/../cases; $BENCH_HOME/venv-ray/bin/python .../tests/benchmarks/cases/hub.py

Runs in the peers' environment beside their `p5_app`, so nothing of Troupe is
imported but `listeners`.  One long poll a replica, fanned out in memory, with
Serve's faster proxy: the better of the peers' ways.  The clock starts before an
event is given to the hub, which keeps it in memory.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ["RAY_SERVE_ENABLE_HA_PROXY"] = "1"
os.environ["RAY_SERVE_EXPERIMENTAL_PIP_HAPROXY"] = "1"
sys.path[:0] = [str(Path.cwd()), str(Path.cwd().parent), str(Path(__file__).parents[1])]

import benchlib  # noqa: E402 - the peers', in the folder this is started in
import p5_app  # noqa: E402
import ray  # noqa: E402
import uvloop  # noqa: E402
from listeners import listen, uncollected  # noqa: E402
from ray import serve  # noqa: E402

EVENTS = int(os.environ.get("EVENTS", "60"))
EVENT_EVERY_S = 0.1
CLIENTS = (1, 100)
WITHIN_S = 120.0


async def told(port: int, hub: Any, clients: int) -> dict[str, Any]:
    """Seconds from before an event is published to each client, as figures."""
    async with asyncio.timeout(WITHIN_S):
        listening = [await listen(f"ws://127.0.0.1:{port}/ws") for _ in range(clients)]
        for one in listening:
            await one.heard_text(1)
        with uncollected():
            for _ in range(EVENTS):
                await asyncio.sleep(EVENT_EVERY_S)
                await hub.publish.remote({"t": time.perf_counter(), "x": "event"})
        heard = [await one.heard(EVENTS) for one in listening]
    for one in listening:
        one.close()
    took = [at - said["t"] for each in heard for at, said in each]
    return {"received": len(took), "expected": clients * EVENTS, **benchlib.lat_ms(took)}


def main() -> None:
    port = benchlib.free_port()
    cases = os.pathsep.join(sys.path[:2])
    ray.init(
        address="local", num_cpus=8, include_dashboard=False, log_to_driver=False,
        configure_logging=False, namespace="bench",
        runtime_env={"env_vars": {"PYTHONPATH": cases}},
    )  # fmt: skip
    hub = p5_app.Hub.options(name="hub", max_concurrency=2000, num_cpus=0).remote()
    quiet = {"enable_access_log": False, "log_level": "ERROR"}
    serve.start(http_options={"host": "127.0.0.1", "port": port}, logging_config=quiet)
    serve.run(p5_app.build("shared"), logging_config=quiet)
    for clients in CLIENTS:
        figures = uvloop.run(told(port, hub, clients))
        benchlib.result(
            f"P5 hub behind Serve clients={clients}", figures, benchlib.versions("ray", "uvicorn")
        )
    benchlib.end_ray()


if __name__ == "__main__":
    main()
