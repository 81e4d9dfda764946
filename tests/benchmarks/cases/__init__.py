"""Our cases of the benchmark: each a script that prints `RESULT {json}` lines.

`RESULT {"case": name, "metrics": {name: number}}`, with the metric names of the
peers' harness where a peer has the same.  `python -m tests.benchmarks` runs
them; sizes come from the environment (`N`, ...), so that a case can be tried
small.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any


def result(case: str, metrics: Mapping[str, Any]) -> None:
    """Print one line of figures."""
    sys.stdout.write(f"RESULT {json.dumps({'case': case, 'metrics': metrics})}\n")
    sys.stdout.flush()


def size(name: str, default: int) -> int:
    """A size from the environment."""
    return int(os.environ.get(name, default))


def latency(took_s: Sequence[float], prefix: str = "") -> dict[str, float]:
    """p50, p99 and the largest, in milliseconds."""
    ordered = sorted(took_s)
    return {
        f"{prefix}p50_ms": round(ordered[len(ordered) // 2] * 1e3, 3),
        f"{prefix}p99_ms": round(ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)] * 1e3, 3),
        f"{prefix}max_ms": round(ordered[-1] * 1e3, 3),
    }
