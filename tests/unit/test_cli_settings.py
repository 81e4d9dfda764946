"""Where the command finds Troupe, and whom it gives the key to."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from actors.cli import main
from actors.commands.base import Session
from actors.commands.failures import UnreachableError, WrongUsageError
from actors.commands.output import Output
from actors.commands.settings import CommandSettings, is_loopback, local_key

NOWHERE = {"TROUPE_URL": "", "TROUPE_TOKEN": ""}


@pytest.mark.parametrize(
    ("url", "loopback"),
    [
        ("http://127.0.0.1:8000", True),
        ("http://localhost:8000", True),
        ("http://[::1]:8000", True),
        ("https://troupe.example.org", False),
        ("http://127.0.0.1.example.org", False),
        ("http://localhost.example.org", False),
        ("http://0.0.0.0:8000", False),
        ("nonsense", False),
    ],
)
def test_only_this_machine_is_this_machine(url: str, loopback: bool) -> None:
    """The local admin key would be sent to whoever the address belongs to."""
    assert is_loopback(url) is loopback


async def sent_key(settings: CommandSettings) -> str | None:
    async with Session(settings, Output(as_json=True)).api() as api:
        header: str | None = api._http.headers.get("Authorization")
        return header


async def test_the_admin_key_never_leaves_the_machine(tmp_path: Path) -> None:
    """A TROUPE_URL from a mail would collect admin keys."""
    (tmp_path / "admin.key").write_text("troupe_admin\n")
    here = CommandSettings(url="http://127.0.0.1:1", data=tmp_path)
    elsewhere = CommandSettings(url="https://troupe.example.org", data=tmp_path)
    assert await sent_key(here) == "Bearer troupe_admin"
    assert await sent_key(elsewhere) is None


async def test_a_key_that_was_named_goes_first(tmp_path: Path) -> None:
    """TROUPE_TOKEN would be of no effect on a developer's machine."""
    (tmp_path / "admin.key").write_text("troupe_admin\n")
    settings = CommandSettings(url="http://127.0.0.1:1", token="mine", data=tmp_path)
    assert await sent_key(settings) == "Bearer mine"


async def test_nothing_that_runs_is_said_with_the_next_command(tmp_path: Path) -> None:
    """A newcomer would see a refused connection."""
    with pytest.raises(UnreachableError) as stopped:
        await sent_key(CommandSettings(data=tmp_path))
    assert "not running" in stopped.value.message
    assert "troupe up" in (stopped.value.hint or "")


def test_the_environment_is_read_once_and_empty_means_absent() -> None:
    """`TROUPE_URL= troupe status` would look for a server called nothing."""
    settings = CommandSettings.from_env({"TROUPE_URL": "", "TROUPE_DATA": "~/x"})
    assert settings.url is None
    assert settings.data_path == (Path.home() / "x").resolve()
    assert "secret" not in repr(CommandSettings(environment={"ANTHROPIC_API_KEY": "secret"}))


def test_a_key_that_may_not_be_read_is_none(tmp_path: Path) -> None:
    """Another user of the machine would get a traceback."""
    assert local_key(tmp_path) is None
    (tmp_path / "admin.key").mkdir()
    assert local_key(tmp_path) is None


@pytest.mark.parametrize("url", ["nonsense", "ftp://x", "http://", "http://[1", "http://x:99999"])
async def test_an_address_that_is_none_is_a_usage_error(url: str, tmp_path: Path) -> None:
    """A typing error would be waited for, or end in a traceback."""
    with pytest.raises(WrongUsageError, match="not an address"):
        await sent_key(CommandSettings(url=url, data=tmp_path))


async def test_a_key_that_no_header_can_carry_is_a_usage_error(tmp_path: Path) -> None:
    """A key pasted with a line break would end in a traceback."""
    for token in ("troupe_é", "troupe_a\nX-Evil: 1"):
        with pytest.raises(WrongUsageError, match="characters"):
            await sent_key(CommandSettings(url="http://127.0.0.1:1", token=token, data=tmp_path))


def test_a_data_directory_that_may_not_be_read_is_a_sentence(tmp_path: Path) -> None:
    """Another user's directory would end in a traceback."""
    (tmp_path / "file").write_text("")
    args = ["status", "--data", str(tmp_path / "file" / "x")]
    result = CliRunner().invoke(main, args, env=NOWHERE)
    assert result.exit_code == 1
    assert "Not a directory" in result.stderr


def test_an_interrupted_command_says_that_the_work_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user would fear that Ctrl-C had stopped the agent."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("actors.commands.base.running", interrupted)
    result = CliRunner().invoke(main, ["issues"], env=NOWHERE)
    assert result.exit_code == 130
    assert "goes on" in result.stderr
