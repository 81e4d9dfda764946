"""What a deployment is: folders, ports, sizes. Nothing here imports ray."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from runtime.errors import SettingsError, TroupeError
from runtime.ids import HOME
from runtime.logs import level_of
from runtime.retention import DAYS_DEFAULT, DAYS_MAX, DAYS_MIN, LEDGER_DAYS_DEFAULT, ROWS_DEFAULT
from runtime.store.contract import BATCH_MAX

NAMESPACE = "troupe"
DEFAULT_ORGANIZATION = HOME
"""Of the local admin key and of `connect()`."""
SOCKET_PATH_MAX = 100
"""The kernel's limit for a Unix socket's path is 107 bytes."""
HOSTS_MAX = 64
DIGITS_MAX = 20
"""Of a whole number; Python refuses to read thousands."""
RAYS_PORTS = range(10_002, 20_000)
"""Ray gives these to its workers and does not start when anything else is to have one."""
MARKER = "TROUPE_SUPERVISED"
"""Set in the environment of every process of a deployment; its value is the data directory."""


class ClusterError(TroupeError):
    """Troupe could not be started or stopped."""


class Companion(msgspec.Struct, frozen=True):
    """A process that runs beside the cluster, such as the scripted model server.

    It is started with `--port N --port-file FILE` appended, is restarted on the
    same port when it dies, and its address is given to the cluster in `url_env`.
    """

    name: str
    argv: tuple[str, ...]
    url_env: str


@dataclass(frozen=True)
class DataDir:
    """Where one deployment keeps everything durable, and its addresses."""

    root: Path

    @property
    def database(self) -> Path:
        return self.root / "troupe.db"

    @property
    def socket(self) -> Path:
        """Of the store; beside the data, or in a private folder when that path is too long."""
        beside = self.root / "store.sock"
        if len(os.fsencode(beside)) <= SOCKET_PATH_MAX:
            return beside
        return self.scratch / "store.sock"

    @property
    def admin_key(self) -> Path:
        return self.root / "admin.key"

    @property
    def ray_token(self) -> Path:
        return self.root / "ray.token"

    @property
    def settings(self) -> Path:
        """What the deployment was last started with; it may hold the password of the store."""
        return self.root / "settings.json"

    @property
    def lock(self) -> Path:
        return self.root / "supervisor.lock"

    @property
    def state(self) -> Path:
        """What the supervisor says of itself, for `up` and `running`."""
        return self.root / "running.json"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def scratch(self) -> Path:
        """A short path, for what holds sockets; ours alone, and nothing in it is needed."""
        digest = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:10]
        return Path("/tmp") / f"troupe-{digest}"  # noqa: S108 - made with mode 0700 and our own

    @property
    def port(self) -> Path:
        """Where replicas get the public port from; a socket."""
        return self.scratch / "port.sock"

    @property
    def ray_temp(self) -> Path:
        """Ray's own folder, which Ray opens to everybody: so it is inside one that is not."""
        return self.scratch / "ray"


