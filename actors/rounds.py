"""The agents' loop: ask the model, do what it asks for, until the conversation ends.

    while True: await act(await query())

It is written as if it ran once.  Every call to the outside is a step of the
job, so a resumed job walks the same rounds over recorded answers and goes on
where it was; what is decided here depends on recorded things alone.  A round is
`round-N/model` and a step `round-N/tool-K` for each call, all answers in one
message.  The loop knows no particular tool: the toolset runs the ordinary ones
on the bench, `own` holds those that the agent handles itself (finish, report...).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final

from actors.bench import Bench, Delta
from actors.budget import Account
from actors.conversation import Conversation, tool_result
from actors.endings import Ending
from actors.errors import SnapshotRefusedError
from actors.modelcall import ModelCalls, SwitchedError, WindowFullError
from actors.models.request import STOP_REASONS, Json, ModelAnswer, canonical, encodable
from actors.progress import Progress
from actors.stuck import StuckDetector
from actors.tools import ToolOutput
from actors.toolset import Toolset
from actors.words import step_words
from runtime.job import Job, StepContext

CALLS_MAX: Final = 20
"""Calls of one round that are run; the others are told to come again."""
NUDGES_MAX: Final = 3
"""Answers in a row without a call that lead to a nudge; the next one ends it."""
INCOMPLETE_MAX: Final = 1
"""Answers in a row with a stop reason nobody knows that are asked for again."""
STUCK_NUDGES_MAX: Final = 1
COMPACTIONS_MAX: Final = 1
"""Segments begun because the model's window was full."""


LiveTool = Callable[[str, Any], Awaitable[Json]]
"""(name, arguments) -> what is recorded."""
OwnTool = Callable[[str, Any], Awaitable[ToolOutput]]
"""(step key, arguments) -> what the model is answered; raises Ending to end the conversation."""


