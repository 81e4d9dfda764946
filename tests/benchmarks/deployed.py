"""What the benchmark deploys: the department, and counters beside it."""

from __future__ import annotations

import os

from actors import department
from runtime.agent import AgentState, BaseAgent
from runtime.kinds import Factory
from runtime.message import Message

AGENTS = "tests.benchmarks.deployed:agents"
APPLICATION = "serve_app:app"


class Counter(BaseAgent):
    kind = "counter"

    class State(AgentState):
        n: int = 0

    async def receive_message(self, message: Message) -> object:
        if message.message_type == "pid":
            return os.getpid()
        self.state.n += message.content["by"]
        return self.state.n


def agents() -> dict[str, Factory]:
    """The factories, for a host."""
    return {**department.agents(), "counter": Counter}
