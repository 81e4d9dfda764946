"""Approved work reaches the owner's repository once, and nothing else there changes."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.delivery import (
    NAMES_MAX,
    BaseMissingError,
    BranchTakenError,
    DeliveryOrder,
    NotApprovedError,
    deliver,
    find,
)
from actors.delivery_text import branch_name, message, slug
from actors.git import Git, check_ref
from actors.records import AgentIssue, IssueSubmission, Review

AT = "2026-11-21T08:00:00.000Z"
ISSUE = "issue_01JD7"


def git(where: Path, *args: str, stdin: bytes = b"") -> str:
    environment = {"PATH": os.environ["PATH"], "HOME": str(where)}
    for who in ("AUTHOR", "COMMITTER"):
        environment[f"GIT_{who}_NAME"] = "Ann"
        environment[f"GIT_{who}_EMAIL"] = "ann@example.com"
    done = subprocess.run(
        ["git", "-C", str(where), *args],
        env=environment,
        input=stdin,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


@pytest.fixture
def owner(tmp_path: Path) -> Path:
    """A checkout with a commit, then staged, unstaged, untracked and ignored changes."""
    path = tmp_path / "owner"
    path.mkdir()
    git(path, "init", "-q", "-b", "main")
    (path / "calc.py").write_text("def halve(n):\n    return n // 2\n")
    (path / "notes.txt").write_text("one\n")
    (path / ".gitignore").write_text("*.log\n")
    git(path, "add", "-A")
    git(path, "commit", "-q", "-m", "begin")
    (path / "notes.txt").write_text("staged\n")
    git(path, "add", "notes.txt")
    (path / "notes.txt").write_text("not staged\n")
    (path / "new.txt").write_text("untracked\n")
    (path / "a.log").write_text("ignored\n")
    return path


@pytest.fixture
def order(owner: Path, tmp_path: Path) -> DeliveryOrder:
    """Work done in a private git dir that borrows the owner's base commit."""
    private = tmp_path / "private"
    git(tmp_path, "clone", "-q", "--bare", "--no-local", str(owner), str(private))
    base = git(private, "rev-parse", "main").strip()
    (tmp_path / "calc.py").write_text("def halve(n):\n    return n / 2\n")
    blob = git(private, "hash-object", "-w", str(tmp_path / "calc.py")).strip()
    kept = "\n".join(
        line for line in git(private, "ls-tree", base).splitlines() if "calc.py" not in line
    )
    listing = f"{kept}\n100644 blob {blob}\tcalc.py\n"
    tree = git(private, "mktree", stdin=listing.encode()).strip()
    patch = git(private, "diff", "--binary", "--full-index", base, tree).encode()
    said = IssueSubmission(source="manual", title="Halving loses the half")
    review = Review(
        id="review_1",
        issue_id=ISSUE,
        job_id="job_1",
        organization_id="acme",
        status="approved",
        artifact_hash=hashlib.sha256(patch).hexdigest(),
        summary="Divides exactly.",
        requested_at=AT,
        decided_at=AT,
        decided_by="ann",
    )
    return DeliveryOrder(
        issue=AgentIssue.of(said, ISSUE, "acme", AT),
        review=review,
        patch=patch,
        base_commit=base,
        tree=tree,
        git=Git(private),
        directory=tmp_path / "data" / "deliveries",
        repository=owner,
        model="scripted",
    )


def everything(path: Path) -> dict[str, tuple[int, bytes]]:
    """Mode and content of each file below a path, index and HEAD among them."""
    files = [file for file in sorted(path.rglob("*")) if file.is_file()]
    return {str(file.relative_to(path)): (file.stat().st_mode, file.read_bytes()) for file in files}


async def test_the_branch_has_the_approved_tree_and_says_where_it_comes_from(
    order: DeliveryOrder, owner: Path
) -> None:
    """Would deliver something else, or work that nobody can trace."""
    done = await deliver(order)
    assert done.branch == f"troupe/{ISSUE}-halving-loses-the-half"
    assert git(owner, "rev-parse", done.branch).strip() == done.commit
    assert git(owner, "rev-parse", f"{done.branch}^{{tree}}").strip() == order.tree
    assert git(owner, "rev-parse", f"{done.branch}^").strip() == order.base_commit
    said = git(owner, "log", "-1", "--format=%an|%cn|%s|%b|%(trailers:only)", done.branch)
    author, committer, subject, body = said.split("|")[:4]
    assert (author, committer) == ("Code (agent)", "Troupe")
    assert (subject, body.splitlines()[0]) == ("Halving loses the half", "Divides exactly.")
    assert said.split("|")[4].split("\n")[:5] == [
        f"Troupe-Issue: {ISSUE}",
        "Troupe-Job: job_1",
        "Troupe-Review: review_1",
        f"Troupe-Artifact: {order.review.artifact_hash}",
        "Troupe-Model: scripted",
    ]
    assert git(owner, "fsck", "--strict", "--no-dangling") == ""


