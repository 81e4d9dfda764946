"""Opening and closing workspaces: from which commit, in whose hands, and what stays behind."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from actors import mirror
from actors.base import BOOT_ID
from actors.errors import (
    BaseRefUnknownError,
    NotARepositoryError,
    RepositoryEmptyError,
    RepositoryUnknownError,
    WorkspaceError,
)
from actors.mirror import RepositorySource
from actors.workspace import Workspace
from tests.workshop import (
    commit,
    fingerprint,
    git,
    names,
    put,
    recorded,
    refusals,
    repository,
    workspace,
)


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    return repository(tmp_path / "origin")


async def opened(tmp_path: Path, where: Path | str, ref: str | None = None) -> Workspace:
    return await Workspace.open(tmp_path / "data", "job_1", RepositorySource(str(where)), ref)


async def test_without_a_ref_work_begins_at_the_default_branch(
    origin: Path, tmp_path: Path
) -> None:
    """An issue that names no branch would not be worked on."""
    space = await opened(tmp_path, origin)
    assert space.base_commit == git(origin, "rev-parse", "main")
    assert space.base_tree == space.current_tree == git(origin, "rev-parse", "main^{tree}")
    assert (space.tree_path / "README.md").read_text() == "hello\n"
    assert names(space.tree_path) == ["README.md"]


async def test_a_branch_a_tag_and_a_commit_name_the_base(origin: Path, tmp_path: Path) -> None:
    """`context.baseRef` would only work for some kinds of names."""
    first = git(origin, "rev-parse", "HEAD")
    git(origin, "tag", "--annotate", "--message", "x", "v1")
    git(origin, "checkout", "--quiet", "-b", "feature/one")
    put(origin, {"more": "x"})
    second = commit(origin)
    wanted = {"feature/one": second, "refs/heads/main": first, "v1": first, first: first,
              second[:12]: second, "HEAD": second, None: second}  # fmt: skip
    for number, (ref, expected) in enumerate(wanted.items()):
        source = RepositorySource(f"file://{origin}" if number % 2 else str(origin))
        space = await Workspace.open(tmp_path / "data", f"job_{number}", source, ref)
        assert space.base_commit == expected, ref
        await space.close()


@pytest.mark.parametrize("ref", ["nothing", "--upload-pack=x", "a b", "0" * 40, "deadbee", ":x"])
async def test_a_base_that_is_not_there_is_said_so(origin: Path, tmp_path: Path, ref: str) -> None:
    """A wrong branch name would stop the job with git's own words, or run as an option."""
    with pytest.raises(BaseRefUnknownError):
        await opened(tmp_path, origin, ref)


async def test_each_kind_of_wrong_repository_has_its_own_error(tmp_path: Path) -> None:
    """The submitter could not tell a typing error from an empty repository."""
    (tmp_path / "plain").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    git(tmp_path / "empty", "init", "--quiet")
    expected = {
        tmp_path / "missing": RepositoryUnknownError,
        tmp_path / "plain": NotARepositoryError,
        tmp_path / "file": NotARepositoryError,
        tmp_path / "empty": RepositoryEmptyError,
    }
    for place, error in expected.items():
        with pytest.raises(error):
            await opened(tmp_path, place)


@pytest.mark.parametrize(
    "url",
    ["relative/path", "ext::sh -c id", "fd::3", "http://example.org/x", "git://example.org/x",
     "https://user:pass@example.org/x", "ssh://-oProxyCommand=id/x", "-oProxyCommand=id:x",
     "https://", "file://x/y", "--upload-pack=id", "https://example.org/\nx", "/a\x00b", ""],
)  # fmt: skip
async def test_only_paths_and_https_and_ssh_urls_are_repositories(tmp_path: Path, url: str) -> None:
    """A URL from an issue could run a helper, an option or an unencrypted transport."""
    with pytest.raises(RepositoryUnknownError):
        await opened(tmp_path, url)


@pytest.mark.parametrize(
    ("url", "transport"),
    [("https://example.org/a/b.git", "https"), ("ssh://git@example.org:22/a/b", "ssh"),
     ("git@example.org:a/b.git", "ssh"), ("/srv/repo", "file"), ("file:///srv/repo", "file")],
)  # fmt: skip
def test_the_usual_ways_to_name_a_repository_are_taken(url: str, transport: str) -> None:
    """A user could not paste the URL that their forge shows."""
    assert RepositorySource(url).transport == transport


async def test_a_dirty_checkout_is_neither_seen_nor_touched(origin: Path, tmp_path: Path) -> None:
    """A job would work on half-done edits, or change the user's repository by reading it."""
    put(origin, {"README.md": "half done", "new": "x"})
    git(origin, "add", "new")
    before = fingerprint(origin)
    space = await opened(tmp_path, origin)
    put(space.tree_path, {"README.md": "agent"})
    await space.snapshot()
    await space.close()
    assert fingerprint(origin) == before


async def test_a_shallow_repository_can_be_worked_on(origin: Path, tmp_path: Path) -> None:
    """Checkouts made by CI are shallow; reading their history would fail."""
    put(origin, {"README.md": "two\n"})
    commit(origin)
    git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{origin}", "shallow")
    before = fingerprint(tmp_path / "shallow")
    space = await opened(tmp_path, tmp_path / "shallow")
    log = await space.git.run("log", "--format=%H", space.base_commit)
    assert log.text.split() == [space.base_commit]
    assert fingerprint(tmp_path / "shallow") == before


