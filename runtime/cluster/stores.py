"""Which store a deployment has, and how a process of it gets there.

`redis://` and `rediss://` are reached directly from everywhere.  Without an
address the store is embedded: SQLite in the scheduler's process on the head, over
its socket from processes beside it, over Ray from other nodes.
"""

from __future__ import annotations

import importlib

from runtime.clock import Clock
from runtime.cluster.settings import ClusterSettings
from runtime.retention import Retention, RetentionSettings, UpkeepStore
from runtime.store.contract import Store
from runtime.store.remote import CodedStore, RemoteStore


def local_client(settings: ClusterSettings) -> Store:
    """The store from a process on the head's machine; connects when it is first used."""
    if settings.store:
        from runtime.store.redis import RedisStore  # noqa: PLC0415 - commands start fast without

        return watched(settings, RedisStore(settings.store))
    return watched(settings, RemoteStore(settings.directory.socket))


def client(settings: ClusterSettings) -> Store:
    """The store from an actor or a replica, wherever Ray has put it."""
    from runtime.cluster import nodes  # noqa: PLC0415 - imports ray, which commands do without
    from runtime.cluster.bridge import ActorTransport  # noqa: PLC0415

    if settings.store or nodes.on_head():
        return local_client(settings)
    return watched(settings, CodedStore(ActorTransport()))


def watched(settings: ClusterSettings, store: Store) -> Store:
    """The store as those who judge the deployment see it; itself where nobody does."""
    if not settings.watch:
        return store
    module, _, name = settings.watch.partition(":")
    seen: Store = getattr(importlib.import_module(module), name)(settings, store)
    return seen


def retention(settings: ClusterSettings, store: UpkeepStore, clock: Clock) -> Retention:
    """The duty that forgets what is over; one process of a deployment has it."""
    kept = RetentionSettings(settings.retention_days, settings.ledger_days, settings.retention_rows)
    return Retention(store, clock, kept)
