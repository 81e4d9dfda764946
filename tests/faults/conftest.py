"""The tools of an agent, in the workspace `space` that a test file makes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from actors.tools import ToolBox
from actors.workspace import Workspace
from tests.workshop import toolbox


@pytest.fixture
async def box(space: Workspace) -> AsyncIterator[ToolBox]:
    made = toolbox(space)
    yield made
    await made.close()
