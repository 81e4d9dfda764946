"""The commands on the machine that Troupe runs on: it is found, keys are made, roots are safe."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from actors.cli import main
from actors.commands.deployment import KNOWN, ROOTS, deployment, environment, ignored, slips
from actors.commands.lifecycle import say_others, start_here
from actors.commands.output import Output
from actors.commands.settings import CommandSettings
from runtime.cluster import Running, running
from runtime.cluster.processes import held
from runtime.cluster.settings import ClusterSettings, DataDir, State, data_root
from tests.desk import Desk, desk

NOBODY = {"TROUPE_URL": "", "TROUPE_TOKEN": "", "TROUPE_GITHUB_SECRETS": "", "REDIS_URL": ""}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data").resolve()


@pytest.fixture(scope="module")
def machine(data: Path) -> Iterator[Desk]:
    with desk(data, data) as made:
        yield made


def typed(data: Path, *args: str, code: int = 0) -> Result:
    env = {"TROUPE_DATA": str(data), "TROUPE_URL": "", "TROUPE_TOKEN": ""}
    result = CliRunner().invoke(main, args, env=env, catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


def read(data: Path, *args: str) -> Any:
    return json.loads(typed(data, *args, "--json").stdout)


def test_the_troupe_of_this_machine_is_found_with_its_key(machine: Desk, data: Path) -> None:
    """Every command would need an address and a key."""
    told = typed(data, "status").stdout
    assert machine.url in told
    assert str(data / "admin.key") in told
    assert "the scripted one answers" in told
    assert read(data, "status")["modelProvider"] == "scripted"


def test_a_running_troupe_is_left_as_it_is(machine: Desk, data: Path) -> None:
    """`troupe up` in a start script would restart what runs."""
    found = read(data, "up")
    assert (found["started"], found["url"]) == (False, machine.url)
    assert "runs already" in typed(data, "up").stdout


def test_keys_are_made_listed_and_revoked(machine: Desk, data: Path) -> None:
    """Nobody but the administrator could use Troupe."""
    made = read(
        data, "keys", "create", "--organization", "acme", "--role", "viewer", "--name", "ci"
    )
    assert made["token"].startswith("troupe_")
    listed = {key["id"]: key for key in read(data, "keys", "list", "--organization", "acme")}
    assert listed[made["id"]]["role"] == "viewer"
    assert all("token" not in key and "sha256" not in key for key in listed.values())
    refused = CliRunner().invoke(
        main, ["cancel", "issue_1"], env={"TROUPE_URL": machine.url, "TROUPE_TOKEN": made["token"]}
    )
    assert refused.exit_code == 4
    typed(data, "keys", "revoke", made["id"])
    assert "revoked" in typed(data, "keys").stdout
    typed(data, "keys", "revoke", "key_none", code=1)


def test_a_key_alone_is_on_standard_output(machine: Desk, data: Path) -> None:
    """`TROUPE_TOKEN=$(troupe keys create)` would hold a sentence."""
    result = typed(data, "keys", "create")
    assert result.stdout.startswith("troupe_")
    assert result.stdout.count("\n") == 1


@pytest.mark.parametrize(
    "args", [("--organization", "a/b"), ("--organization", ""), ("--name", "a\nb"), ("--name", "")]
)
def test_a_key_for_an_impossible_name_is_a_usage_error(
    machine: Desk, data: Path, args: tuple[str, ...]
) -> None:
    """The user would get a traceback."""
    typed(data, "keys", "create", *args, code=2)


def test_keys_need_a_running_troupe(tmp_path: Path) -> None:
    """The user would get a missing socket."""
    assert "troupe up" in typed(tmp_path, "keys", code=3).stderr


def test_a_troupe_that_is_starting_is_not_said_to_be_none(tmp_path: Path) -> None:
    """Whoever looks from another terminal would start it a second time, or think that it failed."""
    directory = DataDir(tmp_path.resolve())
    State("starting", "Starting Ray", 1, "http://127.0.0.1:1").write(directory.state)
    with held(directory.lock):
        assert "is just starting here" in typed(tmp_path, "status", code=3).stderr
    assert "is not running here" in typed(tmp_path, "status", code=3).stderr


def test_repositories_are_allowed_below_home_and_data_unless_said_otherwise(tmp_path: Path) -> None:
    """The API would be a way to read the whole disk, or none to work on one's own code."""
    roots = environment(tmp_path, {})[ROOTS].split(os.pathsep)
    assert roots == [str(Path.home()), str(tmp_path)]
    assert environment(tmp_path, {ROOTS: "/srv/git"})[ROOTS] == "/srv/git"