class Rounds:
    """One conversation from its first round to its end."""

    def __init__(
        self,
        job: Job,
        calls: ModelCalls,
        conversation: Conversation,
        account: Account,
        bench: Bench,
        tools: Toolset,
        own: Mapping[str, OwnTool],
        max_tokens: int,
        change: Callable[[str], Awaitable[str]],
        progress: Progress,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            own: tools the agent handles itself; the first one named ends the work.
            max_tokens: output tokens of a model call.
            change: (step key) -> the present diff, for a new segment.
        """
        self._job = job
        self._calls = calls
        self._conversation = conversation
        self._account = account
        self._bench = bench
        self._tools = tools
        self._own = own
        self._max_tokens = max_tokens
        self._change = change
        self._progress = progress
        self._monotonic = monotonic
        self._stuck = StuckDetector()
        self._stuck_nudges = 0
        self._nudges = 0
        self._incomplete = 0
        self._compactions = 0

    async def run(self) -> Ending:
        """Go on until there is an end; the only ways out else are the runtime's (JobControl)."""
        try:
            while True:
                answer = await self._query()
                if answer is not None:
                    await self._act(answer)
        except Ending as ending:
            return ending

    @property
    def round(self) -> int:
        return self._account.rounds

    # Ask

    async def _query(self) -> ModelAnswer | None:
        """The model's next answer; None when the conversation had to begin a new segment."""
        if (over := self._account.used_up()) is not None:
            raise Ending(*over)
        self._account.rounds += 1
        self._progress.round = self.round
        key = f"round-{self.round}/model"
        try:
            answer = await self._calls.ask(key, self._conversation, self._max_tokens)
            if answer.stop_reason == "max_tokens":
                # What was cut is never run: the same again, with twice the room.
                longer = 2 * self._max_tokens
                answer = await self._calls.ask(f"{key}-longer", self._conversation, longer)
        except SwitchedError as switched:
            await self._new_segment(str(switched))
            return None
        except WindowFullError:
            await self._compact()
            return None
        return answer

    async def _compact(self) -> None:
        self._compactions += 1
        if self._compactions > COMPACTIONS_MAX:
            raise Ending("context_full")
        await self._new_segment(None)

    async def _new_segment(self, model: str | None) -> None:
        change = await self._change(f"segment-{self._conversation.segments + 1}/change")
        done = self._conversation.done or "nothing yet"
        told = self._conversation.word("segment", done=done, change=change or "none yet")
        self._conversation.restart(told, model)

    # Act

    async def _act(self, answer: ModelAnswer) -> None:
        reason = answer.stop_reason
        if reason == "refusal":
            raise Ending("refused_by_model", _explanation(answer))
        if reason == "max_tokens":
            raise Ending("answer_too_long")
        if reason == "model_context_window_exceeded":
            return await self._compact()
        if reason not in STOP_REASONS:
            return self._not_whole()
        self._incomplete = 0
        self._conversation.answered(answer.content)
        if reason == "pause_turn":
            return None
        calls = answer.tool_calls
        if not calls:
            return self._nudge()
        self._nudges = 0
        await self._run_all(calls, set(answer.broken_tools))
        return None

    def _not_whole(self) -> None:
        self._incomplete += 1
        if self._incomplete > INCOMPLETE_MAX:
            raise Ending("answer_incomplete")

    def _nudge(self) -> None:
        self._nudges += 1
        if self._nudges > NUDGES_MAX:
            raise Ending("no_tool_calls")
        self._conversation.say(self._conversation.word("nudge", ends=next(iter(self._own))))

    async def _run_all(self, calls: list[Json], broken: set[str]) -> None:
        """Run a round's calls one after another; their answers go into one message."""
        results: list[Json] = []
        said: str | None = None
        for number, call in enumerate(calls, 1):
            if call["id"] in broken:
                output = ToolOutput("The call was cut off before its end; it was not run.", True)
            elif number > CALLS_MAX:
                output = ToolOutput(f"Not run: at most {CALLS_MAX} calls a round.", True)
            else:
                output = await self._run(f"round-{self.round}/tool-{number}", call)
                said = self._observe(call, output) or said
            text = output.text
            if said is not None and number == len(calls):
                text += "\n\n" + self._conversation.word("stuck", reason=said)
            results.append(tool_result(call["id"], text, output.is_error))
        self._conversation.results(results)

    def _observe(self, call: Json, output: ToolOutput) -> str | None:
        words = step_words(call["name"], call["input"])
        self._conversation.note(f"- {words}{': error' if output.is_error else ''}")
        reason = self._stuck.observe(call["name"], call["input"], output.text, output.is_error)
        if reason is None:
            return None
        self._stuck_nudges += 1
        if self._stuck_nudges > STUCK_NUDGES_MAX:
            raise Ending("stuck", reason)
        self._stuck.forget()
        return reason

    async def _run(self, key: str, call: Json) -> ToolOutput:
        name, arguments = call["name"], call["input"]
        kind = self._tools.kind(name)
        if kind is None:
            known = ", ".join(tool["name"] for tool in self._conversation.tools)
            return ToolOutput(f"There is no tool {name!r:.80}; there are: {known}", True)
        if wrong := self._tools.wrong(name, arguments):
            return ToolOutput(wrong, True)
        if kind == "control":
            return await self._own[name](key, arguments)
        request: Json = {"tool": name, "input": hashlib.sha256(canonical(arguments)).hexdigest()}
        if kind == "workspace":
            request["tree"] = self._bench.tree
        tool = self._changing if kind == "workspace" else self._reading
        live = partial(self._live, name, arguments, tool)
        return self._recorded(await self._job.step(key, live, kind=kind, request=request))

    def _recorded(self, said: Json) -> ToolOutput:
        """Go on from what the journal says of a call."""
        self._account.book(said)
        self._tools.remember(said["data"])
        if said["delta"]:
            self._bench.advanced(Delta(**said["delta"]))
        return ToolOutput(said["output"], said["isError"])

    # Inside a step's call

    async def _live(self, name: str, arguments: Any, tool: LiveTool, context: StepContext) -> Json:
        await self._progress.say(step_words(name, arguments))
        began = self._monotonic()
        said = await tool(name, arguments)
        return encodable({**said, "ms": round((self._monotonic() - began) * 1000)})

    async def _reading(self, name: str, arguments: Any) -> Json:
        output = await self._tools.run(name, arguments, await self._bench.ready())
        return _said(output)

    async def _changing(self, name: str, arguments: Any) -> Json:
        """Run a tool that may change the tree, and record what the tree is after it.

        What an earlier call of a killed run has left is put back by the bench.
        """
        output = await self._tools.run(name, arguments, await self._bench.ready())
        try:
            delta = await self._bench.record(output.changed)
        except SnapshotRefusedError as error:
            await self._bench.put_back()
            text = f"{output.text}\n\nThe files were put back as they were: {error}"
            return _said(ToolOutput(text, True, data=output.data))
        return _said(output, delta)


def _said(output: ToolOutput, delta: Delta | None = None) -> Json:
    """A call's answer as it is recorded."""
    changed = delta is not None and delta.new != delta.old
    return {
        "output": output.text,
        "isError": output.is_error,
        "data": output.data,
        "delta": delta.to_json() if delta is not None and changed else None,
    }


def _explanation(answer: ModelAnswer) -> str:
    details = answer.raw.get("stop_details")
    explanation = details.get("explanation") if isinstance(details, dict) else None
    return str(explanation or answer.text)[:500]
