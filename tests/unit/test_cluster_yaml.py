"""cluster.yaml and its kin: what `ray up` would be given, checked by Ray's own validation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from runtime.cluster.settings import ClusterSettings

ROOT = Path(__file__).parents[2]
FILE = ROOT / "cluster.yaml"
CLOUD = ROOT / "examples" / "cluster_aws.yaml"


def read(file: Path) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(file.read_text())
    return config


@pytest.fixture(params=[FILE, CLOUD], ids=["machines", "cloud"])
def config(request: pytest.FixtureRequest) -> dict[str, Any]:
    return read(request.param)


def test_ray_accepts_the_file(config: dict[str, Any]) -> None:
    """`ray up` would refuse the file before it touches a machine."""
    validate_config(prepare_config(config))


def test_hosts_find_the_label_they_ask_for() -> None:
    """With the settings the comments name, every host would wait for a node for ever."""
    for file in (FILE, CLOUD):
        assert "TROUPE_HOST_LABELS=tier=agents" in file.read_text()
    [start] = [line for line in read(FILE)["worker_start_ray_commands"] if "ray start" in line]
    assert "--labels=tier=agents" in start
    types = read(CLOUD)["available_node_types"]
    assert [name for name, made in types.items() if made.get("labels")] == ["worker"]
    assert types["worker"]["labels"] == {"tier": "agents"}


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


@pytest.mark.parametrize("commands", ["head_start_ray_commands", "worker_start_ray_commands"])
def test_every_node_is_told_the_settings(config: dict[str, Any], commands: str) -> None:
    """An agent on a worker would not know the model's key, and wait for it for ever."""
    [start] = [line for line in config[commands] if "ray start" in line]
    assert ". ~/.config/troupe/env" in start
    assert "~/.config/troupe/env" in config["file_mounts"]


def test_every_setting_of_the_start_has_its_reason() -> None:
    """A reader could not tell what to keep when Ray's defaults change."""
    comments = " ".join(
        line.strip() for line in FILE.read_text().splitlines() if line.strip().startswith("#")
    )
    [start] = [line for line in read(FILE)["head_start_ray_commands"] if "ray start" in line]
    names = [word.split("=")[0] for word in start.split() if word.startswith("RAY_")]
    assert names
    for name in names:
        assert name in comments or name.startswith(("RAY_health_check_", "RAY_gcs_storage")), name


def test_the_kubernetes_manifest_asks_for_what_troupe_needs() -> None:
    """Hosts would find no node, run no command, or lose what Redis had accepted."""
    service, redis, address = yaml.safe_load_all((ROOT / "examples" / "kuberay.yaml").read_text())
    cluster = service["spec"]["rayClusterConfig"]
    assert cluster["authOptions"] == {"mode": "token"}
    application = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"][0]
    assert application["import_path"] == "serve_app:app"
    [group] = cluster["workerGroupSpecs"]
    [worker] = group["template"]["spec"]["containers"]
    told = {one["name"]: one["value"] for one in worker["env"]}
    settings = ClusterSettings.from_env(told)
    assert dict(settings.host_labels) == group["labels"]
    assert settings.host_cpus <= float(worker["resources"]["requests"]["cpu"])
    assert settings.hosts_max == group["maxReplicas"]
    assert worker["securityContext"]["capabilities"]["add"] == ["SYS_ADMIN"]
    [server] = redis["spec"]["template"]["spec"]["containers"]
    said = dict(zip(server["args"][::2], server["args"][1::2], strict=True))
    assert said == {
        "--appendonly": "yes",
        "--appendfsync": "always",
        "--maxmemory-policy": "noeviction",
    }
    name = f"{address['metadata']['name']}:{address['spec']['ports'][0]['port']}"
    assert cluster["gcsFaultToleranceOptions"]["redisAddress"] == name
