"""P8: what Troupe adds to a round of the agent loop; see `bench_rounds`."""

from __future__ import annotations

import asyncio

from tests.benchmarks.bench_rounds import bench
from tests.benchmarks.cases import result, size

if __name__ == "__main__":
    found = asyncio.run(bench(size("ROUNDS", 30)))
    result("P8 troupe agent loop, 5,000 files", {
        "per_step_ms": found["added"]["none"]["p50Ms"],
        **{f"{kind}_p50_ms": one["p50Ms"] for kind, one in found["added"].items()},
        **{f"{kind}_p95_ms": one["p95Ms"] for kind, one in found["added"].items()},
        "model_call_ms": found["floor"]["modelCall"]["p50Ms"],
    })  # fmt: skip
