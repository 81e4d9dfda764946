"""`troupe verify schedules`: a month of schedules on virtual time, and its books at the end.

When a month (`month`) is over, a reader that shares nothing with the planner
(`dues`) computes every due time anew and compares it with the ledger.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from dataclasses import dataclass
from typing import Final

from runtime.job import AgentJob
from runtime.schedule.audit import Present, Tally, audit
from runtime.schedule.record import (
    OCCURRENCES,
    REVISIONS,
    SCHEDULES,
    decode_occurrence,
    decode_revision,
    decode_schedule,
)
from runtime.verify.dues import DAY_S, scanned
from runtime.verify.loop import run
from runtime.verify.month import ZONES, Month, Size
from runtime.verify.report import Outcome
from runtime.verify.simulate import silenced


@dataclass
class Books:
    """What a month came to."""

    tally: Tally
    counts: Counter[str]
    digest: str
    jobs_strange: int
    """Jobs without a fired outcome, or fired outcomes without a job."""
    jobs_lost: int
    """Jobs that have not ended and that the queue was never given."""
    fired: int = 0
    ranges: int = 0
    virtual_days: float = 0.0


def close(month: Month) -> Books:
    """The books of a month, from the store's documents alone."""
    revisions = [decode_revision(one.body) for one in month.store.everything(REVISIONS)]
    ledger = [decode_occurrence(one.body) for one in month.store.everything(OCCURRENCES)]
    schedules = [decode_schedule(one.body) for one in month.store.everything(SCHEDULES)]
    present = {
        one.id: Present(one.accounted_ms, tuple(w.due_ms for w in one.waiting)) for one in schedules
    }
    tally = audit(revisions, ledger, present, scanned)
    jobs = [AgentJob.from_json(one.body) for one in month.store.everything("job")]
    fired = [one for one in ledger if one.outcome == "fired"]
    strange = {one.job_id for one in fired} ^ {job.id for job in jobs}
    told = [month.store.everything(name) for name in (SCHEDULES, REVISIONS, OCCURRENCES, "job")]
    digest = hashlib.sha256()
    for document in (document for found in told for document in found):
        digest.update(f"{document.key}\0{document.revision}\0".encode() + document.body)
    return Books(
        tally,
        month.counts,
        digest.hexdigest()[:32],
        len(strange) + len(jobs) - len({job.id for job in jobs}),
        sum(not job.status.final and not month.is_open(job.id) for job in jobs),
        len(fired),
        sum(one.count > 1 for one in ledger),
        (month.clock.now_ms() - month.began_ms) / (DAY_S * 1000),
    )


def one_month(seed: int, size: Size) -> Books:
    """Live one month and close its books."""

    async def live() -> Books:
        month = Month(seed, size)
        await month.go()
        return close(month)

    with silenced():
        return run(live())


def verify(seed: int = 1, size: Size | None = None, twice: bool = True) -> Outcome:
    """One month, lived twice; good when every due time has one outcome and both are the same."""
    size = size or Size()
    began = time.monotonic()
    books = one_month(seed, size)
    took_s = time.monotonic() - began
    same = not twice or one_month(seed, size).digest == books.digest
    tally, counts = books.tally, books.counts
    enough = counts["outages"] >= size.outages and (counts["fenced"] > 0 or not size.handovers)
    figure = {
        "seed": seed,
        "schedules": size.schedules,
        "zones": len(ZONES),
        "days": round(books.virtual_days, 1),
        **tally.figure(),
        "fired": books.fired,
        "ranges": books.ranges,
        "jobsStrange": books.jobs_strange,
        "jobsLost": books.jobs_lost,
        **{name: counts[name] for name in _COUNTED},
        "admittedTwice": counts["admittedTwice"],
        "sameTwice": same,
        "historyHash": books.digest,
        "seconds": round(took_s, 1),
    }
    good = tally.good and not books.jobs_strange and not books.jobs_lost and same and enough
    good = good and not counts["admittedTwice"]
    sentence = (
        f"{size.schedules} schedules in {len(ZONES)} zones over {size.days} days, "
        f"{counts['outages']} outages: of {tally.due} due times {tally.unaccounted} are "
        f"unaccounted for and {tally.double} double."
    )
    return Outcome(figure, sentence, good, tally.notes[:20])


_COUNTED: Final = (
    "outages", "handovers", "fenced", "clockSteps", "schedulerPauses", "set", "delete", "pause",
    "resume", "trigger", "refused",
)  # fmt: skip