@pytest.mark.parametrize(
    ("env", "provider", "companions"),
    [
        ({}, "scripted", 1),
        ({"ANTHROPIC_API_KEY": "k"}, "anthropic", 0),
        ({"ANTHROPIC_BASE_URL": "http://127.0.0.1:9"}, "compatible", 0),
    ],
)
def test_the_script_runs_only_where_there_is_no_model(
    tmp_path: Path, env: dict[str, str], provider: str, companions: int
) -> None:
    """A key would be ignored, or work paid for would be played."""
    found = deployment(tmp_path, 8000, 2, env)
    assert (found.model_provider, len(found.companions)) == (provider, companions)


def test_a_model_that_came_later_is_noticed(
    machine: Desk, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a new key the user would go on waiting for the script."""
    found = running(data)
    assert found is not None
    settings = CommandSettings(data=data, environment={"ANTHROPIC_API_KEY": "k"})
    say_others(settings, Output(as_json=False), found)
    assert "troupe down" in capsys.readouterr().err
    say_others(CommandSettings(data=data), Output(as_json=False), found)
    assert capsys.readouterr().err == ""


def test_settings_that_what_runs_does_not_have_are_named(machine: Desk, data: Path) -> None:
    """An operator would go on with a limit, a port or a store that nothing heeds."""
    directory = DataDir(data)
    ClusterSettings(str(data), port=8123).write()
    try:
        env = {"TROUPE_DATA": str(data), "TROUPE_MAX_PER_KEY": "7", "TROUPE_MODEL": ""}
        args = ["up", "--port", "8124", "--hosts", "2"]
        result = CliRunner().invoke(main, args, env=env, catch_exceptions=False)
        assert "PORT, TROUPE_MAX_PER_KEY." in result.stderr
        assert "troupe down" in result.stderr
        told = json.loads(CliRunner().invoke(main, ["up", "--json"], env=env).stdout)
        assert told["ignored"] == ["TROUPE_MAX_PER_KEY"]
        assert read(data, "up")["ignored"] == []
    finally:
        directory.settings.unlink()


def test_only_what_would_be_otherwise_is_called_ignored() -> None:
    """Who types what is so anyway, or what is no setting, would be sent to restart it."""
    ran = {"PORT": "8001", "TROUPE_ROUNDS_MAX": "9", "REDIS_URL": "", "TROUPE_DATA": "/a"}
    assert ignored({**ran, "TROUPE_DATA": "/b", "TROUPE_TOKEN": "t"}, ran) == []
    same = {"TROUPE_HOSTS": "2", "SCHEDULER_MAX_RETRIES": "3", "TROUPE_REPOSITORY_HOSTS": ""}
    assert ignored(same, ran) == []
    other = {"PORT": "8002", "ANTHROPIC_API_KEY": "k", "TROUPE_CACHE_GB": "5", "LOG_LEVEL": "debug"}
    assert ignored(other, ran) == sorted(other)
    assert ignored({"TROUPE_GITHUB_SECRETS": '{"default": "s"}'}, {}) == ["TROUPE_GITHUB_SECRETS"]
    both = {"SCHEDULER_BACKOFF_BASE": "400000", "SCHEDULER_BACKOFF_MAX": "500000"}
    assert ignored(both, ran) == sorted(both)


def test_a_setting_that_can_not_be_used_is_a_usage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user would read a traceback of the supervisor."""
    monkeypatch.setenv("SCHEDULER_MAX_CONCURRENT", "many")
    assert "SCHEDULER_MAX_CONCURRENT" in typed(tmp_path, "up", code=2).stderr


def test_the_command_and_the_cluster_mean_the_same_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One would start what the other does not find."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for env in ({"TROUPE_DATA": str(tmp_path / "link")}, {}):
        assert CommandSettings.from_env(env).data_path == data_root(env)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("REDIS_URL", "http://:secret@127.0.0.1", "REDIS_URL"),
        ("REDIS_URL", "redis://localhost:63x", "REDIS_URL"),
        ("PROMETHEUS_PORT", "8000", "PROMETHEUS_PORT"),
        ("TROUPE_GITHUB_SECRETS", "secret", "TROUPE_GITHUB_SECRETS"),
        ("TROUPE_REPOSITORY_ROOTS", "relative/folder", "TROUPE_REPOSITORY_ROOTS"),
        ("SCHEDULER_MAX_CONCURRENT", "many", "SCHEDULER_MAX_CONCURRENT"),
        ("TROUPE_DATA", "~nobody-has-this-name/t", "TROUPE_DATA"),
        ("PORT", "abc", "'PORT'"),
        ("PORT", "0", "'PORT'"),
        ("TROUPE_HOSTS", "many", "'TROUPE_HOSTS'"),
    ],
)
def test_a_setting_that_can_not_be_used_is_told_before_anything_starts(
    tmp_path: Path, name: str, value: str, told: str
) -> None:
    """It would be a stack trace, half a minute later, from a process nobody asked about."""
    env = {**NOBODY, "TROUPE_DATA": str(tmp_path), "PORT": "8000", name: value}
    result = CliRunner().invoke(main, ["up"], env=env)
    assert (result.exit_code, result.stdout) == (2, "")
    assert told in result.stderr
    assert "Traceback" not in result.stderr
    assert "secret" not in result.stderr.replace("a secret", "")
    assert not (tmp_path / "logs").exists()


