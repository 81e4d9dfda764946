"""ADR-1 (messages) and ADR-2 (state) as agents live them: on a host, over a store."""

from __future__ import annotations

import asyncio
import json

import pytest

from runtime.agent import AgentState, BaseAgent, DeactivationReason
from runtime.clock import ManualClock
from runtime.errors import InvalidMessageError
from runtime.message import BYTES_MAX, Attachment, Message
from tests.troupe import LocalTroupe

LIFE: list[str] = []


class Notebook(BaseAgent):
    kind = "notebook"

    class State(AgentState):
        lines: list[str] = []  # noqa: RUF012 - pydantic copies defaults

    async def initialize(self) -> None:
        LIFE.append("initialize")
        self.state.lines.append("first page")

    async def activate(self) -> None:
        LIFE.append(f"activate {len(self.state.lines)}")

    async def deactivate(self, reason: DeactivationReason) -> None:
        LIFE.append(f"deactivate {reason}")

    async def receive_message(self, message: Message) -> object:
        match message.message_type:
            case "write":
                self.state.lines.append(message.content["line"])
                self.record("written", {"by": message.sender})
            case "save":
                await self.save_state()
                self.state.lines.append("saved")
            case "at":
                return (await self.load_state(message.content["version"])).lines
            case "alarm":
                self.remind("tea", after_s=message.content["afterS"], content="tea")
            case "reminder":
                self.state.lines.append(f"reminded of {message.content['content']}")
        return self.state.lines


class Titled(BaseAgent):
    """The next release of Notebook: its lines have become a text."""

    kind = "notebook"
    schema_version = 2
    upcasters = {1: lambda state: {"text": "\n".join(state["lines"])}}  # noqa: RUF012

    class State(AgentState):
        text: str = ""

    async def receive_message(self, message: Message) -> str:
        self.state.text += f"\n{message.content['line']}"
        return self.state.text


@pytest.fixture
async def troupe():
    LIFE.clear()
    troupe = await LocalTroupe({"notebook": Notebook}).start()
    yield troupe
    await troupe.stop()


async def idle_out(troupe: LocalTroupe, agent: str) -> None:
    host = troupe.hosts["host-0"]
    await host._deactivate(host._active[f"acme/{agent}"], DeactivationReason.IDLE)


async def test_initialize_once_activate_each_time_deactivate_with_a_reason(troupe) -> None:
    """An agent would be set up twice, or wake without its state."""
    client = troupe.client()
    await client.ask("notebook:a", {"line": "one"}, "write")
    await idle_out(troupe, "notebook:a")
    await client.ask("notebook:a", {"line": "two"}, "write")
    assert LIFE == ["activate 0", "initialize", "deactivate idle", "activate 2"]


async def test_every_version_of_the_state_can_be_read(troupe) -> None:
    """There would be no audit trail and no way back."""
    client = troupe.client()
    for line in ("one", "two"):
        await client.ask("notebook:a", {"line": line}, "write")
    assert await client.ask("notebook:a", {"version": 1}, "at") == ["first page", "one"]
    journal = await troupe.store.journal("acme/notebook:a", 0, 10)
    assert [(event.version, event.name) for event in journal] == [(1, "written"), (2, "written")]


async def test_a_snapshot_saves_reading_the_journal(troupe) -> None:
    """Waking an old agent would take as long as its life."""
    client = troupe.client()
    await client.ask("notebook:a", {}, "save")
    await client.ask("notebook:a", {"line": "two"}, "write")
    await troupe.kill_host("host-0")
    [claimed] = await troupe.store.claim(await observer(troupe), 1, ["acme/notebook:a"])
    assert (claimed.snapshot_version, len(claimed.events)) == (1, 1)


async def observer(troupe: LocalTroupe) -> str:
    await troupe.store.register("observer", "host-0", 5)
    return "observer"


