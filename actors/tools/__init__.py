"""The tools that models work with."""

from __future__ import annotations

from actors.tools.definitions import NAMES, ToolKind, definition, kind
from actors.tools.text import RESULT_CHARS_MAX, visible
from actors.tools.toolbox import Artifacts, Commands, ToolBox, ToolOutput

__all__ = [
    "NAMES",
    "RESULT_CHARS_MAX",
    "Artifacts",
    "Commands",
    "ToolBox",
    "ToolKind",
    "ToolOutput",
    "definition",
    "kind",
    "visible",
]
