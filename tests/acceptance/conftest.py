"""One real deployment for all tests that need Ray; the quiet ones first, the kills last."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.acceptance.deployment import Deployment, deployed


@pytest.fixture(scope="session")
def troupe(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """`troupe up` in a folder of its own, and everything of it gone afterwards."""
    with deployed(tmp_path_factory.mktemp("troupe")) as deployment:
        yield deployment


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: "test_kills" in item.nodeid)
