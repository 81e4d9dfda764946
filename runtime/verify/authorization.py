"""The authorization matrix: every operation of an application with every kind of caller.

    nobody    without a key; with one that was revoked, never was, or is cut off: 401, always
              the same words
    low       each role below the one that the route asks for: 403
    enough    each role from there on: let in, whatever the answer then is
    stranger  an admin of another organization with this organization's ids: answered exactly as
              for ids that never were

Who is not let in has changed nothing, and no stranger's answer shows a word of
what is here.  Which role a route asks for is read from the parameters of its
function (`runtime.console.caller`): a route that asks nobody shows as `open`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from runtime.console.auth import SIGNED, asks_nobody
from runtime.console.caller import Needs
from runtime.console.docs import example
from runtime.ids import HOME
from runtime.keys import Keys, Role
from runtime.store.contract import BATCH_MAX, Store
from runtime.verify.asgi import Answer, call
from runtime.verify.report import Outcome

UNAUTHORIZED: Final = 401
FORBIDDEN: Final = 403
SOCKET_CLOSED: Final = 403
SHOWN_MAX: Final = 10


@dataclass(frozen=True)
class Operation:
    method: str
    """WEBSOCKET for those."""
    path: str
    role: Role | None
    """None: it asks nobody. A WebSocket asks for a viewer: any good key."""
    home: bool
    """Only for the organization that runs the installation."""

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(frozen=True)
class Scene:
    """An application with one organization's things in it."""

    app: FastAPI
    store: Store
    keys: Keys
    organization: str
    ids: Mapping[str, str]
    """Parameter of a path -> an id that exists there."""
    strange: Mapping[str, str]
    """The same, ids that exist nowhere."""
    secrets: Sequence[str]
    """Words of this organization that nobody else may be shown."""
    collections: Sequence[str]
    """Of the documents that a stranger must not change."""


@dataclass
class _Found:
    cells: int = 0
    wrong: list[str] = field(default_factory=list)

    def check(self, good: bool, text: str) -> None:
        self.cells += 1
        if not good:
            self.wrong.append(text)


def operations(app: FastAPI) -> Iterator[Operation]:
    """Every operation that is served."""
    for route in iter_route_contexts(app.routes):
        path = str(route.path)
        dependant = getattr(route, "dependant", None)
        needs = [one.call for one in dependant.dependencies] if dependant else []
        needed = next((one for one in needs if isinstance(one, Needs)), None)
        role = needed.role if needed else None
        methods = getattr(route, "methods", None)
        if not methods:  # a WebSocket: the door itself asks for a good key
            yield Operation("WEBSOCKET", path, Role.VIEWER, False)
        for method in sorted(methods or ()):
            if method != "HEAD":
                yield Operation(method, path, role, bool(needed and needed.home))


async def authorization(scene: Scene) -> Outcome:
    """Walk the matrix."""
    found = _Found()
    every = list(operations(scene.app))
    for one in every:
        if one.role is None:
            found.check(asks_nobody(one.path), f"{one} asks nobody for anything")
        await _nobody(scene, one, found)
        await _roles(scene, one, found)
        await _stranger(scene, one, found)
    wrong = len(found.wrong)
    figure = {
        "verification": "authorization", "operations": len(every), "cells": found.cells,
        "open": sorted(str(one) for one in every if one.role is None), "wrong": wrong,
    }  # fmt: skip
    told = f"{len(every)} operations, {found.cells} cells with every kind of caller: "
    told += f"{wrong} WRONG, the first: {found.wrong[0]}." if wrong else "each as it must be."
    return Outcome(figure, told, not wrong, found.wrong[:SHOWN_MAX])


async def _nobody(scene: Scene, one: Operation, found: _Found) -> None:
    good, key = await scene.keys.create(scene.organization, Role.ADMIN, "gone")
    await scene.keys.revoke(key.id)
    fine, _ = await scene.keys.create(scene.organization, Role.ADMIN, "fine")
    bad = (good, "troupe_" + "f" * 64, "x", fine[:-1], f"{fine} {fine}")
    before = await _state(scene)
    answers = [await _ask(scene, one, token) for token in bad]
    if one.role is not None:
        answers.append(await _ask(scene, one, None))
    if one.path.startswith(SIGNED):
        unsigned = (await _ask(scene, one, None)).status
        found.check(unsigned == UNAUTHORIZED, f"{one} answers {unsigned} to what is not signed")
    refused = SOCKET_CLOSED if one.method == "WEBSOCKET" else UNAUTHORIZED
    for answer in answers:
        found.check(answer.status == refused, f"{one} answers {answer.status} to nobody")
    found.check(len({answer.body for answer in answers}) == 1, f"{one} tells bad keys apart")
    for query in ("token", "key", "access_token"):
        if one.role is not None:
            answer = await _ask(scene, one, None, f"?{query}={fine}")
            found.check(answer.status == refused, f"{one} takes a key from its address")
    found.check(await _state(scene) == before, f"{one} changes something for nobody")


async def _roles(scene: Scene, one: Operation, found: _Found) -> None:
    if one.role is None:
        return
    for role in Role:
        organization = HOME if one.home and role.covers(one.role) else scene.organization
        token, _ = await scene.keys.create(organization, role, "ann")
        before = await _state(scene)
        answer = await _ask(scene, one, token)
        told = f"{one} answers {answer.status} to {role.value}"
        if role.covers(one.role):
            found.check(answer.status not in (UNAUTHORIZED, FORBIDDEN), told)
        else:
            found.check(answer.status == FORBIDDEN, told)
            found.check(await _state(scene) == before, f"{one} changes something for {role.value}")


async def _stranger(scene: Scene, one: Operation, found: _Found) -> None:
    if one.role is None:
        return
    token, _ = await scene.keys.create("globex", Role.ADMIN, "eve")
    before = await _state(scene)
    ours = await _ask(scene, one, token)
    found.check(await _state(scene) == before, f"{one} changes something for a stranger")
    shown = [word for word in scene.secrets if word.encode() in ours.body]
    found.check(not shown, f"{one} shows a stranger {shown}")
    if "{" in one.path and ours.status >= 400:
        never = await _ask(scene, one, token, strange=True)
        same = (ours.status, _said(ours, one, scene.ids)) == (
            never.status, _said(never, one, scene.strange))  # fmt: skip
        found.check(same, f"{one} tells a stranger which ids exist")


def _said(answer: Answer, one: Operation, ids: Mapping[str, str]) -> bytes:
    """What it says, without the ids that it was asked for."""
    body = answer.body
    for name, value in ids.items():
        if "{" + name + "}" in one.path:
            body = body.replace(value.encode(), b"ID")
    return body


async def _ask(
    scene: Scene, one: Operation, token: str | None, query: str = "", strange: bool = False
) -> Answer:
    path = one.path.format(**(scene.strange if strange else scene.ids)) + query
    return await call(scene.app, one.method, path, token, _body(scene.app, one))


def _body(app: FastAPI, one: Operation) -> bytes | None:
    """What the manual shows as an example."""
    spec: dict[str, Any] = app.openapi()
    asked = spec["paths"].get(one.path, {}).get(one.method.lower(), {}).get("requestBody")
    if asked is None:
        return None
    return json.dumps(example(spec, asked["content"]["application/json"]["schema"])).encode()


async def _state(scene: Scene) -> list[Any]:
    """The organization's documents, but for its keys."""
    found: list[Any] = []
    for collection in scene.collections:
        found += await scene.store.list_documents(
            collection, scene.organization, limit=BATCH_MAX, descending=False
        )
    return found
