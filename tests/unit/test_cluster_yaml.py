"""cluster.yaml: what `ray up` would be given, checked by Ray's own validation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

FILE = Path(__file__).parents[2] / "cluster.yaml"


@pytest.fixture
def config() -> dict[str, Any]:
    return yaml.safe_load(FILE.read_text())


def test_ray_accepts_the_file(config: dict[str, Any]) -> None:
    """`ray up` would refuse the file before it touches a machine."""
    validate_config(prepare_config(config))


def test_ray_refuses_a_misspelled_key(config: dict[str, Any]) -> None:
    """The validation above would accept anything, and prove nothing."""
    with pytest.raises(Exception, match="setup_comands"):
        validate_config(prepare_config({**config, "setup_comands": []}))


@pytest.mark.parametrize("commands", ["head_start_ray_commands", "worker_start_ray_commands"])
def test_ray_is_never_started_without_its_token(config: dict[str, Any], commands: str) -> None:
    """Ray's ports, open on every interface, would run anybody's code."""
    starts = [line for line in config[commands] if "ray start" in line]
    assert starts
    assert all("RAY_AUTH_MODE=token" in line for line in starts)
    assert "~/.ray/auth_token" in config["file_mounts"]


def test_every_setting_of_the_start_has_its_reason(config: dict[str, Any]) -> None:
    """A reader could not tell what to keep when Ray's defaults change."""
    comments = " ".join(
        line.strip() for line in FILE.read_text().splitlines() if line.strip().startswith("#")
    )
    [start] = [line for line in config["head_start_ray_commands"] if "ray start" in line]
    names = [word.split("=")[0] for word in start.split() if word.startswith("RAY_")]
    assert names
    for name in names:
        assert name in comments or name.startswith(("RAY_health_check_", "RAY_gcs_storage")), name
