"""The package as it is installed: the command is there, starts fast, and brings its files."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def troupe(*args: str, data: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "actors.cli", *args, "--data", str(data)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_the_command_is_the_one_that_is_installed() -> None:
    """`troupe` would not start after an install."""
    module, _, name = PROJECT["project"]["scripts"]["troupe"].partition(":")
    assert callable(getattr(import_module(module), name))


def test_the_command_answers_without_a_running_troupe(tmp_path: Path) -> None:
    """A newcomer's first word would be answered by a traceback."""
    shown = subprocess.run(
        [sys.executable, "-m", "actors.cli", "--help"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert "troupe submit --repo ." in shown.stdout
    stopped = troupe("status", "--json", data=tmp_path)
    assert (stopped.returncode, stopped.stdout) == (3, "")
    assert "troupe up" in json.loads(stopped.stderr)["error"]["hint"]


def test_nothing_to_stop_is_no_failure(tmp_path: Path) -> None:
    """`make stop` would fail in a script that cleans up."""
    done = troupe("down", "--json", data=tmp_path)
    assert done.returncode == 0
    assert json.loads(done.stdout)["stopped"] is False


def test_the_command_starts_without_ray_and_servers() -> None:
    """Each command would take a second to say anything."""
    heavy = ("ray", "anthropic", "fastapi", "uvicorn", "git", "sqlite3", "apsw")
    check = f"import sys, actors.cli; print([m for m in {heavy!r} if m in sys.modules])"
    shown = subprocess.run(
        [sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert shown.stdout.strip() == "[]"


def test_every_file_of_the_packages_is_shipped() -> None:
    """It would work from a checkout and fail from a wheel."""
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["*"]
    tracked = subprocess.run(
        ["git", "ls-files", "runtime", "actors"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    files = [Path(name) for name in tracked if not name.endswith(".py")]
    assert files
    assert [str(f) for f in files if not any(fnmatch(f.name, p) for p in patterns)] == []
    folders = {(ROOT / name).parent for name in tracked}
    assert [str(f) for f in folders if not (f / "__init__.py").exists()] == []


def test_no_file_names_a_registry() -> None:
    """An install would go where the operator's own mirror is not."""
    hosts = re.compile(r"pypi\.org|pythonhosted|npmjs|--index-url|--extra-index|docker\.io")
    names = ("Makefile", ".ci/run", "pyproject.toml", "cluster.yaml", "README.md")
    assert [name for name in names if hosts.search((ROOT / name).read_text())] == []