class ClusterSettings(msgspec.Struct, frozen=True):
    """Everything the supervisor and the actors need to know."""

    data: str
    """The data directory; absolute."""
    port: int = 8000
    """Of the HTTP API, on loopback."""
    store: str = ""
    """`redis://` or `rediss://` address; empty: SQLite in the data directory."""
    hosts: int = 2
    """Agent hosts, 1..64."""
    hosts_max: int = 0
    """The pool grows up to this many with the queue; 0: it does not."""
    host_cpus: float = 0.0
    """CPUs that Ray keeps for each host; 0: none, as many hosts as you like on one machine."""
    host_labels: tuple[tuple[str, str], ...] = ()
    """Labels of the nodes that hosts may run on, as Ray's label selector takes them."""
    replicas: int = 2
    """Serve replicas of the API; one can die without anybody noticing."""
    agents: str = ""
    """`module:function` that makes the factories of the agents' kinds."""
    application: str = ""
    """`module:name` of the Serve application."""
    watch: str = ""
    """`module:function` that wraps each process's store, given these settings and the store;
    for those that judge a deployment."""
    companions: tuple[Companion, ...] = ()
    model_provider: str = "none"
    max_concurrent: int = 5
    """Jobs at once (SCHEDULER_MAX_CONCURRENT)."""
    max_per_organization: int = 5
    max_per_repository: int = 0
    """Jobs of one organization in one repository at once (TROUPE_MAX_PER_REPOSITORY); 0: none."""
    max_per_key: int = 1
    """Jobs of one organization with one `limitKey` at once (TROUPE_MAX_PER_KEY); 0: no limit."""
    max_retries: int = 3
    """Tries after the first, of a job that does not say (SCHEDULER_MAX_RETRIES)."""
    backoff_base_ms: int = 1_000
    """Longest wait before the first of them (SCHEDULER_BACKOFF_BASE); then twice that, ..."""
    backoff_max_ms: int = 300_000
    """... and never more than this (SCHEDULER_BACKOFF_MAX)."""
    check_interval_ms: int = 10_000
    """Longest sleep of the scheduler (SCHEDULER_CHECK_INTERVAL); what is due wakes it."""
    retention_days: int = DAYS_DEFAULT
    """How long what is over is kept, DAYS_MIN or more (TROUPE_RETENTION_DAYS)."""
    ledger_days: int = LEDGER_DAYS_DEFAULT
    """How long the outcomes of schedules' due times are (TROUPE_LEDGER_DAYS)."""
    retention_rows: int = ROWS_DEFAULT
    """Rows forgotten in one call of the store, 1..1000 (TROUPE_RETENTION_ROWS)."""
    log_level: str = "info"
    """From which level on our log lines are written (LOG_LEVEL)."""
    metrics_port: int = 0
    """Where Ray serves metrics for Prometheus (PROMETHEUS_PORT); 0: a free port."""
    lease_s: float = 10.0
    idle_s: float = 60.0
    cpus: int = 0
    """CPUs told to Ray; 0: as many as there are, at least 2."""

    @property
    def directory(self) -> DataDir:
        return DataDir(Path(self.data))

    def to_json(self) -> bytes:
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, body: bytes | str) -> ClusterSettings:
        return msgspec.json.decode(body, type=cls)

    def write(self) -> Path:
        """Keep them in the data directory, for the supervisor and for commands; the file."""
        file = self.directory.settings
        file.unlink(missing_ok=True)
        file.touch(mode=0o600)
        file.write_bytes(self.to_json())
        return file

    @classmethod
    def read(cls, directory: DataDir) -> ClusterSettings:
        """What the deployment over a data directory was last started with."""
        if not directory.settings.exists():
            return cls(str(directory.root))
        return cls.from_json(directory.settings.read_bytes())

    @classmethod
    def from_env(cls, env: Mapping[str, str], **given: object) -> ClusterSettings:
        """Read the documented variables; `given` wins over them.

        Raises:
            SettingsError: a variable is not a number, is out of range, is no address or
                is below a home that nobody has.
        """
        fields: dict[str, Any] = {
            "data": str(data_root(env)),
            "port": _integer(env, "PORT", 8000, 1, 65_535),
            "store": env.get("REDIS_URL", ""),
            "hosts": _integer(env, "TROUPE_HOSTS", 2, 1, HOSTS_MAX),
            "hosts_max": _integer(env, "TROUPE_HOSTS_MAX", 0, 0, HOSTS_MAX),
            "host_cpus": _number(env, "TROUPE_HOST_CPUS", 0.0),
            "host_labels": _labels(env, "TROUPE_HOST_LABELS"),
            "max_concurrent": _integer(env, "SCHEDULER_MAX_CONCURRENT", 5, 1, 1_000),
            "max_per_organization": _integer(env, "TROUPE_MAX_PER_ORGANIZATION", 5, 1, 1_000),
            "max_per_repository": _integer(env, "TROUPE_MAX_PER_REPOSITORY", 0, 0, 1_000),
            "max_per_key": _integer(env, "TROUPE_MAX_PER_KEY", 1, 0, 1_000),
            "max_retries": _integer(env, "SCHEDULER_MAX_RETRIES", 3, 0, 19),
            "backoff_base_ms": _integer(env, "SCHEDULER_BACKOFF_BASE", 1_000, 1, 3_600_000),
            "backoff_max_ms": _integer(env, "SCHEDULER_BACKOFF_MAX", 300_000, 1, 86_400_000),
            "check_interval_ms": _integer(env, "SCHEDULER_CHECK_INTERVAL", 10_000, 100, 3_600_000),
            "retention_days": _integer(
                env, "TROUPE_RETENTION_DAYS", DAYS_DEFAULT, DAYS_MIN, DAYS_MAX
            ),
            "ledger_days": _integer(
                env, "TROUPE_LEDGER_DAYS", LEDGER_DAYS_DEFAULT, DAYS_MIN, DAYS_MAX
            ),
            "retention_rows": _integer(env, "TROUPE_RETENTION_ROWS", ROWS_DEFAULT, 1, BATCH_MAX),
            "log_level": _level(env, "LOG_LEVEL"),
            "metrics_port": _integer(env, "PROMETHEUS_PORT", 0, 0, 65_535),
            **given,
        }
        settings = cls(**fields)
        if settings.metrics_port in RAYS_PORTS:
            raise SettingsError("PROMETHEUS_PORT", "10002 to 19999 are for Ray's workers")
        if settings.metrics_port == settings.port:
            raise SettingsError("PROMETHEUS_PORT", f"{settings.port} is that of the API, PORT")
        if settings.store:
            _look_at_address(settings.store)
        if settings.backoff_max_ms < settings.backoff_base_ms:
            raise SettingsError("SCHEDULER_BACKOFF_MAX", "is less than SCHEDULER_BACKOFF_BASE")
        return settings