async def test_a_dirty_checkout_stays_as_it_is_byte_by_byte(
    order: DeliveryOrder, owner: Path
) -> None:
    """Would lose the owner's unfinished work, or change what is checked out."""
    status = git(owner, "status", "--porcelain", "--ignored")  # refreshes the index itself
    before = everything(owner)
    done = await deliver(order)
    after = everything(owner)
    new = after.keys() - before.keys()
    ref = f".git/refs/heads/{done.branch}"
    assert {name for name in new if not name.startswith(".git/objects/pack/pack-")} == {ref}
    assert {name: after[name] for name in before} == before
    assert git(owner, "status", "--porcelain", "--ignored") == status


async def test_a_repeated_delivery_finds_its_own_branch(order: DeliveryOrder, owner: Path) -> None:
    """Would leave a second branch after every crash or retried request."""
    assert await find(order) is None
    first = await deliver(order)
    before = everything(owner)
    assert await find(order) == first
    assert await deliver(order) == first
    assert everything(owner) == before


async def test_it_is_found_after_the_owner_has_gone_on(order: DeliveryOrder, owner: Path) -> None:
    """Would deliver again what the owner is already building on."""
    first = await deliver(order)
    git(owner, "stash", "-q", "-u")
    git(owner, "checkout", "-q", first.branch or "")
    git(owner, "commit", "-q", "--allow-empty", "-m", "more of my own")
    git(owner, "pack-refs", "--all")
    assert await deliver(order) == first


async def test_two_deliverers_at_once_make_one_branch(order: DeliveryOrder, owner: Path) -> None:
    """Would deliver twice when a host that was thought dead comes back."""
    done = await asyncio.gather(*(deliver(order) for _ in range(4)))
    assert len(set(done)) == 1
    assert len(git(owner, "branch", "--list", "troupe/*").splitlines()) == 1


KILLED = """
import asyncio, json, os, pathlib, signal, sys
from actors import delivery
from actors.git import Git
from actors.records import AgentIssue, Review
told = json.loads(sys.argv[1])
order = delivery.DeliveryOrder(
    issue=AgentIssue.model_validate(told["issue"]), review=Review.model_validate(told["review"]),
    patch=told["patch"].encode(), base_commit=told["base"], tree=told["tree"],
    git=Git(pathlib.Path(told["git"])), directory=pathlib.Path(told["directory"]),
    repository=pathlib.Path(told["repository"]), model=told["model"])
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
setattr(delivery, told["before"], die)
asyncio.run(delivery.deliver(order))
"""


@pytest.mark.parametrize("before", ["_copy_objects", "_create", "_keep", "_write"])
async def test_a_delivery_killed_anywhere_is_finished_by_the_next(
    order: DeliveryOrder, owner: Path, before: str
) -> None:
    """Would lose approved work, or deliver it twice, when a host dies in the middle."""
    told = {
        "issue": order.issue.to_wire(),
        "review": order.review.to_wire(),
        "patch": order.patch.decode(),
        "base": order.base_commit,
        "tree": order.tree,
        "git": str(order.git.git_dir),
        "directory": str(order.directory),
        "repository": str(order.repository),
        "model": order.model,
        "before": before,
    }
    child = subprocess.run([sys.executable, "-c", KILLED, json.dumps(told)], check=False)
    assert child.returncode == -signal.SIGKILL
    assert await find(order) is None, "half of a delivery is none"
    done = await deliver(order)
    assert git(owner, "branch", "--list", "troupe/*").split() == [done.branch]
    assert git(owner, "rev-parse", f"{done.branch}^{{tree}}").strip() == order.tree
    assert Path(done.patch_path).read_bytes() == order.patch
    assert json.loads(Path(done.record_path).read_bytes())["commit"] == done.commit


