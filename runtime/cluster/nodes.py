"""Nodes as an actor sees them: whether it is on the head, whether its own is to go away."""

from __future__ import annotations

from typing import Any, Final

import ray

from runtime.cluster import private

HEAD: Final = "node:__internal_head__"
"""The resource that only the head has."""


def on_head() -> bool:
    """Whether this process is on the head's machine."""
    mine = own_node()
    return any(node["NodeID"] == mine and HEAD in node["Resources"] for node in _alive())


def own_node() -> str:
    """The id of the node this process is on, hexadecimal."""
    return str(ray.get_runtime_context().get_node_id())


def owner_name(name: str) -> str:
    """What an actor calls itself at the store, where a newer one takes over from an older.

    One that Ray has started again takes over at once. Two clusters on a shared store must
    not take each other for their own past, so the name says which cluster it is of.
    """
    return f"{name}@{ray.get_runtime_context().gcs_address}"


def is_draining() -> bool:
    """Whether this process's node has been told to empty itself."""
    return own_node() in private.draining_nodes()


def move_this_actor() -> None:
    """End this actor's process; Ray starts it again on a node that stays."""
    ray.get_runtime_context().current_actor.__ray_terminate__.remote()


def _alive() -> list[dict[str, Any]]:
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node for node in nodes if node["Alive"]]
