"""The department's verifications by their names, for `troupe verify`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from actors.verification.authorization import authorization
from runtime.verify.__main__ import Verification

VERIFICATIONS: Final[Mapping[str, Verification]] = {
    "authorization": ("every operation of the API with every kind of caller", authorization),
}
