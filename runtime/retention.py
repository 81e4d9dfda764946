"""Retention: what is over is forgotten after so many days, a little at a time.

One duty, run by the process that has the store.  It asks the store to prune
what was over `days` ago, and names it the jobs that ended before then, because
only their records say so.  What it takes is bounded twice: `rows` a call, and
no more than `SHARE` of the time, so that commits behind it hardly notice.

    goes     processed messages and their ids, the feed's events, journal events that
             a snapshot covers, what is left of deleted documents; of completed and
             cancelled jobs the steps, signals and requests
    later    (`ledger_days`) what became of schedules' due times
    stays    states, pending messages, reminders; the records: issues, jobs, reviews,
             artifacts, keys; a failed job's steps, because it can be retried, and a
             dead letter with its message, because it can be redelivered

It keeps no place in the store: after a restart it looks again from the beginning.  Only from
when on the ledger of schedules is whole, is written down, because an audit must know it:

    document  (`ledger`, `kept_since`)   {"atMs"}
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from runtime.clock import Clock
from runtime.errors import StoreError
from runtime.hosting.suspects import COLLECTION as SUSPECTS
from runtime.ids import SYSTEM, ulid_time, ulid_time_of
from runtime.job import JobStatus
from runtime.schedule.record import OCCURRENCES, decode_occurrence
from runtime.store.contract import BATCH_MAX, Commit, Document, Put, Store, Upkeep

logger = logging.getLogger(__name__)

DAY_MS: Final = 86_400_000
DAYS_MIN: Final = 7
"""An Idempotency-Key promises so much: its answer is looked up by a message's id."""
DAYS_MAX: Final = 36_500
DAYS_DEFAULT: Final = 30
LEDGER_DAYS_DEFAULT: Final = 400
"""An audit looks back a year unless it is told otherwise."""
LEDGER: Final = "ledger"
KEPT_SINCE: Final = "kept_since"
ROWS_DEFAULT: Final = 200
EVERY_S: Final = 60.0
"""From one round to the next."""
SHARE: Final = 0.2
"""Of the time, at most; the rest is everybody else's."""
JOBS_A_PAGE: Final = 50
PAGES_A_ROUND: Final = 20
ENDED: Final = (JobStatus.COMPLETED, JobStatus.CANCELLED)
"""What a job can't come back from: a failed one can be retried, from its steps."""
_ULID_LENGTH: Final = 26


class UpkeepStore(Store, Upkeep, Protocol):
    """A store with the operator's verbs."""


@dataclass(frozen=True)
class RetentionSettings:
    days: int = DAYS_DEFAULT
    """How long what is over is kept, DAYS_MIN or more."""
    ledger_days: int = LEDGER_DAYS_DEFAULT
    """How long the outcomes of due times are kept, DAYS_MIN or more."""
    rows: int = ROWS_DEFAULT
    """Rows removed in one call, 1..BATCH_MAX."""


