"""What people say to a running job: steering between rounds, and answers to its questions.

Their messages come as signals `message-1`, `message-2`...; each is heard once,
in order, either as the answer to a question or before the next model call.
What was heard is recorded by the step that heard it.
"""

from __future__ import annotations

from copy import copy
from typing import Any, Final

from actors.conversation import Conversation
from actors.tools.text import visible
from actors.untrusted import one_line
from runtime.errors import JobWaiting
from runtime.job import Job

HEARD_MAX: Final = 20
"""Messages heard before one model call; more wait for the next."""
QUESTION_LENGTH_MAX: Final = 4_000


class People:
    """One job's ear."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._heard = 0
        """Messages heard so far, by what is recorded."""

    async def news(self) -> list[str]:
        """The texts that came since; call it inside a step's call only."""
        texts: list[str] = []
        while len(texts) < HEARD_MAX:
            said = await self._job.signal(f"message-{self._heard + len(texts) + 1}")
            if said is None:
                break
            texts.append(_text(said))
        return texts

    def asked(self, conversation: Conversation, texts: list[str]) -> Conversation:
        """The conversation as it would be after `texts`; the given one stays as it is."""
        if not texts:
            return conversation
        after = copy(conversation)
        after.messages = list(conversation.messages)
        _tell(after, texts)
        return after

    def heard(self, conversation: Conversation, texts: list[str]) -> None:
        """The journal says that these were heard."""
        self._heard += len(texts)
        _tell(conversation, texts)

    async def answer(self, key: str, question: str) -> str:
        """Put a question to a person and wait for the answer, without a slot.

        Raises:
            JobWaiting: `question`, until a person says something.
        """
        question = visible(question)[:QUESTION_LENGTH_MAX]
        number = self._heard + 1
        said = await self._job.step(
            key, lambda _: self._ask(question, number), request={"question": question}
        )
        self._heard = number
        return str(said["text"])

    async def _ask(self, question: str, number: int) -> dict[str, Any]:
        said = await self._job.signal(f"message-{number}")
        if said is None:
            shown = one_line(question, 200)
            await self._job.progress(0, f"Waiting for your answer: {shown}", f"Asks: {shown}")
            await self._job.publish("job:question", {"question": question})
            raise JobWaiting("question")
        return {"text": _text(said)}


def _tell(conversation: Conversation, texts: list[str]) -> None:
    for text in texts:
        conversation.say(conversation.word("steering", message=text))


def _text(said: Any) -> str:
    return visible(str(said.get("text", "")) if isinstance(said, dict) else str(said))
