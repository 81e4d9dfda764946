"""`troupe verify authorization`: the whole API with every kind of caller; a store in memory."""

from __future__ import annotations

import asyncio
from typing import Final

from actors.intake.routes import routes
from actors.intake.settings import IntakeSettings
from actors.verification.world import World, populate
from runtime.client import Client
from runtime.clock import SystemClock
from runtime.console.app import create_app
from runtime.console.letters import letter_id
from runtime.console.settings import ConsoleSettings
from runtime.ids import Ids
from runtime.keys import Keys
from runtime.store.memory import MemoryStore
from runtime.verify.authorization import Scene
from runtime.verify.authorization import authorization as walk
from runtime.verify.report import Outcome

ORGANIZATION: Final = "acme"
COLLECTIONS: Final = ("issue", "job", "review", "artifact", "service", "dead_letter", "agent",
                      "schedule", "occurrence", "session")  # fmt: skip
QUICK: Final = ConsoleSettings(command_wait_s=0.02)
"""No scheduler answers here: a command that was let in is answered 202 after this."""


def authorization() -> Outcome:
    """Walk the matrix of operations and callers."""
    return asyncio.run(_authorization())


async def _authorization() -> Outcome:
    return await walk(await scene())


async def scene() -> Scene:
    """The API with one organization's things."""
    clock = SystemClock()
    ids, store = Ids(clock), MemoryStore(clock)
    app = create_app(store, clock, ids, routes(IntakeSettings()), QUICK)
    there = await populate(Client(store, clock, ids, ORGANIZATION, "verify"))
    secrets = (there.issue.title, there.artifact.sha256, there.letter)
    known = ids_of(there)
    assert known.keys() == STRANGE.keys()
    return Scene(app, store, Keys(store, clock), ORGANIZATION, known, STRANGE, secrets, COLLECTIONS)


def ids_of(there: World) -> dict[str, str]:
    """Parameter of a path -> what the world has."""
    return {
        "issue_id": there.issue.id,
        "review_id": there.review.id,
        "job_id": there.job.id,
        "agent_id": there.agent,
        "sha256": there.artifact.sha256,
        "service_id": there.service,
        "letter_id": letter_id(there.letter),
        "occurrence_id": there.occurrence,
        "session_id": there.job.id,
    }


STRANGE: Final = {
    "issue_id": "issue_0",
    "review_id": "review_0",
    "job_id": "job_0",
    "agent_id": "code:job_0",
    "sha256": "0" * 64,
    "service_id": "none",
    "letter_id": letter_id("acme/code:job_0/m"),
    "occurrence_id": "occurrence_0",
    "session_id": "job_0",
}
"""The same, ids that exist nowhere."""
