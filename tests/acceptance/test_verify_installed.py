"""`troupe verify` on a deployment of its own: what is open, and what is secret."""

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


@pytest.mark.parametrize(("name", "counted"), [("exposure", "listeners"), ("secrets", "sinks")])
def test_an_installation_shows_and_keeps_what_it_must(name: str, counted: str) -> None:
    """A key in a log, or a port without a guard, would be found by somebody else first."""
    before = set(Path(tempfile.gettempdir()).glob("troupe-*"))
    done = subprocess.run(
        [sys.executable, "-m", "actors.cli", "verify", name],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    figure = json.loads(done.stdout.splitlines()[0])
    assert figure[counted] > 10
    assert set(Path(tempfile.gettempdir()).glob("troupe-*")) <= before
