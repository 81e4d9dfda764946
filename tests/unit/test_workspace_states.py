"""Snapshots and restores: what went in comes out, and what can't is refused by name."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from actors import holes
from actors.errors import (
    DeltaDamagedError,
    FileTooLargeError,
    NestedRepositoryError,
    SnapshotRefusedError,
    SpecialFileError,
    TooManyFilesError,
    TreeMissingError,
)
from actors.workspace import Workspace
from tests.workshop import commit, git, names, put, recorded, repository, workspace

AWKWARD = {
    "crlf.txt": b"a\r\nb\r\n",
    "mixed.txt": b"a\r\nb\nc\r",
    "ident.txt": b"$Id$ $Format:%H$",
    "utf16.txt": "é\r\n".encode("utf-16"),
    "binary": bytes(range(256)) * 40,
    "empty": b"",
    ".gitattributes": b"* text=auto eol=crlf ident\nutf16.txt working-tree-encoding=UTF-16\n"
    b"*.txt filter=evil export-subst\n",
    "dir with space/-dash": b"x",
    'quote"tab\tnewline\nend': b"x",
}


def content(tree: Path) -> dict[bytes, tuple[str, bytes]]:
    """Every file and link of a tree: kind and content, by the bytes of its name."""
    found = {}
    for path in tree.rglob("*"):
        key = os.fsencode(path.relative_to(tree))
        if path.is_symlink():
            found[key] = ("link", os.fsencode(path.readlink()))
        elif path.is_file():
            program = path.stat().st_mode & 0o100
            found[key] = ("program" if program else "file", path.read_bytes())
    return found


async def test_every_byte_of_a_state_comes_back(tmp_path: Path) -> None:
    """Line ends, encodings, odd names, links or modes would differ after a resume."""
    space = await workspace(tmp_path)
    put(space.tree_path, AWKWARD)
    (space.tree_path / "program").write_text("#!/bin/sh\n")
    (space.tree_path / "program").chmod(0o755)
    (space.tree_path / "link").symlink_to("/etc/passwd")
    (space.tree_path / "dangling").symlink_to("nowhere")
    Path(os.fsdecode(os.fsencode(space.tree_path) + b"/caf\xe9\xff")).write_bytes(b"not UTF-8")
    before = content(space.tree_path)
    tree = await space.snapshot()
    await space.restore(space.base_tree)
    assert set(content(space.tree_path)) == {b"README.md"}
    await space.restore(tree)
    assert content(space.tree_path) == before
    assert await space.snapshot() == tree


async def test_the_first_checkout_is_byte_exact_too(tmp_path: Path) -> None:
    """The base would be changed by the repository's own attributes before anybody worked on it."""
    origin = repository(tmp_path / "origin")
    git(origin, "config", "core.autocrlf", "false")
    (origin / ".git" / "info").mkdir(exist_ok=True)
    (origin / ".git" / "info" / "attributes").write_text("* -text -ident !filter\n")
    put(origin, {**AWKWARD, ".gitattributes": "* text=auto eol=crlf ident\n"})
    commit(origin)
    space = await workspace(tmp_path)
    for name in AWKWARD:
        assert (space.tree_path / name).read_bytes() == (origin / name).read_bytes(), name
    assert await space.snapshot() == space.base_tree


async def test_nothing_changed_is_the_same_state(tmp_path: Path) -> None:
    """A tool that changed nothing would be recorded as a change."""
    space = await workspace(tmp_path)
    assert await space.snapshot() == space.base_tree
    (space.tree_path / "README.md").touch()
    assert await space.snapshot() == space.base_tree


async def test_only_the_named_paths_are_recorded_when_nothing_else_changed(tmp_path: Path) -> None:
    """An edit of one file would cost a look at all of them, or lose an ignored file."""
    space = await workspace(tmp_path, {".gitignore": "*.log\n", "a": "1", "gone": "x"})
    put(space.tree_path, {"a": "2", "kept.log": "asked for", "b/c": "new"})
    (space.tree_path / "gone").unlink()
    tree = await space.snapshot(only=["a", "kept.log", "b/c", "gone"])
    listing = (await space.git.run("ls-tree", "-r", "--name-only", tree)).text.split()
    assert listing == [".gitignore", "a", "b/c", "kept.log"]
    assert await space.snapshot() == tree
    put(space.tree_path, {"a": "3"})
    assert await space.snapshot(only=[]) == tree


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "link/x", ""])
async def test_a_path_that_leaves_the_tree_is_not_recorded(tmp_path: Path, path: str) -> None:
    """A file of the machine could be recorded as one of the workspace."""
    space = await workspace(tmp_path)
    (tmp_path / "outside").mkdir()
    put(tmp_path, {"outside/x": "secret"})
    (space.tree_path / "link").symlink_to(tmp_path / "outside")
    tree = await space.snapshot(only=["link", path])
    listing = (await space.git.run("ls-tree", "-r", "--name-only", tree)).text.split()
    assert listing == ["README.md", "link"]


