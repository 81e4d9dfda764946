"""The directory of agents: each one's public record, and who has a role.

An agent is entered by the commit of the first thing it does; a message to a
role is sent to everybody who is entered under it by then.
"""

from __future__ import annotations

from typing import Final

from runtime.agent import BaseAgent
from runtime.clock import iso
from runtime.ids import address, split
from runtime.message import BROADCAST_PREFIX
from runtime.patience import patiently
from runtime.store.contract import BATCH_MAX, Document, Put, Store
from runtime.turn import Turn
from runtime.wire import Camel

BROADCAST_MAX: Final = BATCH_MAX
"""Agents one broadcast reaches."""


class Description(Camel, frozen=True, kw_only=True):
    """An agent's public record."""

    agent_id: str
    organization_id: str
    kind: str
    role: str
    capabilities: tuple[str, ...]
    created_at: str


def described(agent: BaseAgent, organization: str, now_ms: int) -> Put:
    """The record of an agent that is made now, as it is written."""
    record = Description(
        agent_id=agent.agent_id,
        organization_id=organization,
        kind=agent.kind,
        role=agent.role,
        capabilities=tuple(agent.capabilities),
        created_at=iso(now_ms),
    )
    terms = (f"kind={agent.kind}", f"role={agent.role}")
    where = address(organization, agent.agent_id)
    return Put("agent", where, organization, record.to_json(), terms)


async def expand(turn: Turn, store: Store) -> None:
    """Turn messages to a role into messages to each agent of it but the sender."""
    for message in turn.broadcasts:
        role = message.recipient.removeprefix(BROADCAST_PREFIX)
        for member in await patiently(_members, turn, role, store):
            _, agent = split(member.key)
            if agent != turn.agent:
                turn.deliver(message, agent)


async def _members(turn: Turn, role: str, store: Store) -> list[Document]:
    return await store.list_documents(
        "agent", turn.organization, [f"role={role}"], limit=BROADCAST_MAX, descending=False
    )
