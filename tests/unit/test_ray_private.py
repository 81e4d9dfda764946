"""The contract with Ray's private symbols."""

from __future__ import annotations

import subprocess
import sys


def test_token_mode_can_be_set_after_ray_was_imported(tmp_path) -> None:
    """`connect()` would hang for 20 s in any program that imports ray first."""
    token = tmp_path / "token"
    token.write_text("a" * 64)
    program = (
        "import ray\n"
        "from pathlib import Path\n"
        "from ray._raylet import AuthenticationMode, get_authentication_mode\n"
        "from runtime.cluster.private import use_token\n"
        "assert get_authentication_mode() != AuthenticationMode.TOKEN\n"
        f"use_token(Path({str(token)!r}))\n"
        "assert get_authentication_mode() == AuthenticationMode.TOKEN\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "RAY_AUTH_MODE": "disabled"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