async def test_a_new_release_reads_the_state_of_the_old_one(troupe) -> None:
    """Upgrading would lose every agent's memory."""
    client = troupe.client()
    await client.ask("notebook:a", {"line": "one"}, "write")
    await idle_out(troupe, "notebook:a")
    troupe.hosts["host-0"]._births._kinds._factories["notebook"] = Titled
    assert await client.ask("notebook:a", {"line": "two"}, "write") == "first page\none\ntwo"
    await idle_out(troupe, "notebook:a")
    assert await client.ask("notebook:a", {"line": "3"}, "write") == "first page\none\ntwo\n3"


async def test_a_reminder_wakes_an_agent_that_sleeps() -> None:
    """A plan of an agent would end when it leaves memory."""
    clock = ManualClock()
    troupe = await LocalTroupe({"notebook": Notebook}, clock=clock).start()
    client = troupe.client()
    await client.ask("notebook:a", {"afterS": 60}, "alarm")
    await idle_out(troupe, "notebook:a")
    clock.advance(61)
    async with asyncio.timeout(30):
        while "reminded of tea" not in await client.ask("notebook:a", {}, "look"):
            await asyncio.sleep(0)
    await troupe.stop()


async def test_two_acknowledgements_and_a_history(troupe) -> None:
    """A sender could not tell accepted from handled, nor read what was said."""
    client = troupe.client()
    await troupe.kill_host("host-0")
    sent = await client.send("notebook:a", {"line": "one"}, "write", metadata={"why": "test"})
    [accepted] = await troupe.store.history("acme/notebook:a", 0, 10)
    assert (accepted.status, accepted.finished_ms) == ("pending", None)
    await troupe.start_host("host-0")
    await client.answer("notebook:a", sent)
    [processed] = await troupe.store.history("acme/notebook:a", 0, 10)
    assert processed.status == "processed"
    assert processed.finished_ms >= processed.accepted_ms
    message = Message.from_json(processed.body)
    assert (message.sender, message.content) == ("client:test", {"line": "one"})
    assert message.metadata == {"why": "test"}


def envelope(**changed: object) -> dict[str, object]:
    return {
        "messageId": "m", "sender": "a:b", "recipient": "c:d", "messageType": "standard",
        "content": {"x": 1}, "timestamp": "2026-11-21T08:00:00.000Z", **changed,
    }  # fmt: skip


def test_the_envelope_is_that_of_adr_1() -> None:
    """Other programs could not read our messages, or would lose what they carry."""
    digest = "a" * 64
    attached = [{"name": "n", "sha256": digest, "mediaType": "text/plain", "sizeBytes": 3}]
    wire = envelope(replyTo="q", metadata={"k": "v"}, attachments=attached)
    message = Message.from_json(json.dumps(wire))
    assert message.to_wire() == wire
    assert message.attachments == (
        Attachment(name="n", sha256=digest, media_type="text/plain", size_bytes=3),
    )


@pytest.mark.parametrize(
    "missing", ["messageId", "sender", "recipient", "messageType", "timestamp"]
)
def test_what_is_required_is_required(missing) -> None:
    """A message without a sender or an id could neither be answered nor told apart."""
    wire = envelope()
    del wire[missing]
    with pytest.raises(InvalidMessageError, match=missing):
        Message.from_json(json.dumps(wire))


def test_unknown_fields_are_refused() -> None:
    """A misspelt field would be lost without a word."""
    with pytest.raises(InvalidMessageError, match="replyto"):
        Message.from_json(json.dumps(envelope(replyto="q")))


async def test_a_message_that_is_too_large_is_sent_by_nobody() -> None:
    """Inboxes would hold whatever anybody puts into one message."""
    troupe = await LocalTroupe({"notebook": Notebook}).start()
    try:
        client = troupe.client()
        with pytest.raises(InvalidMessageError, match=f"at most {BYTES_MAX}: attach"):
            await client.send("notebook:a", {"line": "x" * BYTES_MAX}, "write")
        assert await troupe.store.inbox("acme/notebook:a", 0, 10) == []
    finally:
        await troupe.stop()