async def test_ignored_files_are_scratch_and_stay(tmp_path: Path) -> None:
    """Installed dependencies would be recorded with every step, or be gone after each restore."""
    space = await workspace(tmp_path, {".gitignore": "node_modules\n"})
    put(space.tree_path, {"node_modules/x/index.js": "x", "node_modules/y/.git/config": "x"})
    os.mkfifo(space.tree_path / "node_modules" / "pipe")
    tree = await space.snapshot()
    assert tree == space.base_tree
    await space.restore(tree)
    assert (space.tree_path / "node_modules/x/index.js").exists()


async def test_a_restore_removes_what_the_state_does_not_have(tmp_path: Path) -> None:
    """A command that is run again would meet what its first run had left: `mkdir` would fail."""
    space = await workspace(tmp_path, {".gitignore": "*.o\n", "src/a": "1"})
    put(space.tree_path, {"src/new/b": "1", "src/new/b.o": "1", "scratch/c.o": "1", "-d": "1"})
    put(space.tree_path, {":(top)x": "1", "*": "1"})
    (space.tree_path / "src" / "empty" / "deep").mkdir(parents=True)
    await space.restore(space.base_tree)
    left = sorted(str(path.relative_to(space.tree_path)) for path in space.tree_path.rglob("*"))
    assert left == [".gitignore", "scratch", "scratch/c.o", "src", "src/a"]


@pytest.mark.parametrize("with_commit", [True, False])
@pytest.mark.parametrize("where", [".", "nested", "src"])
async def test_a_repository_inside_the_workspace_is_refused(
    tmp_path: Path, where: str, with_commit: bool
) -> None:
    """Its files would be missing from the patch and gone after a resume."""
    space = await workspace(tmp_path, {"src/a": "1"})
    place = space.tree_path / where
    place.mkdir(exist_ok=True)
    git(place, "init", "--quiet")
    put(place, {"hidden": "x"})
    if with_commit:
        commit(place)
    with pytest.raises(NestedRepositoryError, match=r"\.git"):
        await space.snapshot()
    await space.restore(space.base_tree)
    assert sorted(content(space.tree_path)) == [b"src/a"]
    assert await space.snapshot() == space.base_tree


async def test_a_file_named_git_that_points_elsewhere_is_refused(tmp_path: Path) -> None:
    """A `.git` file would hide a directory from the snapshot."""
    space = await workspace(tmp_path)
    put(space.tree_path, {"sub/.git": "gitdir: /somewhere\n", "sub/a": "1"})
    with pytest.raises(NestedRepositoryError):
        await space.snapshot()


async def test_pipes_and_sockets_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would be gone after a resume without a word."""
    space = await workspace(tmp_path)
    os.mkfifo(space.tree_path / "pipe")
    with pytest.raises(SpecialFileError, match="pipe"):
        await space.snapshot()
    await space.restore(space.base_tree)
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(space.tree_path)  # a socket's path must be short
        server.bind("socket")
        with pytest.raises(SpecialFileError, match="socket"):
            await space.snapshot()


async def test_a_file_that_is_too_large_is_refused_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One core dump would make the journal grow by its size."""
    monkeypatch.setattr(holes, "FILE_BYTES_MAX", 1 << 20)
    large = os.urandom(1 << 20) + b"x"
    space = await workspace(tmp_path, {"base.bin": large})
    assert await space.snapshot() == space.base_tree
    put(space.tree_path, {"core": large[::-1]})
    with pytest.raises(FileTooLargeError, match="core"):
        await space.snapshot()
    assert not holes.packs(space.git.git_dir)
    await space.restore(space.base_tree)
    put(space.tree_path, {"fits": large[:-1]})
    assert await space.snapshot() != space.base_tree


async def test_too_many_new_files_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unpacked archive of a million files would stop the host."""
    monkeypatch.setattr("actors.workspace.FILES_ADDED_MAX", 20)
    space = await workspace(tmp_path)
    put(space.tree_path, {f"f{n}": "x" for n in range(20)})
    await space.snapshot()
    put(space.tree_path, {"one too many": "x"})
    with pytest.raises(TooManyFilesError):
        await space.snapshot()


async def test_files_in_a_submodules_directory_are_refused(tmp_path: Path) -> None:
    """git would leave them out of the state without a word."""
    origin = repository(tmp_path / "origin")
    other = repository(tmp_path / "other")
    git(origin, "submodule", "--quiet", "add", str(other), "lib")
    commit(origin)
    space = await workspace(tmp_path)
    assert await space.snapshot() == space.base_tree
    put(space.tree_path, {"lib/x": "y"})
    with pytest.raises(SnapshotRefusedError, match="lib"):
        await space.snapshot()


async def test_a_name_that_git_can_not_hold_is_refused(tmp_path: Path) -> None:
    """git's own words would end the job instead of telling the model."""
    space = await workspace(tmp_path)
    put(space.tree_path, {".GIT/config": "[core]\n"})
    with pytest.raises(SnapshotRefusedError):
        await space.snapshot()


