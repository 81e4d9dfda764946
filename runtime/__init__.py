"""Durable agents on Ray: what an author of agents and a Python client need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runtime.agent import AgentState, BaseAgent
from runtime.errors import TroupeError
from runtime.job import AgentJob, Job, JobResult
from runtime.message import Message

if TYPE_CHECKING:
    from runtime.cluster.connect import connect

__all__ = [
    "AgentJob",
    "AgentState",
    "BaseAgent",
    "Job",
    "JobResult",
    "Message",
    "TroupeError",
    "connect",
]


def __getattr__(name: str) -> Any:
    """`connect` is looked up late: agents and their tests need no Ray."""
    if name == "connect":
        from runtime.cluster.connect import connect  # noqa: PLC0415 - see the docstring

        return connect
    raise AttributeError(name)
