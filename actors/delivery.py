"""Local delivery: approved work becomes a branch in the owner's repository.

What is delivered is exactly what was approved: the patch is applied to the base
anew and must give the final tree, and its hash must be the review's.  Of the
owner's repository only two things are written, a pack of new objects and one
new branch; working tree, index, HEAD, configuration, hooks and reflogs are left
alone, so a dirty checkout is no obstacle.  Beside the branch, the patch and a
record of the review are kept under Troupe's own directory.

The commit is a pure function of the order, and a branch is only ever created,
never moved: delivering again, after any crash, finds or makes the same branch.
A name that somebody else took gets `-2` to `-9` behind it.

    branch   troupe/<issue>-<slug>
    files    <directory>/<issue>/<artifact, 16 digits>.patch and .json
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import tempfile
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from actors.delivery_text import branch_name, message, safe_id
from actors.errors import AgentError, GitError, GitTimeoutError
from actors.export import Person, commit_environment
from actors.git import Git, check_object, check_ref
from actors.records import AgentIssue, Review
from runtime.wire import WireModel

NAMES_MAX: Final = 9
"""Branch names tried: the plain one, then `-2` to `-9`."""
PACK_BYTES_MAX: Final = 256 << 20
"""New objects of one delivery."""
BRANCHES_MAX: Final = 100
"""Branches of one issue that are searched."""
SEARCH_COMMITS_MAX: Final = 50
"""Of each branch of the issue: so far back our commit may lie behind the owner's own."""
DOMAIN: Final = "troupe.invalid"
"""Of the agents' addresses; `.invalid` belongs to nobody for ever (RFC 2606)."""


class DeliveryError(AgentError):
    """The work could not be delivered."""


class NotApprovedError(DeliveryError):
    """The review does not approve this very change; nothing was delivered."""


class BaseMissingError(DeliveryError):
    """The owner's repository no longer has the commit that the work began from."""


class BranchTakenError(DeliveryError):
    """No branch could be created: the names are taken, or something is in their way."""


@dataclass(frozen=True)
class DeliveryOrder:
    """Everything a delivery needs; equal orders are the same delivery."""

    issue: AgentIssue
    review: Review
    patch: bytes
    """Its SHA-256 is the review's artifact hash."""
    base_commit: str
    tree: str
    """The final tree; like the base commit, readable through `git`."""
    git: Git = field(repr=False)
    """A private git dir of ours; the commit is made there."""
    directory: Path
    """Where patches and records are kept."""
    repository: Path | None = None
    """The owner's repository on this machine; None: patch and record only."""
    agent: str = "Code"
    """Who did the work, as the author's name."""
    model: str | None = None


class Delivered(WireModel):
    """Where the work is now."""

    branch: str | None = None
    commit: str | None = None
    patch_path: str
    record_path: str


async def find(order: DeliveryOrder) -> Delivered | None:
    """The earlier delivery of this order, if there was a whole one.

    It is known by patch and record, and by a branch of the issue that has a commit
    with this tree and the trailers of issue and artifact, even if its owner has
    gone on from there. Half of a delivery is None: `deliver` finishes it.
    """
    if not await asyncio.to_thread(_is_kept, order):
        return None
    if order.repository is None:
        return _delivered(order, None, None)
    found = await _find_branch(order, owners_git(order.repository))
    return _delivered(order, *found) if found else None


async def deliver(order: DeliveryOrder) -> Delivered:
    """Deliver, or finish an earlier delivery; after return all of it is on disk.

    Raises:
        NotApprovedError: not approved, or patch, hash and tree do not belong together.
        BaseMissingError: the owner's repository lost the base commit.
        BranchTakenError: every name is taken.
        GitError: git failed; objects may have been written, no branch was.
    """
    await _check(order)
    branch = commit = None
    if order.repository is not None:
        branch, commit = await _to_repository(order, owners_git(order.repository))
    await asyncio.to_thread(_keep, order, branch, commit)
    return _delivered(order, branch, commit)


def owners_git(repository: Path) -> Git:
    """git on somebody's repository: bare, a checkout, or a linked worktree."""
    inner = repository / ".git"
    return Git(inner if inner.exists() else repository)


