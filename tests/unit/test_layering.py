"""Who may import whom, read from the source by `ast`."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.store import contract, records

ROOT = Path(__file__).resolve().parents[2]
RUNTIME = sorted((ROOT / "runtime").rglob("*.py"))
ACTORS = sorted((ROOT / "actors").rglob("*.py"))

PURE = {
    "agent", "backoff", "clock", "errors", "ids", "job", "journal", "message",
    "wire",
}  # fmt: skip
"""Modules of the runtime that know neither a store nor a loop."""
PUBLIC = PURE | {"client", "keys", "console", "cluster", "store_full", "watching"}
"""What the department may use of the runtime."""
COMMAND_LINE = {"actors/cli.py", "actors/commands", "actors/verification"}
"""The command starts and stops clusters, and verifies them: it may reach for all of the runtime."""


def imports(path: Path) -> list[str]:
    """The dotted names of everything a module imports, wherever in it."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return found


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", RUNTIME, ids=name)
def test_the_runtime_knows_nothing_of_the_department(path: Path) -> None:
    """The runtime could not be used, or read, without the agents built on it."""
    bad = [
        n for n in imports(path) if n.split(".")[0] in ("actors", "serve_app", "anthropic", "git")
    ]
    assert bad == []


@pytest.mark.parametrize("path", RUNTIME + ACTORS, ids=name)
def test_only_the_cluster_imports_ray(path: Path) -> None:
    """Code that runs on Ray only could not be simulated."""
    if name(path).startswith("runtime/cluster/"):
        return
    assert [n for n in imports(path) if n.split(".")[0] == "ray"] == []


@pytest.mark.parametrize("path", [p for p in RUNTIME if p.parent.name == "runtime"], ids=name)
def test_pure_modules_stay_pure(path: Path) -> None:
    """What a state means would depend on where it is kept."""
    if path.stem not in PURE:
        return
    allowed = {f"runtime.{module}" for module in PURE}
    bad = [
        n for n in imports(path)
        if n.startswith("runtime.") and ".".join(n.split(".")[:2]) not in allowed
    ]  # fmt: skip
    assert bad == []
    assert "asyncio" not in imports(path)


@pytest.mark.parametrize("path", ACTORS, ids=name)
def test_the_department_uses_the_public_runtime_only(path: Path) -> None:
    """An agent that reaches into the store or a host could break their invariants."""
    if any(name(path).startswith(place) for place in COMMAND_LINE):
        return
    bad = [
        n for n in imports(path)
        if n.startswith("runtime.") and n.split(".")[1] not in PUBLIC - {"cluster"}
        and n not in ("runtime.AgentJob", "runtime.BaseAgent")
    ]  # fmt: skip
    assert bad == []


@pytest.mark.parametrize("path", RUNTIME, ids=name)
def test_time_and_chance_come_in_as_parameters(path: Path) -> None:
    """A simulation could not repeat a run that asks the machine."""
    if name(path) == "runtime/clock.py" or name(path).startswith("runtime/cluster/"):
        return
    calls = {
        ast.unparse(node.func)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
    }
    forbidden = {"time.time", "time.time_ns", "datetime.now", "random.random", "uuid.uuid4"}
    assert calls & forbidden == set()


def test_the_contract_gives_every_record() -> None:
    """A store's author would have to know in which file a record happens to be written."""
    written = {
        name
        for name, value in vars(records).items()
        if getattr(value, "__module__", None) == records.__name__ or name in ("ABSENT", "ANY")
    }
    assert written <= set(contract.__all__)
    assert all(getattr(contract, name) is getattr(records, name) for name in written)


@pytest.mark.parametrize("path", RUNTIME + ACTORS, ids=name)
def test_whoever_catches_everything_says_why(path: Path) -> None:
    """A defect would be swallowed where nobody has thought of it."""
    lines = path.read_text().splitlines()
    silent = [
        f"line {node.lineno}"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ExceptHandler) and _catches_everything(node)
        and not any("#" in line for line in lines[node.lineno - 1 : node.lineno + 1])
    ]  # fmt: skip
    assert silent == []


def _catches_everything(handler: ast.ExceptHandler) -> bool:
    """It does, and goes on: what is raised again was only passed through."""
    kind = ast.unparse(handler.type) if handler.type else "BaseException"
    again = any(isinstance(node, ast.Raise) and node.exc is None for node in handler.body)
    return kind in ("Exception", "BaseException") and not again


def test_a_host_loads_neither_http_nor_a_models_sdk():
    """A killed host would be back seconds later: each is a second of a processor."""
    looked = "import actors.department, sys; print(*sys.modules)"
    told = subprocess.run([sys.executable, "-c", looked], capture_output=True, text=True, cwd=ROOT)
    loaded = set(told.stdout.split())
    assert "actors.department" in loaded, told.stderr
    assert not loaded & {"anthropic", "fastapi", "starlette", "uvicorn", "ray", "git"}
