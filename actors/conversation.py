"""A conversation with a model: append-only, and rebuilt from the journal message by message.

What was sent is never edited: models bind their thinking to the exact prefix,
and the cache pays for it.  All results of a round go into one message, in the
order of the calls, with nothing after them.  When the window is full a new
segment begins: the task again, what was done so far, and the present change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from actors.models.request import Json, ModelRequest
from actors.prompts import fill

WORDS: Final = ("nudge", "stuck", "segment", "steering")
"""Prompts that the harness says on occasion."""
DONE_LINES_MAX: Final = 60
"""Calls that a new segment is told of, the latest ones."""


@dataclass
class Conversation:
    """System text, tools and messages of one agent's work on one job."""

    model: str
    system: str
    tools: list[Json]
    task: str
    purpose: str
    words: Mapping[str, str]
    """What the harness says on occasion, by name, as it was when the job began."""
    messages: list[Json] = field(init=False)
    segments: int = 1
    _done: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.messages = [_user([_text(self.task)])]

    def request(self, max_tokens: int) -> ModelRequest:
        return ModelRequest(
            model=self.model,
            system=self.system,
            messages=list(self.messages),
            max_tokens=max_tokens,
            tools=self.tools,
            purpose=self.purpose,
        )

    def answered(self, content: list[Json]) -> None:
        """Keep what the model said, verbatim; an empty answer can't be sent back."""
        if content:
            self.messages.append({"role": "assistant", "content": content})

    def results(self, results: list[Json]) -> None:
        """Give the answers of one round's calls, in the order of the calls."""
        self.messages.append(_user(results))

    def say(self, text: str) -> None:
        """Add words of the harness or of a person."""
        if self.messages[-1]["role"] == "user":
            last = self.messages[-1]
            self.messages[-1] = _user([*last["content"], _text(text)])
        else:
            self.messages.append(_user([_text(text)]))

    def note(self, line: str) -> None:
        """Remember in a line what was done, for the next segment."""
        self._done.append(line)

    def word(self, name: str, **values: str) -> str:
        """Words of the harness, filled in."""
        return fill(self.words[name], values)

    @property
    def done(self) -> str:
        """What was done so far, a line a call, the latest ones."""
        return "\n".join(self._done[-DONE_LINES_MAX:])

    def restart(self, told: str, model: str | None = None) -> None:
        """Begin a new segment: the task again, and what is told of it so far.

        Args:
            model: who goes on, if another than before.
        """
        self.messages = [_user([_text(self.task), _text(told)])]
        self.segments += 1
        self.model = model or self.model


def tool_result(call_id: str, output: str, is_error: bool) -> Json:
    """The answer to one call."""
    block: Json = {"type": "tool_result", "tool_use_id": call_id, "content": output}
    return {**block, "is_error": True} if is_error else block


def _user(content: list[Any]) -> Json:
    return {"role": "user", "content": content}


def _text(text: str) -> Json:
    return {"type": "text", "text": text}