async def test_a_repository_with_sha256_objects_can_be_worked_on(tmp_path: Path) -> None:
    """Newer repositories would be refused for the length of their ids."""
    (tmp_path / "new").mkdir()
    git(tmp_path / "new", "init", "--quiet", "--object-format=sha256")
    put(tmp_path / "new", {"a": "1"})
    commit(tmp_path / "new")
    space = await opened(tmp_path, tmp_path / "new")
    put(space.tree_path, {"b": "2"})
    tree = await space.snapshot()
    assert len(tree) == 64
    assert await recorded(space, tree, "b") == b"2"


async def test_a_job_keeps_its_base_when_the_branch_moves_on(origin: Path, tmp_path: Path) -> None:
    """A resumed job would find another base under its recorded steps."""
    space = await opened(tmp_path, origin)
    base = space.base_commit
    space.release()
    put(origin, {"README.md": "moved\n"})
    moved = commit(origin)
    assert (await opened(tmp_path, origin)).base_commit == base
    other = await Workspace.open(tmp_path / "data", "job_2", RepositorySource(str(origin)))
    assert other.base_commit == moved


async def test_the_recorded_base_is_found_after_history_was_rewritten(
    origin: Path, tmp_path: Path
) -> None:
    """A force-push in mid-job would make it impossible to resume here."""
    space = await opened(tmp_path, origin)
    base = space.base_commit
    await space.close()
    git(origin, "commit", "--quiet", "--amend", "--message", "another")
    git(origin, "reflog", "expire", "--expire=now", "--all")
    git(origin, "gc", "--quiet", "--prune=now")
    again = await Workspace.open(
        tmp_path / "data", "job_1", RepositorySource(str(origin)), base_commit=base
    )
    assert (again.base_commit, (again.tree_path / "README.md").exists()) == (base, True)


async def test_reopening_after_a_crash_adopts_what_is_there(tmp_path: Path) -> None:
    """Every restart would check the repository out again."""
    space = await workspace(tmp_path)
    put(space.tree_path, {"left": "behind"})
    (space.tree_path.parent / "index.lock").touch()
    place = space.tree_path
    space.release()  # what the end of the process does
    again = await workspace(tmp_path)
    assert (again.tree_path, again.current_tree) == (place, None)
    await again.restore(again.base_tree)
    assert not (again.tree_path / "left").exists()


async def test_a_tree_that_somebody_may_still_write_into_is_not_taken_over(tmp_path: Path) -> None:
    """A paused host's command would write into the tree of the host that took its job over."""
    paused = await workspace(tmp_path)
    taker = await workspace(tmp_path)
    assert taker.tree_path != paused.tree_path
    put(paused.tree_path, {"late": "write"})
    assert await taker.snapshot() == taker.base_tree
    await paused.close()  # it learns that it lost, and cleans up what is its own
    assert await taker.snapshot() == taker.base_tree
    await taker.close()
    assert names(tmp_path / "data" / "jobs") == []


async def test_after_a_reboot_everything_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power loss a half-written object would be taken for whole."""
    space = await workspace(tmp_path)
    put(space.tree_path, {"a": "1"})
    tree = await space.snapshot()
    delta = await space.delta(space.base_tree, tree)
    space.release()
    other = tmp_path / "boot"
    other.write_text("another boot\n")
    monkeypatch.setattr("actors.base.BOOT_ID", other)
    assert other != BOOT_ID
    again = await workspace(tmp_path)
    assert not await again.has(tree)
    await again.apply_delta(delta, tree)
    await again.restore(tree)
    assert (again.tree_path / "a").read_text() == "1"


async def test_closing_leaves_nothing_and_may_be_repeated(tmp_path: Path) -> None:
    """Finished jobs would fill the disk."""
    space = await workspace(tmp_path)
    deep = space.tree_path.joinpath(*["d" * 50] * 60)
    deep.mkdir(parents=True)
    await space.close()
    await space.close()
    assert names(tmp_path / "data" / "jobs") == []


async def test_closing_outlasts_a_child_that_holds_the_lock_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that ends while another's command is being started would leave its workspace."""
    space = await workspace(tmp_path)
    inherited = os.dup(space.lock_handle)
    refused = refusals(monkeypatch, mirror, "try_lock")
    closing = asyncio.create_task(space.close())
    async with asyncio.timeout(20):
        await refused.wait()
    assert not closing.done(), "somebody was still in it"
    os.close(inherited)
    await closing
    assert names(tmp_path / "data" / "jobs") == []


async def test_many_jobs_open_one_new_repository_at_once(origin: Path, tmp_path: Path) -> None:
    """Jobs that start together would break each other's first fetch."""
    source = RepositorySource(str(origin))
    spaces = await asyncio.gather(
        *(Workspace.open(tmp_path / "data", f"job_{n}", source) for n in range(6))
    )
    assert len({space.tree_path for space in spaces}) == 6
    assert len(list((tmp_path / "data" / "mirrors").glob("*.git"))) == 1
    for space in spaces:
        put(space.tree_path, {"mine": space.tree_path.parts[-3]})
    trees = await asyncio.gather(*(space.snapshot() for space in spaces))
    assert len(set(trees)) == 6
    await asyncio.gather(*(space.close() for space in spaces))
    assert names(tmp_path / "data" / "jobs") == []


@pytest.mark.parametrize("job_id", ["../x", "a/b", "", ".", "..", "-x", "a\x00", "x" * 129])
async def test_a_job_id_can_not_leave_its_directory(
    origin: Path, tmp_path: Path, job_id: str
) -> None:
    """A crafted id would put a workspace, and its removal, anywhere."""
    with pytest.raises(WorkspaceError):
        await Workspace.open(tmp_path / "data", job_id, RepositorySource(str(origin)))
