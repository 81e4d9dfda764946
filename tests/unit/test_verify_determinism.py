"""The runtime asks for time and chance: what would make a seeded run unrepeatable is not called."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2] / "runtime"
MACHINE = (
    "cluster/",
    "console/",
    "verify/",
    "store/sqlite",
    "store/redis",
    "store/backup",
    "store/restore",
    "watching",
)
"""Where the machine is: shells, HTTP and its client, verification itself, stores with threads and
files."""
ASKED_HERE = {"clock.py", "ids.py", "keys.py", "store/memory.py"}
"""Where the machine's clock and randomness are the default of a parameter."""
FORBIDDEN = {
    "time": {"time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "sleep"},
    "datetime": {"now", "utcnow", "today"},
    "os": {"urandom", "getpid"},
    "asyncio": {"to_thread"},
}
UNWANTED = {"random", "uuid", "secrets", "threading", "concurrent"}
"""Modules that the runtime has no use for."""


def simulated() -> list[Path]:
    found = [path for path in ROOT.rglob("*.py") if not _name(path).startswith(MACHINE)]
    return sorted(found)


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", simulated(), ids=_name)
def test_time_and_chance_are_asked_for(path) -> None:
    """A run under simulation could not be repeated, and a failing seed would not fail again."""
    tree = ast.parse(path.read_text())
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported & UNWANTED == set()
    if _name(path) in ASKED_HERE:
        return
    used = {
        f"{node.value.id}.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    bad = {f"{module}.{name}" for module, names in FORBIDDEN.items() for name in names}
    assert used & bad == set()


@pytest.mark.parametrize("path", simulated(), ids=_name)
def test_nothing_is_gone_through_in_the_order_of_hashes(path) -> None:
    """Two processes would do the same things in another order."""
    tree = ast.parse(path.read_text())
    loops = [node.iter for node in ast.walk(tree) if isinstance(node, ast.For | ast.comprehension)]
    sets = [node for node in loops if isinstance(node, ast.Set | ast.SetComp)]
    differences = [
        node
        for node in loops
        if isinstance(node, ast.BinOp)
        and isinstance(node.op, ast.Sub | ast.BitAnd)
        and ".keys()" in ast.unparse(node)
    ]
    assert [ast.unparse(node) for node in sets + differences] == []
