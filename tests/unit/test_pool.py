"""How many hosts a queue asks for, and where they may be."""

from __future__ import annotations

import pytest

from runtime.backoff import Backoff
from runtime.clock import ManualClock
from runtime.cluster.actors import scheduler_of
from runtime.cluster.pool import JOBS_A_HOST, wanted
from runtime.cluster.settings import ClusterSettings
from runtime.errors import SettingsError
from runtime.schedule.queue import Limits
from runtime.store.memory import MemoryStore
from runtime.store.redis_link import Server


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


def test_the_schedulers_variables_are_honoured() -> None:
    """An operator's limits and waits would be read by nobody."""
    env = {
        "SCHEDULER_CHECK_INTERVAL": "60000",
        "SCHEDULER_MAX_CONCURRENT": "7",
        "SCHEDULER_MAX_RETRIES": "0",
        "SCHEDULER_BACKOFF_BASE": "250",
        "SCHEDULER_BACKOFF_MAX": "1000",
        "TROUPE_MAX_PER_REPOSITORY": "2",
        "TROUPE_MAX_PER_KEY": "3",
        "LOG_LEVEL": "WARN",
        "PROMETHEUS_PORT": "9090",
    }
    settings = ClusterSettings.from_env(env)
    assert (settings.max_concurrent, settings.max_retries) == (7, 0)
    assert (settings.max_per_repository, settings.max_per_key) == (2, 3)
    assert (settings.check_interval_ms, settings.log_level) == (60_000, "warning")
    assert settings.metrics_port == 9_090
    made = scheduler_of(settings, MemoryStore(ManualClock()), ManualClock(), "scheduler")
    assert made._check_s == 60.0
    assert made._desk._attempts_max == 1
    assert made._desk._backoff == Backoff(0.25, 1.0)
    assert made._limits == Limits(7, 5, 2, 1, 3)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TROUPE_HOST_LABELS", "tier"),
        ("TROUPE_HOST_LABELS", "=agents"),
        ("TROUPE_HOST_CPUS", "many"),
        ("TROUPE_HOST_CPUS", "-1"),
        ("TROUPE_HOST_CPUS", "nan"),
        ("TROUPE_HOSTS_MAX", "65"),
        ("SCHEDULER_MAX_RETRIES", "-1"),
        ("SCHEDULER_BACKOFF_BASE", "1s"),
        ("SCHEDULER_BACKOFF_MAX", "999"),
        ("SCHEDULER_CHECK_INTERVAL", "0"),
        ("PROMETHEUS_PORT", "99999"),
        ("PROMETHEUS_PORT", "10002"),
        ("LOG_LEVEL", "loud"),
        pytest.param("SCHEDULER_CHECK_INTERVAL", "9" * 5_000, id="thousands of digits"),
        ("TROUPE_DATA", "~nobody-has-this-name/troupe"),
        ("REDIS_URL", "redis://h/abc"),
        ("REDIS_URL", "redis://h/3x"),
        ("REDIS_URL", "redis://h/1/2"),
        ("REDIS_URL", "redis://h/-3"),
        ("REDIS_URL", "redis://h?db=-3"),
    ],
)
def test_a_setting_that_means_nothing_is_refused(name: str, value: str) -> None:
    """Hosts would wait for a node that can't be, without a word."""
    with pytest.raises(SettingsError, match=name):
        ClusterSettings.from_env({name: value})


@pytest.mark.parametrize(
    ("url", "database"),
    [
        ("redis://h", 0),
        ("redis://h/", 0),
        ("redis://h/3", 3),
        ("rediss://h:1/3/", 3),
        ("redis://h?db=3", 3),
        ("unix:///run/redis.sock?db=3", 3),
    ],
)
def test_a_redis_url_names_its_database(url: str, database: int) -> None:
    """An operator's address would be refused, or another database be written to."""
    assert ClusterSettings.from_env({"REDIS_URL": url}).store == url
    assert Server(url).where.endswith(f"database {database}")


def test_the_file_with_the_stores_password_is_the_operators_alone(tmp_path) -> None:
    """Whoever has an account on the machine would read every organization's work."""
    settings = ClusterSettings(str(tmp_path), store="redis://:secret@db/0")
    for _ in range(2):
        assert settings.write().stat().st_mode & 0o777 == 0o600
    assert ClusterSettings.read(settings.directory) == settings