def test_the_demo_listens_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`PORT=8001 make run` would find 8000 taken, and `troupe up` afterwards be another one."""
    asked: list[ClusterSettings] = []
    started = Running("http://127.0.0.1:8001", "", tmp_path, 1, "scripted", "")

    def start(settings: ClusterSettings, **_: Any) -> Running:
        asked.append(settings)
        return started

    monkeypatch.setattr("actors.commands.lifecycle.start", start)
    env = {"PORT": "8001", "TROUPE_HOSTS": "3"}
    start_here(CommandSettings(data=tmp_path, environment=env), Output(as_json=True))
    start_here(CommandSettings(data=tmp_path, environment={}), Output(as_json=True))
    assert [(one.port, one.hosts) for one in asked] == [(8001, 3), (8000, 2)]


def test_a_slip_in_a_settings_name_is_told() -> None:
    """A limit would silently not hold."""
    env = {"SCHEDULER_MAX_CONCURENT": "2", "SCHEDULER_KAFKA": "1", "TROUPE_SUPERVISED": "x"}
    assert slips(env) == {"SCHEDULER_MAX_CONCURENT": "SCHEDULER_MAX_CONCURRENT"}


def test_every_setting_of_the_manual_is_known_and_no_other() -> None:
    """A setting that is right would be called a slip, or the manual would lack one."""
    manual = Path(__file__).resolve().parents[2] / "docs" / "operations.md"
    table = manual.read_text().partition("\n## Environment\n")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`[A-Z_`, ]+`) \|", table, re.MULTILINE)
    assert {name for cell in cells for name in re.findall(r"[A-Z_]+", cell)} == KNOWN
