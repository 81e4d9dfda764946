"""The department: which kinds of agents there are, and how each is made.

`kinds` is all that the runtime is given.  It is called once in each process
that hosts agents, because what they share (connections, the sandbox, the
upkeep of the disk) stays there.  Such a process is to be up again soon after a
kill, so nothing here imports what only HTTP or a model's SDK needs.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from actors.code import CodeAgent
from actors.delivery_agent import DeliveryAgent
from actors.issue import IssueAgent
from actors.research import ResearchAgent
from actors.review import ReviewAgent
from actors.services import Services
from actors.settings import DepartmentSettings
from actors.triage import TriageAgent
from runtime.agent import BaseAgent
from runtime.ids import AgentId


def agents() -> dict[str, Callable[[AgentId], BaseAgent]]:
    """The factories for a host, as the environment wants them: `ClusterSettings.agents`."""
    return kinds(DepartmentSettings.from_env(os.environ))


def kinds(settings: DepartmentSettings) -> dict[str, Callable[[AgentId], BaseAgent]]:
    """A factory for each kind of agent of the department; upkeep begins with it."""
    services = Services(settings)
    services.upkeep.begin()
    return kinds_with(services)


def kinds_with(services: Services) -> dict[str, Callable[[AgentId], BaseAgent]]:
    """As `kinds`, on services that the caller has made."""
    return {
        IssueAgent.kind: lambda agent_id: IssueAgent(agent_id, services.settings),
        TriageAgent.kind: lambda agent_id: TriageAgent(agent_id, services),
        CodeAgent.kind: lambda agent_id: CodeAgent(agent_id, services),
        ResearchAgent.kind: lambda agent_id: ResearchAgent(agent_id, services),
        ReviewAgent.kind: lambda agent_id: ReviewAgent(agent_id, services),
        DeliveryAgent.kind: lambda agent_id: DeliveryAgent(agent_id, services),
    }
