"""How far an agent is, for people: said when something is really done, never on a replay.

Nobody knows how many rounds a job will take, so the percentage nears its end
more and more slowly.
"""

from __future__ import annotations

from typing import Final

from actors.words import THINKING
from runtime.job import Job

FIRST: Final = 10
LAST: Final = 90
HALFWAY_ROUNDS: Final = 5


class Progress:
    """One job's progress; to be used inside a step's call only."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self.round = 0
        self._told = ""
        """The last words put into the log; repeated ones are left out."""

    async def say(self, words: str) -> None:
        """Say what is done now, in the present round."""
        done = self.round / (self.round + HALFWAY_ROUNDS)
        percent = FIRST + round((LAST - FIRST) * done)
        told = words in (THINKING, self._told)
        await self._job.progress(percent, words, None if told else words)
        self._told = self._told if words == THINKING else words
