"""Writes units: those of a commit together, told of once they are there.

A commit whose answer was lost is repeated, and refused if it had landed.  What it
has written shows that: only this life of the scheduler acknowledges what it has
heard, and starts a job at a revision.  What is to be done about a refusal that is
one is the dispatcher's business.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from runtime.errors import StoreError, UndoneError
from runtime.jobs.decisions import Decision
from runtime.jobs.rounds import UNWRITABLE, Unit
from runtime.jobs.seat import Seat
from runtime.observed import Observed
from runtime.patience import patiently
from runtime.store.contract import Store

logger = logging.getLogger(__name__)

CONFLICT: Final = "revision_conflict"


class UnitWriter:
    """One for each life of a scheduler."""

    def __init__(self, store: Store, seat: Seat, observed: Observed) -> None:
        self._store = store
        self._seat = seat
        self._observed = observed

    async def written(self, part: Sequence[Unit]) -> str | None:
        """Write units in one commit; why that was refused, or UNWRITABLE."""
        try:
            return await self.write(part)
        except UndoneError:  # this life has heard of what is not so
            raise
        except (StoreError, ValueError) as error:
            if len(part) == 1:
                _unwritable(part[0], error)
            return UNWRITABLE

    async def write(self, part: Sequence[Unit]) -> str | None:
        """Write units in one commit; why that was refused.

        Raises:
            FencedError, StoreError, ValueError: as `Seat.write`.
        """
        whole = Decision()
        for unit in part:
            whole.puts += unit.decision.puts
            whole.sends += unit.decision.sends
            whole.feed += unit.decision.feed
        acks = tuple(ack for unit in part if (ack := unit.ack) is not None)
        refused = await self._seat.write(whole, acks)
        if refused is not None and not await self._landed(part, refused):
            return refused
        self._observed.saw(part)
        return None

    async def _landed(self, part: Sequence[Unit], refused: str) -> bool:
        """Whether a commit that was refused is there; of one that nobody counts, not told."""
        for unit in part:
            if unit.heard is not None:
                return await self._seat.is_acknowledged(unit.heard.stored.message_id)
            if unit.starts is not None and refused == CONFLICT:
                run = unit.decision.sends[0]
                found = await patiently(self._store.outcome, run.recipient, run.message_id, 0)
                return found is not None
        return False


def _unwritable(unit: Unit, error: Exception) -> None:
    what = unit.heard.stored.message_id if unit.heard is not None else unit.starts or "a change"
    logger.critical(
        "what is decided on %s can't be written: %s",
        what,
        error,
        extra={"action": "job.unwritable", "about": what},
    )
