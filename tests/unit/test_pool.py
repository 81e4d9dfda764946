"""How many hosts a queue asks for, and where they may be."""

from __future__ import annotations

import pytest

from runtime.cluster.pool import JOBS_A_HOST, wanted
from runtime.cluster.settings import ClusterSettings
from runtime.errors import SettingsError


def test_the_pool_follows_the_queue_between_its_bounds() -> None:
    """Work would wait while machines are to be had, or an idle night cost eight of them."""
    assert [wanted(jobs, 1, 3) for jobs in (0, 1, JOBS_A_HOST, JOBS_A_HOST + 1, 1_000)] == [
        1, 1, 1, 2, 3,
    ]  # fmt: skip
    assert wanted(0, 2, 2) == wanted(99, 2, 2) == 2


def test_labels_and_sizes_come_from_the_environment() -> None:
    """Hosts would be placed where the operator does not want them."""
    env = {"TROUPE_HOST_LABELS": "tier=agents, zone=a", "TROUPE_HOST_CPUS": "1.5"}
    settings = ClusterSettings.from_env(env)
    assert settings.host_labels == (("tier", "agents"), ("zone", "a"))
    assert settings.host_cpus == 1.5
    assert ClusterSettings.from_json(settings.to_json()) == settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TROUPE_HOST_LABELS", "tier"),
        ("TROUPE_HOST_LABELS", "=agents"),
        ("TROUPE_HOST_CPUS", "many"),
        ("TROUPE_HOST_CPUS", "-1"),
        ("TROUPE_HOST_CPUS", "nan"),
        ("TROUPE_HOSTS_MAX", "65"),
    ],
)
def test_a_setting_that_means_nothing_is_refused(name: str, value: str) -> None:
    """Hosts would wait for a node that can't be, without a word."""
    with pytest.raises(SettingsError, match=name):
        ClusterSettings.from_env({name: value})


def test_the_file_with_the_stores_password_is_the_operators_alone(tmp_path) -> None:
    """Whoever has an account on the machine would read every organization's work."""
    settings = ClusterSettings(str(tmp_path), store="redis://:secret@db/0")
    for _ in range(2):
        assert settings.write().stat().st_mode & 0o777 == 0o600
    assert ClusterSettings.read(settings.directory) == settings
