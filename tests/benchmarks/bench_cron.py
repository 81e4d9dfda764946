"""What a next due time costs, beside croniter, cronsim and APScheduler where they are installed.

    python -m tests.benchmarks.bench_cron [CALLS]

Each call asks for the next due time after an instant drawn from 2026-2028, of an
expression that was read before (`next`), or that is read for it (`read`).  All
implementations are asked the same in turns, so that a slow moment of the machine
slows all.  Peers are never installed for this: to have them beside,
PYTHONPATH=DIR after `pip install --target DIR cronsim apscheduler`.  croniter and
cronsim have no other way than to begin from each instant anew.

Prints a table, then a `RESULT` line as the harness of several projects reads
them: microseconds a call, median, p99 and the slowest of ours, medians of the
peers.  Only the ratios mean something on another machine.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from runtime.schedule.cron import Cron
from runtime.schedule.cronfields import read
from runtime.schedule.plan import parse
from runtime.verify.cronscan import zone_info

CALLS = 2_000
PEER_CALLS = 200
"""Of each round's calls peers get fewer: they are slower."""
ZONES = ("UTC", "America/New_York")
COMMON = ("* * * * *", "*/15 * * * *", "0 9 * * *", "*/30 9-17 * * 1-5", "0 2 * * 0", "30 2 1 * *")
RARE = ("0 0 L * *", "0 0 29 2 *", "0 0 31 12 *", "0 12 29 2 */7")
FIRST = datetime(2026, 1, 1, tzinfo=UTC)
SECONDS = 3 * 365 * 86_400

AGAIN = datetime(2026, 3, 28, 21, tzinfo=UTC)
AGAIN_S = 0.12
HARNESS = {"every5min": "*/5 * * * *", "weekday9": "30 9 * * 1-5", "feb29": "0 0 29 2 *"}

Ask = Callable[[datetime], object]
Make = Callable[[str, str], Ask]


def ours(expression: str, zone: str) -> Ask:
    following = parse(expression, zone, dialect="debian").next_after
    return lambda at: following(int(at.timestamp() * 1000))


def croniter_(expression: str, zone: str) -> Ask:
    from croniter import croniter

    return lambda at: croniter(expression, at).get_next(datetime)


def cronsim_(expression: str, zone: str) -> Ask:
    from cronsim import CronSim

    return lambda at: next(CronSim(expression, at))


def apscheduler_(expression: str, zone: str) -> Ask:
    from apscheduler.triggers.cron import CronTrigger

    trigger = CronTrigger.from_crontab(expression, timezone=zone_info(zone))
    return lambda at: trigger.get_next_fire_time(None, at)


PEERS: dict[str, Make] = {
    "croniter": croniter_,
    "cronsim": cronsim_,
    "apscheduler": apscheduler_,
}


def timed(ask: Ask, instants: list[datetime]) -> list[float]:
    """Microseconds of each call."""
    taken = []
    for at in instants:
        began = time.perf_counter_ns()
        ask(at)
        taken.append((time.perf_counter_ns() - began) / 1000)
    return taken


def made(make: Make, expression: str, zone: str) -> Ask | None:
    """None where the peer is absent or can't read the expression."""
    try:
        ask = make(expression, zone)
        ask(FIRST)
    except Exception:  # a peer's own way to say no; it is left out
        return None
    return ask


def measure(expression: str, zone: str, calls: int, rng: random.Random) -> dict[str, Any]:
    """One line of the table."""
    info = zone_info(zone)
    instants = [
        datetime.fromtimestamp(FIRST.timestamp() + rng.random() * SECONDS, info)
        for _ in range(calls)
    ]
    asks = {"ours": made(ours, expression, zone)}
    asks |= {name: made(make, expression, zone) for name, make in PEERS.items()}
    taken: dict[str, list[float]] = {name: [] for name, ask in asks.items() if ask}
    parts = 10
    for part in range(parts):
        some = instants[part::parts]
        for name, ask in asks.items():
            if ask:
                taken[name] += timed(ask, some if name == "ours" else some[: PEER_CALLS // parts])
    own = sorted(taken.pop("ours"))
    return {
        "p50": round(statistics.median(own), 2),
        "p99": round(own[len(own) * 99 // 100], 2),
        "max": round(own[-1], 1),
        **{name: round(statistics.median(times), 2) for name, times in taken.items()},
    }


def cold(expression: str, zone: str) -> float:
    """Microseconds to the first answer of a zone nobody has asked for yet; the best of five."""
    from runtime.schedule.zones import Zone

    times = []
    for _ in range(5):
        fresh, cron = Zone(zone, zone_info(zone)), Cron(read(expression, "debian"))
        began = time.perf_counter_ns()
        cron.next_utc(29_454_000, fresh)
        times.append((time.perf_counter_ns() - began) / 1000)
    return round(min(times), 1)


def repeated(expression: str, zone: str) -> float:
    """Microseconds a call, as the harness of several projects asks: one instant again and again."""
    ask, at = ours(expression, zone), AGAIN.astimezone(zone_info(zone))
    began, calls = time.perf_counter(), 0
    while time.perf_counter() - began < AGAIN_S:
        ask(at)
        calls += 1
    return round((time.perf_counter() - began) / calls * 1e6, 2)


def reading(calls: int) -> float:
    """Microseconds to read an expression whose fields are known, as at a start with many."""
    texts = [f"{n % 60} {n // 60 % 24} {n % 28 + 1} * 1-5" for n in range(calls)]
    for text in texts:
        read(text)
    ats = [FIRST.replace(microsecond=number) for number in range(calls)]
    return round(statistics.median(timed(lambda at: read(texts[at.microsecond]), ats)), 2)


def installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def main() -> None:
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else CALLS
    rng, metrics = random.Random(1), dict[str, float]()
    common, slowest = 0.0, 0.0
    print(f"{'us a call':36}{'p50':>8}{'p99':>9}{'max':>10}" + "".join(f"{p:>20}" for p in PEERS))
    for expression in (*COMMON, *RARE):
        for zone in ZONES:
            row = measure(expression, zone, calls, rng)
            peers = "".join(
                f"{row[p]:>12.1f} ({row[p] / row['p50']:4.0f}x)" if p in row else f"{'-':>20}"
                for p in PEERS
            )
            name = f"{expression} {zone}"
            print(f"{name:36}{row['p50']:>8.2f}{row['p99']:>9.2f}{row['max']:>10.1f}{peers}")
            metrics |= {f"{name} {key}_us": value for key, value in row.items()}
            common = max(common, row["p50"] if expression in COMMON else 0.0)
            slowest = max(slowest, row["max"])
    metrics |= {"common_p50_us": common, "slowest_us": slowest}
    for name, expression in HARNESS.items():
        for zone, short in (("UTC", "utc"), ("Europe/Berlin", "berlin")):
            metrics[f"next_{name}_{short}_us"] = repeated(expression, zone)
    metrics["read_us"] = reading(calls)
    metrics["cold_us"] = cold("0 2 * * 0", ZONES[1])
    metrics["cold_rare_us"] = cold("0 12 29 2 */7", ZONES[1])
    print(f"read {metrics['read_us']} us; first answer of a zone {metrics['cold_us']} us, "
          f"a rare one {metrics['cold_rare_us']} us")  # fmt: skip
    versions = {name: installed(name) for name in PEERS}
    line = {"case": "P3 troupe next due time", "metrics": metrics, "versions": versions}
    print("RESULT " + json.dumps(line))


if __name__ == "__main__":
    main()
