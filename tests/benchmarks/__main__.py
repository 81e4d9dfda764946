"""`make bench`: our cases and the peers' in interleaved rounds, then the table.

    python -m tests.benchmarks [--rounds 3] [--only P1,P2] [--out FILE.jsonl]
    python -m tests.benchmarks --table FILE.jsonl
    python -m tests.benchmarks --own > $BENCH_HOME/../cases_own.json

The last makes the list by which the peers' own harness runs our cases, too.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from tests.benchmarks.plan import OURS, PEERS, ROOT, Case
from tests.benchmarks.table import table

Json = dict[str, Any]
WHERE = """The peers are not here: only our own cases run. To have them beside, put their harness (a
folder with setup.sh, benchlib.py and cases/) somewhere, and name what its setup.sh has filled:
    ./setup.sh && make -C {root} bench BENCH_HOME=$PWD/.env
"""


def home() -> Path | None:
    """Where the peers are."""
    named = os.environ.get("BENCH_HOME")
    found = Path(named).resolve() if named else None
    return found if found and (found.parent / "cases").is_dir() else None


def present(peers: Path | None) -> Iterator[Case]:
    """Ours and the peers' in turns; those that are here."""
    ours = [case for case in OURS if find_spec(case.words[0])]
    for case in chain.from_iterable(zip_longest(ours, PEERS if peers else ())):
        if case is not None:
            yield case


def argv(case: Case, peers: Path | None) -> list[str]:
    if not case.venv:
        return [sys.executable, "-m", *case.words]
    assert peers is not None
    script, *arguments = case.words
    python = str(peers / case.venv / "bin" / "python")
    return [python, str(peers.parent / "cases" / script), *arguments]


def run(case: Case, peers: Path | None) -> tuple[list[Json], str]:
    """(what it printed as RESULT, what went wrong)."""
    env = {**os.environ, "RAY_worker_niceness": "0", "PYTHONWARNINGS": "ignore", **case.env}
    if peers is not None:
        env["BENCH_HOME"] = str(peers)
    place = peers.parent / "cases" if case.venv and peers else ROOT
    process = subprocess.Popen(
        argv(case, peers), env=env, cwd=place, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    wrong = ""
    try:
        printed, _ = process.communicate(timeout=case.limit_s)
    except subprocess.TimeoutExpired:
        wrong = f"over {case.limit_s:.0f} s"
        os.killpg(process.pid, signal.SIGKILL)
        printed, _ = process.communicate()
    results = [json.loads(line[7:]) for line in printed.splitlines() if line.startswith("RESULT ")]
    if not results and not wrong:
        wrong = f"exit {process.returncode}: {printed[-400:]}"
    return results, wrong


def rounds(count: int, only: set[str], out: Path) -> None:
    peers = home()
    if peers is None:
        sys.stderr.write(WHERE.format(root=ROOT))
    cases = [case for case in present(peers) if not only or case.bench in only]
    for number in range(1, count + 1):
        for case in cases:
            if number > case.rounds_max:
                continue
            began = time.monotonic()
            results, wrong = run(case, peers)
            with out.open("a") as file:
                for one in results:
                    file.write(json.dumps({"round": number, "bench": case.bench, **one}) + "\n")
            took = f"{time.monotonic() - began:.0f} s"
            name = " ".join(case.words).removeprefix("tests.benchmarks.")
            sys.stderr.write(f"[{number}] {case.bench} {name}: {took} {wrong}\n")


def own() -> list[Any]:
    """Our cases as the peers' harness reads them."""
    found = []
    for case in OURS:
        if find_spec(case.words[0]):
            module = case.words[0]
            file = str(ROOT / (module.replace(".", "/") + ".py"))
            command = [sys.executable, file, *case.words[1:]]
            env = {"PYTHONPATH": str(ROOT)}
            found.append([case.bench, command, env, case.limit_s, case.rounds_max])
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--only", default="", help="P1,P2,...")
    options.add_argument("--out", type=Path, help="rows as JSON lines; default: in build/")
    options.add_argument("--table", type=Path, help="print the table of an earlier run")
    options.add_argument("--own", action="store_true", help="print cases_own.json")
    given = options.parse_args()
    if given.own:
        sys.stdout.write(json.dumps(own(), indent=1) + "\n")
        return
    out = given.table or given.out or ROOT / "build" / time.strftime("bench-%Y%m%d-%H%M%S.jsonl")
    if not given.table:
        out.parent.mkdir(exist_ok=True)
        rounds(given.rounds, {name for name in given.only.split(",") if name}, out)
        sys.stderr.write(f"rows: {out}\n")
    rows = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    sys.stdout.write(table(rows))


if __name__ == "__main__":
    main()