async def _check(order: DeliveryOrder) -> None:
    review = order.review
    if review.status != "approved" or review.issue_id != order.issue.id:
        raise NotApprovedError(review.id, review.status)
    artifact = hashlib.sha256(order.patch).hexdigest()
    if artifact != review.artifact_hash:
        raise NotApprovedError(review.id, f"approved {review.artifact_hash}, not {artifact}")
    check_object(order.base_commit)
    check_object(order.tree)
    try:
        made = await _apply(order)
    except GitTimeoutError:
        raise
    except GitError as error:
        raise NotApprovedError(review.id, "the patch does not apply to the base") from error
    if made != order.tree:
        raise NotApprovedError(review.id, f"the patch gives tree {made}, not {order.tree}")


async def _apply(order: DeliveryOrder) -> str:
    """The tree that the patch makes of the base, in an index that is thrown away."""
    with tempfile.TemporaryDirectory(prefix="troupe-delivery-") as scratch:
        git = Git(order.git.git_dir, Path(scratch), Path(scratch) / "index")
        await git.run("read-tree", order.base_commit)
        if order.patch:
            await git.run("apply", "--cached", "--whitespace=nowarn", "-", stdin=order.patch)
        return (await git.run("write-tree")).text


async def _to_repository(order: DeliveryOrder, owner: Git) -> tuple[str, str]:
    """(branch, commit); a race with another deliverer ends in one branch."""
    found = await _find_branch(order, owner)
    if found:
        return found
    base = f"{order.base_commit}^{{commit}}"
    here = await owner.run("cat-file", "-e", base, codes=(0, 1, 128))
    if here.exit_code != 0:
        raise BaseMissingError(str(order.repository), order.base_commit)
    commit = await _commit(order)
    pack = await _copy_objects(order, owner, commit)
    branch = await _create_branch(order, owner, commit)
    if os.geteuid() == 0:
        await _give_back(owner, branch, pack)
    return branch, commit


async def _commit(order: DeliveryOrder) -> str:
    """Make the commit in our own git dir: the same order gives the same commit."""
    address = "".join(char for char in order.agent.lower() if char.isascii() and char.isalnum())
    environment = commit_environment(
        Person(f"{order.agent} (agent)", f"agent+{address or 'troupe'}@{DOMAIN}"),
        Person("Troupe", f"troupe@{DOMAIN}"),
        _milliseconds(order.review.decided_at or order.review.requested_at),
    )
    text = message(order.issue.title, order.review.summary, _trailers(order))
    args = ("commit-tree", order.tree, "-p", order.base_commit, "-F", "-")
    return (await order.git.run(*args, stdin=text.encode(), env=environment)).text


def _trailers(order: DeliveryOrder) -> dict[str, str | None]:
    return {
        "Troupe-Issue": order.issue.id,
        "Troupe-Job": order.review.job_id,
        "Troupe-Review": order.review.id,
        "Troupe-Artifact": order.review.artifact_hash,
        "Troupe-Model": order.model,
    }


async def _copy_objects(order: DeliveryOrder, owner: Git, commit: str) -> str:
    """Bring the commit's new objects over as one pack; its id.

    Neither side is a server to the other, so no setting of the owner's for
    fetching or receiving is read. Killed half-way, it leaves what git's own
    housekeeping removes.
    """
    wanted = f"{commit}\n^{order.base_commit}\n".encode()
    pack = await order.git.run(
        "pack-objects", "--revs", "--stdout", "--quiet",
        stdin=wanted, output_bytes_max=PACK_BYTES_MAX,
    )  # fmt: skip
    said = await owner.run("index-pack", "--strict", "--stdin", stdin=pack.stdout)
    return said.text.split()[-1]


async def _create_branch(order: DeliveryOrder, owner: Git, commit: str) -> str:
    """Create the first free name; one that exists is never moved."""
    plain = branch_name(order.issue.id, order.issue.title)
    unborn = (await owner.run("symbolic-ref", "--quiet", "HEAD", codes=(0, 1))).text
    refused = ""
    for number in range(1, NAMES_MAX + 1):
        ref = check_ref(f"refs/heads/{plain}" + (f"-{number}" if number > 1 else ""))
        if ref == unborn:
            continue  # checked out, although it does not exist: creating it would move HEAD
        try:
            await _create(owner, ref, commit)
        except GitError as error:
            refused = str(error)
            found = await _find_branch(order, owner)
            if found:
                return found[0]
            continue
        return ref.removeprefix("refs/heads/")
    raise BranchTakenError(plain, refused)


