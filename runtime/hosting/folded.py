"""One agent's state: what its journal says, and what its handlers have made of it since.

    journal --fold--> committed  <--diff-- agent.state (a handler may have changed it)

`committed` is the fold at `version`.  A turn compares the agent's state with it
and, once that is durable, `advance`s; `restore` throws away what a handler did.
"""

from __future__ import annotations

import json

from runtime.agent import AgentState, BaseAgent
from runtime.errors import HistoryForgottenError
from runtime.journal import Patch, State, diff, fold
from runtime.patience import patiently
from runtime.store import contract
from runtime.store.contract import Snapshot, Store
from runtime.turn import to_json


class Folded:
    """The state of an agent that is live in memory."""

    __slots__ = ("_clean", "address", "agent", "committed", "saved", "version")

    def __init__(self, claimed: contract.Activation, agent: BaseAgent) -> None:
        """Load what the claim's answer brought."""
        self.address = claimed.agent
        self.agent = agent
        self.version = claimed.version
        self.saved = claimed.snapshot_version
        """The version of the latest snapshot."""
        self.committed = self._fold(claimed.snapshot, claimed.events)
        """The journal's fold; of a new agent nothing, so that its first event has all of it."""
        self._clean: State = {}
        """The state as the agent was given it, for telling whether it has changed."""
        self.restore()

    def restore(self) -> None:
        """Give the agent the committed state again."""
        self.agent.state = self.agent.State.model_validate(self.committed)
        self._clean = _dumped(self.agent.state)

    def change(self) -> tuple[State, Patch]:
        """The agent's state as it is now, and what makes it of the committed one."""
        after = _dumped(self.agent.state)
        return after, diff(self.committed, after)

    def advance(self, after: State, version: int, saved: bool) -> None:
        """What a turn made of the state is durable, with a snapshot or without."""
        self.version = version
        self.committed = self._clean = after
        if saved:
            self.saved = version

    @property
    def is_clean(self) -> bool:
        """Whether the agent's state is just what is durable; never during a turn."""
        return _dumped(self.agent.state) == self._clean

    def snapshot(self, state: State) -> Snapshot:
        return Snapshot(to_json(state), self.agent.schema_version)

    def is_due(self, new_events: int) -> bool:
        """Whether the journal's tail, with so many more events, is due for a snapshot."""
        return self.version - self.saved + new_events >= contract.SNAPSHOT_EVERY

    async def at(self, version: int | None, store: Store) -> State:
        """The state after the journal's event `version`; None: the committed one.

        Raises:
            HistoryForgottenError: the journal does not reach back to its beginning any more.
        """
        if version is None:
            return dict(self.committed)
        events: list[contract.JournalEvent] = []
        while len(events) < version:
            after = len(events)
            page = await patiently(store.journal, self.address, after, contract.BATCH_MAX)
            if page and page[0].version != len(events) + 1:
                raise HistoryForgottenError(self.address, page[0].version)
            if not page:
                break
            events.extend(page)
        if len(events) < min(version, self.version):
            raise HistoryForgottenError(self.address, self.version)
        return self._fold(None, tuple(events[:version]))

    def _fold(self, snapshot: Snapshot | None, events: tuple[contract.JournalEvent, ...]) -> State:
        base = (json.loads(snapshot.body), snapshot.schema) if snapshot else None
        return fold(
            base,
            ((event.body, event.schema) for event in events),
            self.agent.schema_version,
            self.agent.upcasters,
        )


def _dumped(state: AgentState) -> State:
    """What `model_dump(mode="json")` makes of it, at a quarter of the cost."""
    dumped: State = state.__pydantic_serializer__.to_python(state, mode="json")
    return dumped
