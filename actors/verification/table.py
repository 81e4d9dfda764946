"""The department's verifications by their names, for `troupe verify`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from actors.verification.authorization import authorization
from actors.verification.exposure import exposure
from actors.verification.secrets import secrets
from runtime.verify.__main__ import Verification

VERIFICATIONS: Final[Mapping[str, Verification]] = {
    "authorization": ("every operation of the API with every kind of caller", authorization),
    "exposure": ("what a neighbour can reach of a deployment of its own", exposure),
    "secrets": ("canaries, searched for in all that a deployment writes and tells", secrets),
}
