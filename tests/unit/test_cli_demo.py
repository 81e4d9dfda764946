"""`troupe demo`: the sample repository it makes, and its walk against true routes.

The demo with a real agent, sandbox and model script is in tests/acceptance.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.commands import demo
from actors.commands.failures import CommandError
from actors.commands.http import Api, connect
from actors.commands.output import Output
from actors.sample import is_sample
from actors.settings import SAMPLE_DEFAULT
from runtime.cluster import Running
from tests.desk import Desk, desk


@pytest.fixture
def out() -> Output:
    return Output(as_json=False)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Desk]:
    with desk(tmp_path) as made:
        yield made


def git(path: Path, *args: str) -> str:
    done = subprocess.run(["git", "-C", path, *args], check=True, capture_output=True, text=True)
    return done.stdout.strip()


async def test_every_run_starts_from_the_same_commit(tmp_path: Path, out: Output) -> None:
    """The scripted model would refuse a repository that is not the sample."""
    one = await demo.make_repository(tmp_path / "demo", out)
    two = await demo.make_repository(tmp_path / "demo", out)
    assert (one.name, two.name) == ("1", "2")
    assert git(one, "rev-parse", "HEAD") == git(two, "rev-parse", "HEAD")
    assert await is_sample(SAMPLE_DEFAULT, git(one, "rev-parse", "HEAD^{tree}"))
    assert git(one, "status", "--porcelain") == ""
    assert git(one, "log", "-1", "--format=%an <%ae> %ad", "--date=unix") == (
        "Sample <sample@troupe.invalid> 1767225600"
    )


async def test_the_users_own_git_settings_change_nothing(
    tmp_path: Path, out: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signing, templates or hooks of the user would stop the demo, or change its commit."""
    config = tmp_path / "gitconfig"
    config.write_text(
        "[commit]\n\tgpgSign = true\n[core]\n\thooksPath = /nowhere\n\tautocrlf = true"
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other"))
    path = await demo.make_repository(tmp_path / "demo", out)
    assert (path / ".git" / "HEAD").read_text() == "ref: refs/heads/main\n"
    assert "worktree" not in (path / ".git" / "config").read_text()


async def test_the_walk_ends_with_where_everything_is(
    here: Desk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A newcomer would not find what came out of it."""
    out = Output(as_json=False)
    repository = await demo.make_repository(tmp_path / "demo", out)
    async with connect(here.url, here.token, local=True) as http:
        picture = await demo._walk(out, Api(http), repository)
    assert picture.outcome == "completed"
    found = Running(here.url, "http://127.0.0.1:8265", tmp_path, 1, "scripted", "127.0.0.1:6379")
    demo._close(out, found, picture, repository, "7 s")
    told = capsys.readouterr().out
    for part in (
        "+pages = -(-lines // 50)",
        "Approving the change with hash",
        f"git -C {repository} show troupe/1-export",
        "/data/1.patch",
        found.console_url,
        str(tmp_path / "admin.key"),
        "make stop",
        "The model was a script",
    ):
        assert part in told, part


async def test_with_json_the_walk_is_one_object_a_line(
    here: Desk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A program could not run the demo."""
    out = Output(as_json=True)
    repository = await demo.make_repository(tmp_path / "demo", out)
    async with connect(here.url, here.token, local=True) as http:
        picture = await demo._walk(out, Api(http), repository)
    demo._close(out, Running(here.url, "", tmp_path, 1, "scripted", ""), picture, repository, "7 s")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["type"] for line in lines if line["type"] in ("end", "demo")] == [
        "end",
        "end",
        "demo",
    ]
    assert lines[-1]["branch"] == "troupe/1-export"


def test_without_the_checkout_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """From an installed wheel it would end in a traceback."""
    monkeypatch.setattr(demo, "SAMPLE_ISSUE", Path("/nowhere/sample_issue.json"))
    with pytest.raises(CommandError, match="source checkout"):
        demo._check_machine()


def test_without_bubblewrap_it_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent's first command would be refused minutes later."""
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(CommandError, match="bubblewrap") as missing:
        demo._check_machine()
    assert "apt-get install bubblewrap" in (missing.value.hint or "")


async def test_a_full_folder_is_said_to_be_full(
    tmp_path: Path, out: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would look for a free number for ever."""
    monkeypatch.setattr(demo, "RUNS_MAX", 2)
    (tmp_path / "1").mkdir()
    with pytest.raises(CommandError, match="full of earlier runs"):
        await asyncio.to_thread(demo._copy, tmp_path)