class Retention:
    """Create, then `await run()`; it returns only when cancelled."""

    def __init__(
        self, store: UpkeepStore, clock: Clock, settings: RetentionSettings | None = None
    ) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings or RetentionSettings()
        self._status = 0
        """Which of ENDED the walk along the jobs is at."""
        self._after: str | None = None
        """The last job it has seen of that status."""

    async def run(self) -> None:
        """Round after round; what fails is tried again in the next one."""
        while True:
            try:
                rows = await self.round()
            except StoreError as error:
                logger.warning("retention failed: %s", error, extra={"action": "retention.failed"})
            else:
                if rows:
                    logger.info(
                        "forgot %d rows", rows, extra={"action": "retention.done", "rows": rows}
                    )
            await asyncio.sleep(EVERY_S)

    async def round(self) -> int:
        """Forget what is old enough now, and go on along the jobs; how many rows went."""
        before_ms = self._clock.now_ms() - self._settings.days * DAY_MS
        rows = await self._prune(before_ms, ())
        await self._forget_suspects(before_ms)
        rows += await self._forget_outcomes(
            self._clock.now_ms() - self._settings.ledger_days * DAY_MS
        )
        for _ in range(PAGES_A_ROUND):
            ended = await self._ended(before_ms)
            if ended is None:
                break
            if ended:
                await self._forget_requests(ended)
                rows += await self._prune(before_ms, [job.key for job in ended])
        return rows

    async def _prune(self, before_ms: int, ended: Sequence[str]) -> int:
        rows, more = 0, True
        clock = asyncio.get_running_loop().time
        while more:
            begun_s = clock()
            swept = await self._store.prune(before_ms, self._settings.rows, ended)
            rows, more = rows + swept.rows, swept.more
            if more:
                await asyncio.sleep((clock() - begun_s) * (1 / SHARE - 1))
        return rows

    async def _forget_suspects(self, before_ms: int) -> None:
        """Remove marks of messages that have long left their inbox in a life without suspects."""
        found = await self._store.list_documents(SUSPECTS, None, (), None, BATCH_MAX)
        puts = [
            Put(SUSPECTS, one.key, one.organization, None, (), one.revision)
            for one in found
            if one.updated_ms < before_ms
        ]
        if puts:
            await self._store.commit([Commit(SYSTEM, puts=tuple(puts))])

    async def _forget_outcomes(self, before_ms: int) -> int:
        """Remove what became of due times before; ranges that reach further stay whole."""
        clock, rows, after = asyncio.get_running_loop().time, 0, None
        while True:
            begun_s = clock()
            page = await self._store.list_documents(
                OCCURRENCES, None, (), after, self._settings.rows, descending=False
            )
            found = [(one, decode_occurrence(one.body)) for one in page]
            gone = [
                Put(OCCURRENCES, one.key, one.organization, None, (), one.revision)
                for one, told in found
                if (told.to_ms or told.due_ms) < before_ms
            ]
            if gone:
                since = Put(LEDGER, KEPT_SINCE, SYSTEM, b'{"atMs":%d}' % before_ms)
                await self._store.commit([Commit(SYSTEM, puts=(*gone, since))])
                rows += len(gone)
            if not found or found[-1][1].due_ms >= before_ms:  # keys are in the order of due times
                return rows
            after = page[-1].key
            await asyncio.sleep((clock() - begun_s) * (1 / SHARE - 1))

    # jobs

    async def _ended(self, before_ms: int) -> list[Document] | None:
        """The next jobs of the walk that ended before; None: it is through, and begins anew."""
        if self._status == len(ENDED):
            self._status = 0
            return None
        terms = [f"status={ENDED[self._status].value}"]
        page = await self._store.list_documents(
            "job", None, terms, self._after, JOBS_A_PAGE, descending=False
        )
        old = [job for job in page if not _is_made_after(job.key, before_ms)]
        if not old or len(old) < len(page):
            self._status, self._after = self._status + 1, None
        else:
            self._after = old[-1].key
        return [job for job in old if job.updated_ms < before_ms]

    async def _forget_requests(self, ended: Sequence[Document]) -> None:
        """Remove what people and agents had asked of these jobs: their end was the answer."""
        jobs, last = {job.key for job in ended}, ended[-1].key
        for collection in ("signal", "asked"):  # keys: the job's, with a name behind it or not
            after = ended[0].key[:-1]
            while after.partition("/")[0] <= last:
                found = await self._store.list_documents(
                    collection, None, (), after, BATCH_MAX, descending=False
                )
                if not found:
                    break
                gone = [one for one in found if one.key.partition("/")[0] in jobs]
                puts = [Put(collection, one.key, one.organization, None) for one in gone]
                if puts:
                    await self._store.commit([Commit(SYSTEM, puts=tuple(puts))])
                after = found[-1].key


async def ledger_since_ms(store: Store) -> int:
    """From when on the ledger of schedules is whole; 0: from its beginning."""
    document = await store.get(LEDGER, KEPT_SINCE)
    return int(json.loads(document.body)["atMs"]) if document is not None else 0


def _is_made_after(key: str, at_ms: int) -> bool:
    """Whether an id says so; one without a time does not."""
    made = ulid_time(key[-_ULID_LENGTH:])
    return made is not None and made >= ulid_time_of(at_ms)
