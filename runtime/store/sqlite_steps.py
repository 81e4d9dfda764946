"""Steps in SQLite: what a group of commits needs of them, and what it changes.

`load` reads the steps a group names, the rules look at them here, `flush`
writes what changed.  Between two groups nothing is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from apsw import Cursor

from runtime.store.contract import Intent, Result, Step
from runtime.store.sqlite_bulk import QUERIES, Bulk, Row, rows

KNOWN: Final = Bulk("step_known", 2)
NEW: Final = Bulk("step_new", 9)
DROP: Final = Bulk("step_drop", 1)


class _State:
    __slots__ = ("agent", "at_ms", "attempts", "ended", "epoch", "id", "intent", "result")

    def __init__(self, id: int, agent: str, epoch: int, ended: bool) -> None:
        self.id = id
        """0: not in the table yet."""
        self.agent = agent
        self.epoch = epoch
        self.ended = ended
        self.attempts = 0
        self.intent: Intent | None = None
        self.result: bytes | None = None
        self.at_ms = 0


class Steps:
    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor
        self._states: dict[tuple[str, str], _State] = {}
        self._new: list[_State] = []
        self._repeated: list[Row] = []
        self._ended: list[Row] = []

    def load(self, keys: Iterable[tuple[str, str]]) -> None:
        """Read the steps that are about to be judged."""
        for job, key, id, agent, epoch, ended in KNOWN.read(self._cursor, list(set(keys))):
            self._states[job, key] = _State(id, agent, epoch, bool(ended))

    def facts(self, job: str, key: str) -> tuple[str, int, bool] | None:
        """(agent, epoch, has a result), or None: there is no intent."""
        state = self._states.get((job, key))
        return None if state is None else (state.agent, state.epoch, state.ended)

    def begin(self, intent: Intent, agent: str, epoch: int, now_ms: int) -> None:
        state = self._states.get((intent.job, intent.key))
        if state is None:
            state = self._states[intent.job, intent.key] = _State(0, agent, epoch, False)
            state.intent = intent
            self._new.append(state)
        state.agent, state.epoch, state.at_ms = agent, epoch, now_ms
        state.attempts += 1
        if state.id:
            self._repeated.append((agent, epoch, now_ms, state.id))

    def end(self, result: Result, now_ms: int) -> None:
        state = self._states[result.job, result.key]
        state.ended, state.result, state.at_ms = True, result.body, now_ms
        if state.id:
            self._ended.append((result.body, now_ms, state.id))

    def flush(self) -> None:
        """Write what changed and forget what was loaded."""
        if self._new:
            NEW.run(self._cursor, [_row(state) for state in self._new])
        if self._repeated:
            self._cursor.executemany(QUERIES["step_repeat"], self._repeated)
        if self._ended:
            self._cursor.executemany(QUERIES["step_end"], self._ended)
        self._states, self._new, self._repeated, self._ended = {}, [], [], []

    def drop(self, found: Sequence[Row]) -> None:
        """Remove steps by their rows' ids."""
        DROP.run(self._cursor, found)

    def drop_some(self, job: str, limit: int) -> int:
        """Remove steps of a job, first begun first; how many."""
        found = rows(self._cursor, "prune_steps", job, limit)
        self.drop(found)
        return len(found)

    def of_job(self, job: str) -> list[Step]:
        return [Step(*row) for row in rows(self._cursor, "step_all", job)]


def _row(state: _State) -> Row:
    intent = state.intent
    assert intent is not None
    where = (intent.job, intent.key, intent.kind, intent.body)
    return (*where, state.agent, state.epoch, state.attempts, state.result, state.at_ms)