async def _create(owner: Git, ref: str, commit: str) -> None:
    absent = "0" * len(commit)
    quiet = {"core.logAllRefUpdates": "false"}
    await owner.run("update-ref", "--no-deref", ref, commit, absent, config=quiet)


async def _find_branch(order: DeliveryOrder, owner: Git) -> tuple[str, str] | None:
    """(branch, commit) of an earlier delivery of this order."""
    pattern = f"refs/heads/troupe/{safe_id(order.issue.id)}-*"
    most = f"--count={BRANCHES_MAX}"
    listed = await owner.run("for-each-ref", most, "--format=%(refname)", "--", pattern)
    for ref in listed.text.splitlines():
        commit = await _find_commit(order, owner, ref)
        if commit:
            return ref.removeprefix("refs/heads/"), commit
    return None


async def _find_commit(order: DeliveryOrder, owner: Git, ref: str) -> str | None:
    keys = ("Troupe-Issue", "Troupe-Artifact")
    values = "%x09".join(f"%(trailers:key={key},valueonly,separator=%x20)" for key in keys)
    walked = await owner.run(
        "rev-list", "--first-parent", f"--max-count={SEARCH_COMMITS_MAX}", "--no-commit-header",
        f"--format=%H%x09%T%x09{values}", "--end-of-options", ref, f"^{order.base_commit}",
        codes=(0, 128),
    )  # fmt: skip
    wanted = [order.tree, order.issue.id, order.review.artifact_hash]
    for line in walked.text.splitlines():
        commit, *said = line.split("\t")
        if said == wanted:
            return commit
    return None


async def _give_back(owner: Git, branch: str, pack: str) -> None:
    """What root wrote into somebody's repository becomes theirs, as if they had fetched it."""
    said = await owner.run("rev-parse", "--path-format=absolute", "--git-common-dir")
    await asyncio.to_thread(_chown, Path(said.text), branch, pack)


def _chown(common: Path, branch: str, pack: str) -> None:
    holder = common.stat()
    ref = common / "refs" / "heads" / branch
    packs = common / "objects" / "pack"
    written = [ref, ref.parent, *(packs / f"pack-{pack}.{kind}" for kind in ("pack", "idx", "rev"))]
    for path in written:
        if path.exists() and path.lstat().st_uid == 0 != holder.st_uid:
            os.chown(path, holder.st_uid, holder.st_gid, follow_symlinks=False)


def _keep(order: DeliveryOrder, branch: str | None, commit: str | None) -> None:
    """Write patch and record; each file is there wholly or not at all."""
    patch, record = _paths(order)
    patch.parent.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {
        "issueId": order.issue.id,
        "title": order.issue.title,
        "repository": str(order.repository) if order.repository else order.issue.context.repository,
        "baseCommit": order.base_commit,
        "tree": order.tree,
        "branch": branch,
        "commit": commit,
        "patch": patch.name,
        "agent": order.agent,
        "model": order.model,
        "review": order.review.to_wire(),
    }
    _write(patch, order.patch)
    _write(record, json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n")


def _is_kept(order: DeliveryOrder) -> bool:
    return all(path.exists() for path in _paths(order))


def _write(path: Path, content: bytes) -> None:
    if path.exists() and path.read_bytes() == content:
        return
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    Path(name).replace(path)


def _paths(order: DeliveryOrder) -> tuple[Path, Path]:
    folder = order.directory / safe_id(order.issue.id)
    stem = order.review.artifact_hash[:16]
    return folder / f"{stem}.patch", folder / f"{stem}.json"


def _delivered(order: DeliveryOrder, branch: str | None, commit: str | None) -> Delivered:
    patch, record = _paths(order)
    return Delivered(branch=branch, commit=commit, patch_path=str(patch), record_path=str(record))


def _milliseconds(at: str) -> int:
    return round(datetime.fromisoformat(at).timestamp() * 1_000)