def _look_at_address(url: str) -> None:
    from runtime.store.redis_link import Server  # noqa: PLC0415 - commands start fast without

    try:
        Server(url)
    except SettingsError as error:
        raise SettingsError("REDIS_URL", *error.args[1:]) from error


def data_root(env: Mapping[str, str]) -> Path:
    """`$TROUPE_DATA`, else `~/.local/share/troupe`."""
    named = env.get("TROUPE_DATA")
    if not named:
        return Path.home() / ".local/share/troupe"
    try:
        return Path(named).expanduser().resolve()
    except RuntimeError:
        raise SettingsError("TROUPE_DATA", f"there is no such home directory: {named}") from None


def _level(env: Mapping[str, str], name: str) -> str:
    try:
        return level_of(env.get(name) or "info").lower()
    except ValueError as error:
        raise SettingsError(name, str(error)) from error


def _integer(env: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    text = env.get(name, "").strip()
    if not text:
        return default
    readable = text.isdecimal() and len(text) <= DIGITS_MAX
    if not readable or not low <= int(text) <= high:
        raise SettingsError(name, f"{text!r} is not a whole number from {low} to {high}")
    return int(text)


def _number(env: Mapping[str, str], name: str, default: float) -> float:
    text = env.get(name, "").strip()
    try:
        value = float(text) if text else default
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise SettingsError(name, f"{text!r} is not a number from 0")
    return value


def _labels(env: Mapping[str, str], name: str) -> tuple[tuple[str, str], ...]:
    """`tier=agents,zone=a`."""
    pairs = [part.partition("=") for part in env.get(name, "").split(",") if part.strip()]
    if any(not (key.strip() and value.strip()) for key, _, value in pairs):
        raise SettingsError(name, "labels look like this: tier=agents,zone=a")
    return tuple((key.strip(), value.strip()) for key, _, value in pairs)


@dataclass
class State:
    """The content of `running.json`."""

    phase: str
    """`starting`, `ready`, `stopping` or `failed`."""
    message: str
    pid: int
    url: str
    dashboard_url: str = ""
    ray_address: str = ""
    model_provider: str = "none"
    companions: dict[str, str] = field(default_factory=dict)
    told: bool = False
    """Of `failed`: the message says all there is to know, and no log says more."""

    def write(self, path: Path) -> None:
        """Replace the file in one step, so that a reader never sees a half."""
        fresh = path.with_suffix(".new")
        fresh.write_bytes(msgspec.json.encode(self))
        fresh.replace(path)

    @classmethod
    def read(cls, path: Path) -> State | None:
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except (FileNotFoundError, msgspec.DecodeError):
            return None