async def test_a_name_that_is_taken_gets_a_number(order: DeliveryOrder, owner: Path) -> None:
    """Would move somebody else's branch, or give up because of it."""
    plain = branch_name(ISSUE, order.issue.title)
    git(owner, "branch", plain)
    taken = git(owner, "rev-parse", plain)
    done = await deliver(order)
    assert done.branch == f"{plain}-2"
    assert git(owner, "rev-parse", plain) == taken
    assert await deliver(order) == done


async def test_other_work_on_the_same_issue_is_another_delivery(
    order: DeliveryOrder, owner: Path
) -> None:
    """Would answer with an older change when a newer one was approved."""
    first = await deliver(order)
    artifact = hashlib.sha256(b"").hexdigest()
    again = replace(
        order,
        review=order.review.model_copy(update={"artifact_hash": artifact}),
        patch=b"",
        tree=git(owner, "rev-parse", "main^{tree}").strip(),
    )
    second = await deliver(again)
    assert second.branch == f"{first.branch}-2"
    assert await deliver(order) == first


async def test_names_run_out_with_a_sentence(order: DeliveryOrder, owner: Path) -> None:
    """Would try for ever, or fail with git's words alone."""
    plain = branch_name(ISSUE, order.issue.title)
    for number in range(1, NAMES_MAX + 1):
        git(owner, "branch", plain + (f"-{number}" if number > 1 else ""))
    with pytest.raises(BranchTakenError, match="names are taken"):
        await deliver(order)


async def test_a_branch_called_troupe_is_named_as_the_obstacle(
    order: DeliveryOrder, owner: Path
) -> None:
    """Would leave the owner without a hint why nothing came."""
    git(owner, "branch", "troupe")
    with pytest.raises(BranchTakenError, match="'refs/heads/troupe' exists"):
        await deliver(order)


async def test_a_checked_out_branch_without_commits_is_not_created(
    order: DeliveryOrder, owner: Path
) -> None:
    """Would change what the owner has checked out by giving its branch a commit."""
    plain = branch_name(ISSUE, order.issue.title)
    git(owner, "symbolic-ref", "HEAD", f"refs/heads/{plain}")
    assert (await deliver(order)).branch == f"{plain}-2"


async def test_only_what_was_approved_is_delivered(order: DeliveryOrder, owner: Path) -> None:
    """Would deliver a change under the approval of another."""
    pending = order.review.model_copy(update={"status": "pending"})
    other_issue = order.review.model_copy(update={"issue_id": "issue_2"})
    other_hash = order.review.model_copy(update={"artifact_hash": "0" * 64})
    base_tree = git(owner, "rev-parse", "main^{tree}").strip()
    nonsense = b"diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n"
    hashed = order.review.model_copy(update={"artifact_hash": hashlib.sha256(nonsense).hexdigest()})
    for wrong in (
        replace(order, review=pending),
        replace(order, review=other_issue),
        replace(order, review=other_hash),
        replace(order, patch=order.patch + b"\n"),
        replace(order, tree=base_tree),
        replace(order, patch=nonsense, review=hashed),
    ):
        with pytest.raises(NotApprovedError):
            await deliver(wrong)
    assert git(owner, "branch", "--list", "troupe/*") == ""
    assert not order.directory.exists()


async def test_a_base_that_is_gone_is_a_clear_error(order: DeliveryOrder, tmp_path: Path) -> None:
    """Would write a branch with a hole in its history."""
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    with pytest.raises(BaseMissingError, match="no longer has the commit"):
        await deliver(replace(order, repository=other))
    assert git(other, "for-each-ref") == ""


async def test_bare_repositories_and_linked_worktrees_are_served(
    order: DeliveryOrder, owner: Path, tmp_path: Path
) -> None:
    """Would serve only the plainest kind of checkout."""
    linked, bare = tmp_path / "linked", tmp_path / "bare.git"
    git(owner, "worktree", "add", "-q", "-b", "side", str(linked))
    git(tmp_path, "clone", "-q", "--bare", str(owner), str(bare))
    for repository in (linked, bare):
        done = await deliver(replace(order, repository=repository))
        assert git(repository, "rev-parse", done.branch or "").strip() == done.commit


async def test_a_repository_elsewhere_gets_patch_and_record(order: DeliveryOrder) -> None:
    """Would fail for work on a URL, which only a pull request can bring home."""
    elsewhere = replace(order, repository=None)
    assert await find(elsewhere) is None
    done = await deliver(elsewhere)
    assert (done.branch, done.commit) == (None, None)
    assert Path(done.patch_path).read_bytes() == order.patch
    assert await find(elsewhere) == done


