"""`troupe chaos`, as an operator types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.mark.parametrize("store", ["sqlite", "redis"])
def test_a_short_storm_is_survived_and_leaves_nothing_behind(store: str) -> None:
    """An operator's own proof would fail on a healthy machine, or litter it."""
    before = set(Path(tempfile.gettempdir()).glob("troupe-*"))
    words = ["chaos", "--minutes", "0.5", "--processes", "--store", store, "--seed", "5"]
    done = subprocess.run(
        [sys.executable, "-m", "actors.cli", *words],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    figure = json.loads(done.stdout.splitlines()[0])
    assert (figure["violations"], figure["tooLittle"]) == (0, [])
    assert figure["strikes"] >= 2
    assert not {"I12", "I20", "I22 budgets"} & set(figure["rulesNotJudged"])
    assert figure["department"]["arrived"] >= 1
    assert set(Path(tempfile.gettempdir()).glob("troupe-*")) <= before
