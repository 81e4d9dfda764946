"""The department's settings: what the operator decides, read once from the environment.

Every field has a default that is safe on a laptop.  Ceilings given here are
never exceeded: a repository's `.troupe.yaml` may only ask for less.  Models
have settings of their own (`actors.models.settings`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from actors.models.settings import ModelSettings
from actors.setup.egress import check_host
from runtime.errors import SettingsError
from runtime.job import JobConfig

DATA_DEFAULT = "~/.local/share/troupe"
SAMPLE_DEFAULT = Path(__file__).resolve().parent.parent / "examples" / "sample_repository"
HOSTS_DEFAULT = ("github.com", "gitlab.com", "bitbucket.org", "codeberg.org")


@dataclass(frozen=True)
class DepartmentSettings:
    """What agents may use and spend, and where repositories may be."""

    data_dir: Path = field(default_factory=lambda: Path(DATA_DEFAULT).expanduser())
    """`TROUPE_DATA`: mirrors, workspaces and the store live below it."""
    repository_roots: tuple[Path, ...] = ()
    """`TROUPE_REPOSITORY_ROOTS`, separated by `:`: directories whose repositories may be named
    by path. Empty: none may."""
    repository_hosts: tuple[str, ...] = HOSTS_DEFAULT
    """`TROUPE_REPOSITORY_HOSTS`, separated by `,`: hosts whose https and ssh URLs may be named."""
    repository: str | None = None
    """`TROUPE_REPOSITORY`: where issues that name no repository are worked on."""
    rounds_max: int = 60
    """`TROUPE_ROUNDS_MAX`: model calls of one job."""
    tokens_max: int = 1_500_000
    """`TROUPE_TOKENS_MAX`: tokens of one job, prompts counted at every call."""
    cost_usd_max: float = 2.0
    """`TROUPE_COST_USD_MAX`: dollars of one job."""
    wall_s: float = 2_700.0
    """`TROUPE_WALL_S`: seconds that one job may work; waiting does not count."""
    answer_tokens_max: int = 16_000
    """`TROUPE_ANSWER_TOKENS_MAX`: output tokens of one model call."""
    setup_hosts: tuple[str, ...] = ()
    """`TROUPE_SETUP_HOSTS`, separated by `,`: what `commands.setup` of a repository may load from,
    as `host`, `host:port` or `*.domain`. Empty: it has no network."""
    setup_s: float = 900.0
    """`TROUPE_SETUP_S`: seconds that one run of `commands.setup` may take."""
    cache_days: float = 30.0
    """`TROUPE_CACHE_DAYS`: mirrors and dependencies that nobody used for so long are removed."""
    cache_gb: float = 20.0
    """`TROUPE_CACHE_GB`: what mirrors and dependencies may take on the disk; beyond it those
    unused longest are removed. One setup may make half of it."""
    sample_dir: Path = SAMPLE_DEFAULT
    """The shipped sample repository: the only one that the scripted model serves."""
    model: ModelSettings = field(default_factory=ModelSettings)
    """Which model answers; see `ModelSettings.from_env`."""

    def job_config(self) -> JobConfig:
        """What a job may use and spend, unless its repository's policy asks for less."""
        return JobConfig(
            model=self.model.model if self.model.configured else None,
            max_tokens=self.answer_tokens_max,
            timeout_s=self.wall_s,
            rounds_max=self.rounds_max,
            tokens_max=self.tokens_max,
            cost_usd_max=self.cost_usd_max,
        )

    def allows_repository(self, repository: str) -> bool:
        """Whether the operator lets agents work in a repository, given as a path or a URL.

        A path is followed through every symbolic link first, so a link inside
        an allowed root opens nothing outside of it.
        """
        path = repository.removeprefix("file://")
        if path.startswith("/"):
            real = Path(path).resolve()
            return any(real.is_relative_to(root.resolve()) for root in self.repository_roots)
        host = _host(repository)
        return host is not None and host.lower() in self.repository_hosts

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> DepartmentSettings:
        """Read the variables that the fields name, and the model's.

        Raises:
            SettingsError: a number that is none, not above zero or not whole, a relative
                root, a home that nobody has, no host.
        """
        default = cls()
        named = _split(env, "TROUPE_REPOSITORY_ROOTS", ":")
        roots = [_path("TROUPE_REPOSITORY_ROOTS", part) for part in named]
        for root in roots:
            if not root.is_absolute():
                raise SettingsError(f"TROUPE_REPOSITORY_ROOTS must be absolute paths: {root}")
        hosts = tuple(name.lower() for name in _split(env, "TROUPE_REPOSITORY_HOSTS", ","))
        return cls(
            data_dir=_path("TROUPE_DATA", env.get("TROUPE_DATA") or DATA_DEFAULT).absolute(),
            repository_roots=tuple(roots),
            repository_hosts=hosts or default.repository_hosts,
            repository=env.get("TROUPE_REPOSITORY", "").strip() or None,
            rounds_max=_whole(env, "TROUPE_ROUNDS_MAX", default.rounds_max),
            tokens_max=_whole(env, "TROUPE_TOKENS_MAX", default.tokens_max),
            cost_usd_max=_number(env, "TROUPE_COST_USD_MAX", default.cost_usd_max),
            wall_s=_number(env, "TROUPE_WALL_S", default.wall_s),
            answer_tokens_max=_whole(env, "TROUPE_ANSWER_TOKENS_MAX", default.answer_tokens_max),
            setup_hosts=_hosts(env, "TROUPE_SETUP_HOSTS"),
            setup_s=_number(env, "TROUPE_SETUP_S", default.setup_s),
            cache_days=_number(env, "TROUPE_CACHE_DAYS", default.cache_days),
            cache_gb=_number(env, "TROUPE_CACHE_GB", default.cache_gb),
            model=ModelSettings.from_env(env),
        )


def _host(repository: str) -> str | None:
    """The host of an https or ssh URL, or of `user@host:path`."""
    if "://" in repository:
        try:
            parts = urlsplit(repository)
            return parts.hostname if parts.scheme in ("https", "ssh") else None
        except ValueError:
            return None
    place, colon, _ = repository.partition(":")
    return place.rpartition("@")[2] if colon and "/" not in place else None


def _hosts(env: Mapping[str, str], name: str) -> tuple[str, ...]:
    try:
        return tuple(check_host(part) for part in _split(env, name, ","))
    except ValueError as error:
        raise SettingsError(f"{name}: {error}") from error


def _split(env: Mapping[str, str], name: str, separator: str) -> list[str]:
    return [part.strip() for part in env.get(name, "").split(separator) if part.strip()]


def _path(name: str, text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise SettingsError(f"{name}: there is no such home directory: {text}") from None


def _whole(env: Mapping[str, str], name: str, default: int) -> int:
    value = _number(env, name, default)
    if not value.is_integer():
        raise SettingsError(f"{name} must be a whole number: {env[name].strip()!r}")
    return int(value)


def _number(env: Mapping[str, str], name: str, default: float) -> float:
    text = env.get(name, "").strip()
    try:
        value = float(text) if text else float(default)
    except ValueError as error:
        raise SettingsError(f"{name} must be a number: {text!r}") from error
    if not 0 < value < math.inf:
        raise SettingsError(f"{name} must be above zero: {text!r}")
    return value