async def test_the_lock_that_a_killed_git_left_is_no_obstacle(tmp_path: Path) -> None:
    """A crash in mid-snapshot would end the job for ever."""
    space = await workspace(tmp_path)
    lock = space.tree_path.parent / "index.lock"
    for call in (space.snapshot, lambda: space.restore(space.base_tree)):
        lock.write_text("forged")
        await call()


async def test_a_damaged_index_is_made_anew(tmp_path: Path) -> None:
    """A power loss in mid-write would make every later restore fail."""
    space = await workspace(tmp_path)
    put(space.tree_path, {"a": "1"})
    tree = await space.snapshot()
    (space.tree_path.parent / "index").write_bytes(b"DIRC rubbish")
    await space.restore(tree)
    assert await space.snapshot() == tree


async def test_a_tree_too_deep_for_git_is_refused_and_removed(tmp_path: Path) -> None:
    """A directory bomb would leave a workspace that can neither be recorded nor cleaned."""
    space = await workspace(tmp_path)
    before = Path.cwd()
    os.chdir(space.tree_path)
    try:
        for _ in range(300):
            Path("d" * 30).mkdir()
            os.chdir("d" * 30)
        Path("leaf").touch()
    finally:
        os.chdir(before)
    with pytest.raises(SnapshotRefusedError):
        await space.snapshot()
    await space.restore(space.base_tree)
    assert names(space.tree_path) == ["README.md"]


async def test_a_link_put_where_a_directory_was_is_recorded_as_a_link(tmp_path: Path) -> None:
    """Files behind the link would be recorded as if they were the repository's."""
    space = await workspace(tmp_path, {"dir/a": "1", "dir/b": "2"})
    put(tmp_path, {"elsewhere/a": "secret"})
    (space.tree_path / "dir" / "a").unlink()
    (space.tree_path / "dir" / "b").unlink()
    (space.tree_path / "dir").rmdir()
    (space.tree_path / "dir").symlink_to(tmp_path / "elsewhere")
    tree = await space.snapshot()
    assert await recorded(space, tree, "dir") == str(tmp_path / "elsewhere").encode()
    assert await recorded(space, tree, "dir/a") is None
    await space.restore(space.base_tree)
    assert (space.tree_path / "dir" / "a").read_text() == "1"
    assert (tmp_path / "elsewhere" / "a").read_text() == "secret"


async def test_another_machine_rebuilds_the_state_from_the_deltas(tmp_path: Path) -> None:
    """A job could only be resumed where it ran."""
    space = await workspace(tmp_path)
    put(space.tree_path, {"a": "1", **AWKWARD})
    first = await space.snapshot()
    put(space.tree_path, {"a": "2", "big": os.urandom(2 << 20)})
    second = await space.snapshot()
    deltas = [
        (await space.delta(space.base_tree, first), first),
        (await space.delta(first, second), second),
    ]
    expected = content(space.tree_path)
    elsewhere = await Workspace.open(
        tmp_path / "elsewhere", "job_1", space_source(tmp_path), base_commit=space.base_commit
    )
    assert not await elsewhere.has(second)
    for delta, tree in (*deltas, *deltas):  # the second time changes nothing
        await elsewhere.apply_delta(delta, tree)
    await elsewhere.restore(second)
    assert content(elsewhere.tree_path) == expected
    assert await elsewhere.snapshot() == second


async def test_the_delta_of_a_small_change_is_small(tmp_path: Path) -> None:
    """The journal would grow by the repository's size with every step."""
    space = await workspace(tmp_path, {f"d{n}/f": os.urandom(2000) for n in range(50)})
    put(space.tree_path, {"d7/f": "changed"})
    tree = await space.snapshot()
    assert len(await space.delta(space.base_tree, tree)) < 3000
    assert await space.delta(tree, tree) == b""


async def test_a_damaged_delta_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    """A resumed job would go on from a tree that is not the recorded one."""
    space = await workspace(tmp_path)
    put(space.tree_path, {"a": "1"})
    tree = await space.snapshot()
    delta = await space.delta(space.base_tree, tree)
    elsewhere = await Workspace.open(tmp_path / "elsewhere", "job_1", space_source(tmp_path))
    for damaged in (b"", b"rubbish", delta[:14] + bytes(20) + delta[34:]):
        with pytest.raises(DeltaDamagedError):
            await elsewhere.apply_delta(damaged, tree)
        with pytest.raises(TreeMissingError):
            await elsewhere.restore(tree)
    assert await elsewhere.snapshot() == elsewhere.base_tree


async def test_a_state_with_a_missing_file_is_not_taken_for_whole(tmp_path: Path) -> None:
    """A state would be restored without one of its files."""
    space = await workspace(tmp_path)
    put(space.tree_path, {"a": "only here"})
    tree = await space.snapshot()
    assert await space.has(tree)
    blob = (await space.git.run("rev-parse", f"{tree}:a")).text
    (space.git.git_dir / "objects" / blob[:2] / blob[2:]).unlink()
    assert not await space.has(tree)
    with pytest.raises(TreeMissingError):
        await space.restore(tree)


def space_source(tmp_path: Path) -> object:
    from actors.mirror import RepositorySource

    return RepositorySource(str(tmp_path / "origin"))
