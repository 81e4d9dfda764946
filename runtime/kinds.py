"""Which class an agent's kind stands for.

Kinds come from the factories a deployment is composed of, and from documents
in the collection `kind` that name a class to import, so that a user's own
agent can be added to a running Troupe.  Only a process on the cluster can write
such a document (there is no HTTP route for it), and only a name is stored,
never code.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from runtime.agent import BaseAgent
from runtime.errors import UnknownAgentKindError
from runtime.ids import SYSTEM, AgentId, kind_of
from runtime.patience import patiently
from runtime.store.contract import Commit, Put, Store

COLLECTION: Final = "kind"
Factory = Callable[[AgentId], BaseAgent]


class KindRecord(msgspec.Struct):
    """Where a class is found."""

    module: str
    name: str
    path: str | None = None
    """A folder put on the import path, for a class that is not installed."""


class Kinds:
    """Makes agents of every known kind."""

    def __init__(self, factories: Mapping[str, Factory], store: Store) -> None:
        self._factories = dict(factories)
        self._store = store

    async def create(self, agent_id: AgentId) -> BaseAgent:
        """A new object for the agent, its state not loaded.

        Raises:
            UnknownAgentKindError: no factory and no importable class for the kind.
        """
        kind = kind_of(agent_id)
        factory = self._factories.get(kind) or await self._imported(kind)
        return factory(agent_id)

    async def _imported(self, kind: str) -> Factory:
        document = await patiently(self._store.get, COLLECTION, kind)
        if document is None:
            raise UnknownAgentKindError(kind)
        record = msgspec.json.decode(document.body, type=KindRecord)
        if record.path and record.path not in sys.path:
            sys.path.append(record.path)
        try:
            found: Factory = getattr(importlib.import_module(record.module), record.name)
        except (ImportError, AttributeError) as error:
            raise UnknownAgentKindError(kind, str(error)) from error
        self._factories[kind] = found
        return found


async def is_hosted(store: Store, kind: str) -> bool:
    """Whether somebody has given the running hosts a class for a kind."""
    return await store.get(COLLECTION, kind) is not None


def kind_commit(agent_class: type[BaseAgent], path: str | None) -> Commit:
    """The commit that makes a class known to every host, durably."""
    record = KindRecord(agent_class.__module__, agent_class.__name__, path)
    body = msgspec.json.encode(record)
    return Commit(SYSTEM, puts=(Put(COLLECTION, agent_class.kind, SYSTEM, body),))