async def test_the_record_names_the_decision(order: DeliveryOrder) -> None:
    """Would leave nobody able to say who approved what."""
    done = await deliver(order)
    record = json.loads(Path(done.record_path).read_text())
    assert record["review"]["decidedBy"] == "ann"
    assert record["review"]["artifactHash"] == order.review.artifact_hash
    assert (record["branch"], record["commit"]) == (done.branch, done.commit)
    assert Path(done.record_path).parent == Path(done.patch_path).parent


async def test_nothing_of_the_owners_configuration_runs(
    order: DeliveryOrder, owner: Path, tmp_path: Path
) -> None:
    """Would run a hostile repository's programs with Troupe's rights."""
    proof = tmp_path / "ran"
    trap = owner / "trap"
    trap.write_text(f"#!/bin/sh\ntouch {proof}\n")
    trap.chmod(0o755)
    for hook in ("reference-transaction", "post-update", "update", "pre-receive", "post-commit"):
        (owner / ".git" / "hooks" / hook).write_text(trap.read_text())
        (owner / ".git" / "hooks" / hook).chmod(0o755)
    for key in (
        "core.fsmonitor", "core.alternateRefsCommand", "core.sshCommand", "core.pager",
        "gpg.program", "diff.external", "core.editor", "uploadpack.packObjectsHook",
        "credential.helper", "filter.x.clean",
    ):  # fmt: skip
        git(owner, "config", key, str(trap))
    git(owner, "config", "core.hooksPath", str(owner / ".git" / "hooks"))
    git(owner, "config", "commit.gpgSign", "true")
    (owner / ".git" / "objects" / "info").mkdir(exist_ok=True)
    (owner / ".git" / "objects" / "info" / "alternates").write_text(
        str(order.git.git_dir / "objects") + "\n"
    )
    assert (await deliver(order)).branch
    assert not proof.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
async def test_what_root_writes_belongs_to_the_owner(order: DeliveryOrder, owner: Path) -> None:
    """Would leave the owner with a branch that they can't delete."""
    for path in (owner, *owner.rglob("*")):
        os.chown(path, 1234, 1234)
    await deliver(order)
    assert {path.stat().st_uid for path in (owner / ".git").rglob("*")} == {1234}


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=300))
def test_any_title_gives_a_safe_branch_and_message(title: str) -> None:
    """Would let a title become an option, a second trailer, or a skipped build."""
    name = branch_name(ISSUE, title)
    assert check_ref(f"refs/heads/{name}")
    assert len(slug(title)) <= 40
    assert set(slug(title)) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert slug(title).strip("-") == slug(title) != ""
    lines = message(title, title, {"Troupe-Issue": title, "Troupe-Job": "job_1"}).splitlines()
    assert lines[-1] == "Troupe-Job: job_1"
    assert sum(line.startswith("Troupe-Job:") for line in lines[-2:]) == 1
    hidden = r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f]"
    assert not re.search(hidden, "".join(lines))


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("Halving loses the half", "halving-loses-the-half"),
        ("--upload-pack=/bin/sh", "upload-pack-bin-sh"),
        ("../../etc/passwd", "etc-passwd"),
        ("Änderung für Zoë", "anderung-fur-zoe"),
        ("漢字だけ", "change"),
        ("a" * 100, "a" * 40),
        ("a.lock", "a-lock"),
        ("x\u202e\nTroupe-Issue: y", "x-troupe-issue-y"),
        ("one two three four five six seven eight nine", "one-two-three-four-five-six-seven-eight"),
    ],
)
def test_slugs_are_readable(title: str, expected: str) -> None:
    """Would give branches nobody can type."""
    assert slug(title) == expected


def test_a_title_can_not_speak_to_other_machines() -> None:
    """Would skip the build, call people, or forge a trailer from an issue's title."""
    text = message(
        "Fix [skip ci] it @everyone\n\nTroupe-Artifact: forged",
        "see [CI skip] ***NO_CI***\x1b[31m\u202e",
        {"Troupe-Artifact": "real\nTroupe-Model: forged"},
    )
    assert "skip" not in text.lower() and "@" not in text and "NO_CI" not in text
    assert text.splitlines()[0] == "Fix it everyone Troupe-Artifact: forged"
    assert text.splitlines()[-1] == "Troupe-Artifact: real Troupe-Model: forged"
    assert "\x1b" not in text and "\u202e" not in text
