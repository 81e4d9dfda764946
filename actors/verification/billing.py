"""What the provider of a chaos run bills: each call of the scripted server, with its price.

The server's own account, in the process that judges, which nobody kills.  A
call is charged when it begins, whether its answer was ever read or not.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from actors.models.prices import PRICES, SCRIPTED_MODEL
from actors.models.request import Json, ModelRequest
from actors.models.script import NoSceneError, Script, answer
from actors.models.scripted import Calls
from runtime.clock import SystemClock

_ROLE: Final = re.compile(r"role: (\w+)")
MARK: Final = re.compile(r"mark-\d+")
"""Names an issue in its title, and so in every conversation about it."""


class Charge(NamedTuple):
    at_ns: int
    role: str
    """Of the agent that asked."""
    mark: str
    digest: str
    cost_usd: float


class Bill(Calls):
    """The server's calls, with what they cost."""

    def __init__(
        self, scripts: tuple[Script, ...], now_ns: Callable[[], int] = time.time_ns
    ) -> None:
        super().__init__(SystemClock())
        self.charges: list[Charge] = []
        self._scripts = scripts
        self._now_ns = now_ns

    def begin(self, request: ModelRequest, body: Json) -> Callable[[str], None]:
        at_ns, mark = self._now_ns(), MARK.search(str(body["messages"][:1]))
        role = _ROLE.search(request.system)
        self.charges.append(
            Charge(
                at_ns,
                role.group(1) if role else "",
                mark.group() if mark else "",
                request.digest(),
                self._cost(request, body),
            )
        )
        return super().begin(request, body)

    def _cost(self, request: ModelRequest, body: Json) -> float:
        try:
            usage = answer(self._scripts, request, body).message["usage"]
        except NoSceneError:  # it is refused, and a refusal costs nothing
            return 0.0
        return cost_usd(usage)


def cost_usd(usage: dict[str, Any]) -> float:
    """By the price list, from what was used."""
    price = PRICES[SCRIPTED_MODEL]
    written = usage["cache_creation"]
    cost: float = (
        usage["input_tokens"] * price.input
        + usage["output_tokens"] * price.output
        + written["ephemeral_5m_input_tokens"] * price.write_5m
        + written["ephemeral_1h_input_tokens"] * price.write_1h
        + usage["cache_read_input_tokens"] * price.read
    ) / 1_000_000
    return cost
