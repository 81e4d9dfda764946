"""Where the command finds Troupe: an address, a key and the data directory.

The admin key in the data directory opens the local Troupe alone: it is never
sent to another machine, whatever the address says.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from runtime.errors import SettingsError

KEY_NAME = "admin.key"
DATA_DEFAULT = "~/.local/share/troupe"


@dataclass(frozen=True)
class CommandSettings:
    """What the environment says; an option on the command line goes first."""

    url: str | None = None
    """`TROUPE_URL`: a Troupe elsewhere; default: the one started from `data`."""
    token: str | None = None
    """`TROUPE_TOKEN`: a bearer key; default: the local admin key."""
    data: Path = Path(DATA_DEFAULT)
    """`TROUPE_DATA`: the data directory."""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """All of it: what `troupe up` gives to the processes it starts."""

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> CommandSettings:
        return cls(
            url=environ.get("TROUPE_URL") or None,
            token=environ.get("TROUPE_TOKEN") or None,
            data=Path(environ.get("TROUPE_DATA") or DATA_DEFAULT),
            environment=environ,
        )

    @property
    def data_path(self) -> Path:
        """The data directory, absolute.

        Raises:
            SettingsError: it is below a home that nobody has.
        """
        try:
            return self.data.expanduser().resolve()
        except RuntimeError:
            raise SettingsError(
                "TROUPE_DATA", f"there is no such home directory: {self.data}"
            ) from None


def local_key(data: Path) -> str | None:
    """The admin key that `troupe up` wrote, if this user may read it."""
    try:
        return (data / KEY_NAME).read_text().strip() or None
    except OSError:
        return None


def is_loopback(url: str) -> bool:
    """Whether an address can only be this machine."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
