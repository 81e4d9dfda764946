"""What can be read from states: diffs, changes, files and commits."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from actors.changes import Change
from actors.export import Person, commit_message
from actors.git import Git, decode
from tests.workshop import git, put, workspace

AGENT = Person("Code (agent)", "agent+code@example.org")
SERVICE = Person("Troupe", "troupe@example.org")


async def test_the_diff_applied_to_the_base_gives_the_state(tmp_path: Path) -> None:
    """The patch that is reviewed would not be the work that was tested."""
    space = await workspace(
        tmp_path, {"a": "1\n2\n", "gone": "x", "old": "same\n" * 20, "bin": b"\0\1"}
    )
    put(space.tree_path, {"a": "1\r\n2\n", "bin": b"\0\2" * 500, "new/ü": "x", "no newline": "x"})
    (space.tree_path / "gone").unlink()
    (space.tree_path / "old").rename(space.tree_path / "moved")
    (space.tree_path / "link").symlink_to("a")
    (space.tree_path / "a").chmod(0o755)
    tree = await space.snapshot()
    origin = tmp_path / "origin"
    git(origin, "apply", "--index", stdin=await space.diff(space.base_tree, tree))
    assert git(origin, "write-tree") == tree


async def test_the_diff_can_be_of_some_paths_only(tmp_path: Path) -> None:
    """A reviewer who asks for one file would get everything, or a pattern's idea of it."""
    space = await workspace(tmp_path, {"a": "1", "b": "1", "*": "1"})
    put(space.tree_path, {"a": "2", "b": "2", "*": "2"})
    tree = await space.snapshot()
    diff = await space.diff(space.base_tree, tree, ["*"])
    assert diff.count(b"diff --git") == 1 and b"a/* b/*" in diff


async def test_each_kind_of_change_is_told_apart(tmp_path: Path) -> None:
    """The gates would judge a change by the wrong kind, or miss a link or a mode."""
    text = "".join(f"{n}\n" for n in range(40))
    space = await workspace(
        tmp_path, {"mod": "1\n2\n", "del": "y\n", "old": text, "mode": "x", "type": "x", "bin": "x"}
    )
    put(space.tree_path, {"mod": "1\n3\n4\n", "add": "x\n", "bin": b"\0"})
    (space.tree_path / "del").unlink()
    (space.tree_path / "old").rename(space.tree_path / "re\tnamed")
    (space.tree_path / "mode").chmod(0o755)
    (space.tree_path / "type").unlink()
    (space.tree_path / "type").symlink_to("mod")
    odd = decode(b"caf\xe9")
    put(space.tree_path, {odd: "x\n"})
    tree = await space.snapshot()
    changes = {change.path: change for change in await space.changes(space.base_tree, tree)}
    none, plain = "000000", "100644"
    assert changes == {
        "add": Change("A", "add", None, none, plain, 1, 0),
        "bin": Change("M", "bin", None, plain, plain, 0, 0, binary=True),
        odd: Change("A", odd, None, none, plain, 1, 0),
        "del": Change("D", "del", None, plain, none, 0, 1),
        "mod": Change("M", "mod", None, plain, plain, 2, 1),
        "mode": Change("M", "mode", None, plain, "100755", 0, 0),
        "re\tnamed": Change("R", "re\tnamed", "old", plain, plain, 0, 0),
        "type": Change("T", "type", None, plain, "120000", 1, 1),
    }
    assert await space.changes(tree, tree) == []


async def test_a_file_is_read_as_it_was_in_a_state(tmp_path: Path) -> None:
    """The gates would read a policy that the agent has just changed."""
    space = await workspace(tmp_path, {"a": "1", "d/b": b"\r\n\xff", "[x]": "2"})
    (space.tree_path / "l").symlink_to("/etc/passwd")
    tree = await space.snapshot()
    put(space.tree_path, {"a": "2"})
    expected = {"a": b"1", "d/b": b"\r\n\xff", "[x]": b"2", "l": b"/etc/passwd", "d": None,
                "nothing": None, "d/": None, "../a": None, "/a": None, "-a": None}  # fmt: skip
    assert {path: await space.read_at(tree, path) for path in expected} == expected


async def test_a_commit_is_the_same_whenever_it_is_made_again(tmp_path: Path) -> None:
    """A delivery that is repeated after a crash would make a second commit."""
    space = await workspace(tmp_path)
    put(space.tree_path, {"a": "1"})
    tree = await space.snapshot()
    made = [
        await space.export_commit(
            tree, author=AGENT, committer=SERVICE, message="fix: the sum\n\nBecause.",
            at_ms=1_700_000_000_999, trailers=[("Agent-Run", "job_1"), ("Agent-Issue", "issue_1")],
        )
        for _ in range(2)
    ]  # fmt: skip
    assert made[0] == made[1]
    shown = (await space.git.run("cat-file", "commit", made[0])).text
    assert shown == (
        f"tree {tree}\nparent {space.base_commit}\n"
        "author Code (agent) <agent+code@example.org> 1700000000 +0000\n"
        "committer Troupe <troupe@example.org> 1700000000 +0000\n\n"
        "fix: the sum\n\nBecause.\n\nAgent-Run: job_1\nAgent-Issue: issue_1"
    )


async def test_the_users_repository_takes_the_pack_of_a_commit(tmp_path: Path) -> None:
    """Delivered work would not arrive whole."""
    space = await workspace(tmp_path)
    put(space.tree_path, {"a/b": "1"})
    commit = await space.export_commit(
        await space.snapshot(), author=AGENT, committer=SERVICE, message="x", at_ms=0
    )
    mine = Git(tmp_path / "origin" / ".git")
    await mine.run("index-pack", "--stdin", "--strict", stdin=await space.export_pack(commit))
    await mine.run("update-ref", "refs/heads/troupe/x", commit, "0" * 40)
    assert git(tmp_path / "origin", "show", "troupe/x:a/b") == "1"
    git(tmp_path / "origin", "fsck", "--strict", "--connectivity-only")


@pytest.mark.parametrize(
    ("message", "trailers", "expected"),
    [
        ("a\r\n\x1b[31mb", [], "a\n[31mb\n"),
        ("a", [("Run", "x\nSigned-off-by: Eve <e@x>")], "a\n\nRun: x Signed-off-by: Eve <e@x>\n"),
        ("a\u202eb\x00", [("K", "\u2028v")], "ab\n\nK: v\n"),
    ],
)  # fmt: skip
def test_nothing_can_be_smuggled_into_a_commit_message(
    message: str, trailers: list[tuple[str, str]], expected: str
) -> None:
    """A title from an issue could forge a trailer or take over a terminal."""
    assert commit_message(message, trailers) == expected


@pytest.mark.parametrize("name", ["", "a b", "x:y", "a\n", "-a"])
def test_a_trailer_needs_a_name(name: str) -> None:
    """A trailer's name could carry a second one."""
    with pytest.raises(ValueError, match="trailer"):
        commit_message("x", [(name, "v")])


async def test_an_authors_name_can_not_forge_another(tmp_path: Path) -> None:
    """A name with angle brackets or line breaks would change who a commit is from."""
    space = await workspace(tmp_path)
    evil = Person("Eve> 1 +0\nauthor Bob <bob", "e<v>e@example.org\n")
    commit = await space.export_commit(
        space.base_tree, author=evil, committer=SERVICE, message=os.linesep, at_ms=0, parents=[]
    )
    lines = (await space.git.run("cat-file", "commit", commit)).text.split("\n")
    assert lines[1] == "author Eve 1 +0 author Bob bob <eve@example.org> 0 +0000"
    assert lines[2].startswith("committer Troupe")
