"""Symbols of Ray that are not public, each with a test that it still does what we need.

`tests/unit/test_ray_private.py` is that contract; a new Ray is not adopted
before it passes.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path


def use_token(path: Path) -> None:
    """Have this process speak to Ray with the token in a file, even if ray is imported already.

    Ray reads RAY_AUTH_MODE when it is imported; `Config.initialize` reads it
    again (it is what `ray.init("auto")` does when it finds a token by itself).
    """
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(path)
    raylet = importlib.import_module("ray._raylet")  # late: its import reads the environment
    raylet.Config.initialize("")


def draining_nodes() -> set[str]:
    """Ids of the nodes that are to be emptied, hexadecimal; asks the GCS, which is cheap."""
    raylet = importlib.import_module("ray._raylet")
    context = importlib.import_module("ray").get_runtime_context()
    return set(raylet.GcsClient(address=context.gcs_address).get_draining_nodes())
