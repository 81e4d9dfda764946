"""What can be read from states: diffs, changes, files and commits."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.changes import Change
from actors.export import Person, commit_environment, commit_message
from actors.git import decode
from tests.workshop import git, put, workspace


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


def test_an_authors_name_can_not_forge_another() -> None:
    """A name with angle brackets or line breaks would change who a commit is from."""
    evil = Person("Eve> 1 +0\nauthor Bob <bob", "e<v>e@example.org\n")
    said = commit_environment(evil, Person("", "\n"), 1_700_000_000_999)
    assert (said["GIT_AUTHOR_NAME"], said["GIT_AUTHOR_EMAIL"]) == (
        "Eve 1 +0 author Bob bob", "eve@example.org",
    )  # fmt: skip
    assert (said["GIT_COMMITTER_NAME"], said["GIT_COMMITTER_EMAIL"]) == ("unknown", "unknown")
    assert said["GIT_AUTHOR_DATE"] == said["GIT_COMMITTER_DATE"] == "@1700000000 +0000"
