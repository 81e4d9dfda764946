"""Troupe from Python: `connect()`, `send`, `ask`, and hosting one's own agent.

`ask` returns Ray's ObjectRef, for `ray.get` or `await`.  The plain actors
answer bare Ray as well: `ray.get_actor("scheduler", namespace="troupe")`.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar
from zlib import crc32

from runtime.agent import BaseAgent
from runtime.client import Client
from runtime.clock import SystemClock, iso
from runtime.cluster.blocking import BlockingSchedules
from runtime.cluster.control import running
from runtime.cluster.private import use_token
from runtime.cluster.settings import (
    DEFAULT_ORGANIZATION,
    NAMESPACE,
    ClusterSettings,
    DataDir,
    data_root,
)
from runtime.cluster.stores import local_client
from runtime.errors import NotRunningError, TroupeError
from runtime.ids import Ids
from runtime.kinds import kind_commit
from runtime.message import Message

T = TypeVar("T")

LOOK_MS: Final = 1_000
"""How long the list of hosts is taken for true: it is two calls of Ray's directory a question."""
ASKED_MAX: Final = 1_000
"""Agents whose home is looked for at once."""
HOMES_MAX: Final = 10_000
"""Homes remembered; beyond it all are forgotten and found again."""


class Troupe:
    """A connection to a running deployment, on behalf of one organization."""

    def __init__(self, organization: str, data: Path) -> None:
        import ray  # noqa: PLC0415 - `connect` has set its environment

        self._ray = ray
        self.organization = organization
        self._data = data
        clock = SystemClock()
        self._ids = Ids(clock)
        self._clock = clock
        self._hosts: dict[str, Any] = {}
        """By name, in its order."""
        self._looked_ms = 0
        self._asked: set[str] = set()
        """Since the last look."""
        self._homes: dict[str, str] = {}
        """Which host an agent was found on."""
        self.schedules = BlockingSchedules(self._with_client)
        """`schedules.create("qa:acme.api", {"cron": "0 9 * * *"})`; see `runtime.schedules`."""

    def ask(self, recipient: str, message_type: str, content: Any = None) -> Any:
        """Send a message and return an ObjectRef of the agent's answer.

        The message is accepted durably before it is handled. An error of the
        ObjectRef that is Ray's own leaves the outcome unknown: ask with the
        same content again only if that may be handled twice, or use `send`
        with a message id of your own.
        """
        message = Message(
            message_id=self._ids.ulid(),
            sender="client:python",
            recipient=recipient,
            message_type=message_type,
            content=content,
            timestamp=iso(self._clock.now_ms()),
        )
        return self._host(recipient).ask.remote(self.organization, message.to_json())

    def send(
        self,
        recipient: str,
        message_type: str,
        content: Any = None,
        message_id: str | None = None,
    ) -> str:
        """Have a message accepted; returns its id, the same for the same id."""

        async def send(client: Client) -> str:
            return await client.send(recipient, content, message_type, message_id=message_id)

        return self._with_client(send)

    def host(self, agent_class: type[BaseAgent]) -> None:
        """Let the running hosts serve a class of yours: its kind, from the next message on.

        Durable. The class is imported by name on each host, from its module,
        whose folder is put on the hosts' import path when it is not installed. A host
        imports it once: changed code is theirs after `troupe down` and `troupe up`.
        """
        module = sys.modules[agent_class.__module__]
        file = getattr(module, "__file__", None)
        if agent_class.__module__ == "__main__" or file is None:
            raise UnimportableAgentError(agent_class.__qualname__)
        depth = agent_class.__module__.count(".") + 1
        path = str(Path(file).resolve().parents[depth - 1])

        async def host(client: Client) -> None:
            await client.store.commit([kind_commit(agent_class, path)])

        self._with_client(host)

    def _host(self, recipient: str) -> Any:
        """The host that gets the call: where the agent lives, as far as that is known.

        Else the same one for the same agent: where nobody has it, that host brings it to life.
        Asked elsewhere it answers as well, a commit later.
        """
        now_ms = self._clock.now_ms()
        if not self._hosts or abs(now_ms - self._looked_ms) > LOOK_MS:
            self._hosts = self._present()
            self._looked_ms = now_ms
            self._look_for(self._asked)
            self._asked = set()
        if len(self._asked) < ASKED_MAX:
            self._asked.add(recipient)
        if home := self._hosts.get(self._homes.get(recipient, "")):
            return home
        names = list(self._hosts)
        return self._hosts[names[crc32(recipient.encode()) % len(names)]]

    def _look_for(self, agents: set[str]) -> None:
        """Have the hosts say which of these agents live there; nobody waits for it."""
        if not agents or len(self._hosts) == 1:
            return
        if len(self._homes) > HOMES_MAX:
            self._homes.clear()
        for name, host in self._hosts.items():
            answer = host.living.remote(self.organization, list(agents)).future()
            answer.add_done_callback(partial(self._found, name))

    def _found(self, name: str, answer: Future[list[str]]) -> None:
        if answer.exception() is None:  # else the host is gone, and with it what lived there
            self._homes.update(dict.fromkeys(answer.result(), name))

    def _present(self) -> dict[str, Any]:
        """Handles of the hosts there are. A handle stays good while its host is restarted."""
        names = sorted(
            entry["name"]
            for entry in self._ray.util.list_named_actors(all_namespaces=True)
            if entry["namespace"] == NAMESPACE and entry["name"].startswith("host-")
        )
        if not names:
            raise NotRunningError("no host")
        return {name: self._ray.get_actor(name, NAMESPACE) for name in names}

    def _with_client(self, work: Callable[[Client], Awaitable[T]]) -> T:
        """Do something with a client, also for a caller in an event loop, as in a notebook."""

        async def run() -> T:
            store = local_client(ClusterSettings.read(DataDir(self._data)))
            try:
                return await work(
                    Client(store, self._clock, self._ids, self.organization, "python")
                )
            finally:
                await store.close()

        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, run()).result()


class UnimportableAgentError(TroupeError):
    """A class must be in a module that the hosts can import, not in __main__."""


def connect(data: str | Path | None = None, organization: str = DEFAULT_ORGANIZATION) -> Troupe:
    """Connect this program to the deployment on this machine.

    Args:
        data: the data directory; default as for `troupe up`.

    Raises:
        NotRunningError: nothing runs there.
    """
    root = Path(data).resolve() if data is not None else data_root(os.environ)
    found = running(root)
    if found is None:
        raise NotRunningError(str(root))
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    use_token(DataDir(root).ray_token)
    import ray  # noqa: PLC0415 - after its environment

    if not ray.is_initialized():
        ray.init(address=found.ray_address, namespace=NAMESPACE, log_to_driver=False)
    return Troupe(organization, root)
