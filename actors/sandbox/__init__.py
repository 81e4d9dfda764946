"""The sandbox: no command of an agent or a repository runs anywhere else."""

from __future__ import annotations

from actors.sandbox.command import WORKSPACE, owner_of, owner_of_job
from actors.sandbox.limits import Limits
from actors.sandbox.orphans import kill_orphans
from actors.sandbox.probe import SandboxReport
from actors.sandbox.sandbox import Completed, Sandbox

__all__ = [
    "WORKSPACE",
    "Completed",
    "Limits",
    "Sandbox",
    "SandboxReport",
    "kill_orphans",
    "owner_of",
    "owner_of_job",
]
