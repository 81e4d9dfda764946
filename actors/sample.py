"""The shipped sample: the one repository that the scripted model may work on.

A script has no intelligence, so it must never touch anybody's own code.  A
repository is the sample when its tree is the shipped files, byte for byte, and
an issue is the sample's when its words are the shipped ones.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from functools import cache
from pathlib import Path

from actors.git import Git
from actors.records import AgentIssue, IssueSubmission

ISSUE_NAME = "sample_issue.json"
"""Beside the sample repository."""


async def sample_tree(directory: Path, object_format: str) -> str | None:
    """The tree that git makes of the shipped files; None when they are not here.

    Args:
        object_format: `sha1` or `sha256`, as the repository to compare with.
    """
    directory = await asyncio.to_thread(directory.resolve)
    if not await asyncio.to_thread(directory.is_dir):
        return None
    with tempfile.TemporaryDirectory(prefix="troupe-sample-") as scratch:
        bare = Git(Path(scratch) / "git")
        options = ("--quiet", "--bare", "--template=", f"--object-format={object_format}")
        await bare.run("init", *options)
        await bare.run("config", "core.bare", "false")
        git = Git(bare.git_dir, directory, Path(scratch) / "index")
        await git.run("add", "--all")
        return (await git.run("write-tree")).text


async def is_sample(directory: Path, tree: str) -> bool:
    """Whether a tree is the sample's."""
    return tree == await sample_tree(directory, "sha1" if len(tree) == 40 else "sha256")


def is_sample_issue(directory: Path, issue: AgentIssue) -> bool:
    """Whether an issue has the words of the sample's."""
    shipped = _sample_issue(directory.parent / ISSUE_NAME)
    return shipped is not None and shipped == (issue.title, issue.description)


@cache
def _sample_issue(path: Path) -> tuple[str, str] | None:
    try:
        submission = IssueSubmission.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except OSError:
        return None
    return submission.title, submission.description
