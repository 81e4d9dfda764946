"""The department on a Redis store: the whole walk, and a redis-server that dies in the middle."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.deployment import Deployment, deployed
from tests.redis_server import RedisServer

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    made = RedisServer(tmp_path_factory.mktemp("redis"))
    made.start()
    yield made
    made.kill()


@pytest.fixture(scope="module")
def troupe(server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with deployed(tmp_path_factory.mktemp("troupe"), REDIS_URL=server.url) as made:
        yield made


def refused(troupe: Deployment) -> tuple[int, str | None, Any]:
    """What the API answers to one request: status, Retry-After, body."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{troupe.port}/api/issues",
        headers={"Authorization": f"Bearer {troupe.key}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=2) as answer:
            return answer.status, None, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, error.headers.get("Retry-After"), json.load(error)


def test_a_redis_that_dies_costs_time_and_nothing_else(
    troupe: Deployment, server: RedisServer
) -> None:
    """What was accepted would be lost, accepted in vain, or wait for ever."""
    assert not (troupe.data / "troupe.db").exists()
    repository = troupe.repository("quiet")
    issue = troupe.submit(repository, externalId="quiet")
    troupe.approve(issue)
    expected = troupe.final_tree(issue, repository)
    repository = troupe.repository("killed")
    issue = troupe.submit(repository, externalId="killed")
    troupe.under_way(issue)
    server.kill()
    for _ in range(3):
        status, retry_after, problem = refused(troupe)
        assert (status, problem["code"]) == (503, "store_unavailable")
        assert int(retry_after or 0) >= 1
    server.start()
    troupe.approve(issue)
    assert troupe.final_tree(issue, repository) == expected
    store = troupe.call("GET", "/api/health")["store"]
    assert (store["backend"], store["durability"]) == ("redis", "power loss")
