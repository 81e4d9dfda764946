"""The self-test of the sandbox: it refuses whenever one of its walls is missing."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from actors.errors import SandboxError, SandboxMissingError, SandboxRefusedError
from actors.sandbox import Sandbox, command, escape, sandbox
from actors.sandbox.command import Programs
from tests.workshop import SANDBOX, job_tree, needs_root, needs_sandbox

pytestmark = needs_sandbox


async def test_the_report_names_every_attempt_and_what_is_missing() -> None:
    """Nobody could tell what was shown to hold on a machine."""
    report = await SANDBOX.probe()
    assert report.level == "A"
    assert set(report.checks) == {a.__name__ for a in escape.ATTEMPTS} | {"leftovers"}
    assert all(report.checks.values())


def without(*words: str) -> Callable[[list[str]], list[str]]:
    def remove(options: list[str]) -> list[str]:
        at = options.index(words[0])
        assert options[at : at + len(words)] == list(words)
        return options[:at] + options[at + len(words) :]

    return remove


def with_bind(inside: str, outside: str) -> Callable[[list[str]], list[str]]:
    def add(options: list[str]) -> list[str]:
        at = options.index("--remount-ro")
        return [*options[:at], "--ro-bind", outside, inside, *options[at:]]

    return add


@pytest.mark.parametrize(
    ("change", "attempt"),
    [
        (without("--unshare-net"), "network"),
        (with_bind("/etc/shadow", "/etc/passwd"), "files"),
    ],
    ids=["network", "files"],
)
async def test_a_sandbox_without_one_of_its_walls_is_refused(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[list[str]], list[str]], attempt: str
) -> None:
    """Commands would run on a machine where this wall does not hold."""
    real = command.options
    monkeypatch.setattr(sandbox, "options", lambda *args: change(real(*args)))
    with pytest.raises(SandboxRefusedError, match=f"not held: .*{attempt}"):
        await Sandbox().probe()


async def test_a_sandbox_without_its_filter_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """An escape through the kernel would find its calls open."""
    allow_all = struct.pack("HBBI", 0x06, 0, 0, 0x7FFF0000)
    monkeypatch.setattr(sandbox, "program", lambda machine: allow_all)
    with pytest.raises(SandboxRefusedError, match=r"not held: .*system_calls"):
        await Sandbox().probe()


@needs_root
async def test_a_sandbox_that_keeps_its_rights_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command would run as root."""
    monkeypatch.setattr(sandbox, "inner", lambda argv, *rest: list(argv))
    with pytest.raises(SandboxRefusedError, match=r"not held: .*user"):
        await Sandbox().probe()


async def test_a_variable_of_ours_in_the_sandbox_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An API key in the environment of a process inside could be read."""
    monkeypatch.setitem(command.ENVIRONMENT, "ANTHROPIC_API_KEY", "canary")
    with pytest.raises(SandboxRefusedError, match=r"not held: .*environment"):
        await Sandbox().probe()


async def test_without_bubblewrap_the_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A user of a bare machine would not know what to do."""
    real = Programs.find
    monkeypatch.setattr(sandbox.Programs, "find", lambda: real(str(tmp_path)))
    with pytest.raises(SandboxMissingError, match="apt-get install bubblewrap"):
        await Sandbox().run(["true"], workspace=tmp_path)


def test_a_bubblewrap_on_the_path_of_whoever_starts_us_is_not_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A repository could bring its own bubblewrap, which isolates nothing."""
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\nexit 0\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    assert shutil.which("bwrap") == str(fake)
    assert Programs.find().bwrap != str(fake)


async def test_what_bubblewrap_complains_of_is_in_the_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The operator of a machine where it can't work would not learn why."""
    tree = job_tree(tmp_path)
    await SANDBOX.probe()
    real = command.options
    monkeypatch.setattr(sandbox, "options", lambda *args: ["--no-such-option", *real(*args)])
    with pytest.raises(SandboxError, match="no-such-option"):
        await SANDBOX.run(["true"], workspace=tree)


UNPRIVILEGED = """
import asyncio, os
from actors.sandbox import Sandbox

assert os.geteuid() != 0
report = asyncio.run(Sandbox().probe())
print(report.level, all(report.checks.values()))
"""


@needs_root
def test_a_user_without_rights_gets_the_same_sandbox(tmp_path: Path) -> None:
    """Troupe would only be safe, or only run, as root."""
    python = shutil.which("python3", path="/usr/bin")
    version = f"{os.sys.version_info.major}.{os.sys.version_info.minor}"
    if python is None or f"python{version}" not in os.path.realpath(python):
        pytest.skip("needs a system Python of the same version, readable by everybody")
    code = tmp_path / "code"
    root = Path(__file__).parents[2]
    for package in ("actors", "runtime"):
        shutil.copytree(root / package, code / package)
    for parent in [tmp_path, *tmp_path.parents]:
        if parent.name.startswith(("pytest", "popen")) or parent == tmp_path:
            parent.chmod(0o755)
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", python, "-c", UNPRIVILEGED],
        cwd=code, capture_output=True, text=True, check=False,
        env={"PYTHONPATH": f"{code}:{sysconfig.get_paths()['purelib']}", "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    if "Permission denied" in done.stderr and "PYTHON" in done.stderr:
        pytest.skip("the packages are not readable by everybody")
    assert done.stdout.strip() == "A True", done.stderr[-2000:]
