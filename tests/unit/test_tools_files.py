"""The file tools on a real workspace in a real sandbox."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from actors.tools import ToolBox, ToolOutput, inside
from actors.workspace import Workspace
from tests.workshop import names, needs_sandbox, processes_with, put, toolbox, until, workspace

pytestmark = needs_sandbox

FILES = {
    "README.md": "hello\nworld\n",
    "src/a.py": "def f():\n    return 1\n\n\ndef g():\n    return 1\n",
    "src/b.py": "def h():\n    return 2\n",
    "crlf.txt": "one\r\ntwo\r\n",
    "binary": b"\0\1\2",
    "latin": b"caf\xe9\n",
    "node_modules/x/index.js": "def\n",
}


@pytest.fixture
async def space(tmp_path: Path) -> AsyncIterator[Workspace]:
    made = await workspace(tmp_path, FILES)
    yield made
    await made.close()


@pytest.fixture
async def box(space: Workspace) -> AsyncIterator[ToolBox]:
    made = toolbox(space)
    yield made
    await made.close()


async def ok(box: ToolBox, name: str, **sent: object) -> ToolOutput:
    output = await box.run(name, sent)
    assert not output.is_error, output.text
    return output


async def refused(box: ToolBox, name: str, **sent: object) -> str:
    output = await box.run(name, sent)
    assert output.is_error, output.text
    return output.text


async def test_read_numbers_lines_and_names_the_content(box: ToolBox) -> None:
    """A model could neither name a line nor notice that a file has changed."""
    output = await ok(box, "read", path="README.md")
    sha256 = hashlib.sha256(b"hello\nworld\n").hexdigest()
    assert output.text == (
        f"README.md: 2 lines, 12 bytes, sha256 {sha256}\n     1\thello\n     2\tworld"
    )
    assert (output.data, output.changed) == ({"path": "README.md", "sha256": sha256}, ())
    part = await ok(box, "read", path="/workspace/src/a.py", start_line=5, end_line=99)
    assert part.text.splitlines()[1:] == ["     5\tdef g():", "     6\t    return 1"]


async def test_read_says_what_can_not_be_shown(box: ToolBox) -> None:
    """A binary file would fill the conversation with rubbish, or a bad range with nothing."""
    assert await refused(box, "read", path="binary") == "binary is a binary file of 3 bytes."
    assert "2 lines" in await refused(box, "read", path="README.md", start_line=7)
    assert await refused(box, "read", path="src") == "src is not a regular file."
    assert await refused(box, "read", path="nothing") == "nothing: No such file or directory."
    assert "caf\\xe9" in (await ok(box, "read", path="latin")).text
    assert "line ends CRLF" in (await ok(box, "read", path="crlf.txt")).text


async def test_edit_replaces_exactly_one_place(space: Workspace, box: ToolBox) -> None:
    """An edit would land where the model did not mean it."""
    said = await refused(box, "edit", path="src/a.py", old_string="return 1", new_string="return 3")
    assert "occurs 2 times in src/a.py (lines 2, 6)" in said
    assert (space.tree_path / "src/a.py").read_text() == FILES["src/a.py"]
    output = await ok(
        box,
        "edit",
        path="src/a.py",
        old_string="g():\n    return 1",
        new_string="g():\n    return 3",
    )
    assert output.changed == ("src/a.py",)
    assert "     6\t    return 3" in output.text
    assert (space.tree_path / "src/a.py").read_text().endswith("def g():\n    return 3\n")
    await ok(
        box, "edit", path="src/a.py", old_string="def", new_string="async def", replace_all=True
    )
    assert (space.tree_path / "src/a.py").read_text().count("async def") == 2


async def test_edit_keeps_bytes_line_ends_and_mode(space: Workspace, box: ToolBox) -> None:
    """An edit would change every line of a file, or make a program no program."""
    (space.tree_path / "latin").chmod(0o755)
    await ok(box, "edit", path="latin", old_string="caf", new_string="Caf")
    assert (space.tree_path / "latin").read_bytes() == b"Caf\xe9\n"
    assert (space.tree_path / "latin").stat().st_mode & 0o777 == 0o755
    await ok(box, "edit", path="crlf.txt", old_string="one\ntwo", new_string="1\n2\n3")
    assert (space.tree_path / "crlf.txt").read_bytes() == b"1\r\n2\r\n3\r\n"


async def test_edit_refuses_what_it_can_not_do(box: ToolBox) -> None:
    """An edit that did nothing would look as if it had been done."""
    edits = {
        "not found": {"old_string": "nothing", "new_string": "x"},
        "must differ": {"old_string": "hello", "new_string": "hello"},
        "must not be empty": {"old_string": "", "new_string": "x"},
        "read it again": {"old_string": "hello", "new_string": "x", "expect_sha": "0" * 64},
    }
    for said, edit in edits.items():
        assert said in await refused(box, "edit", path="README.md", **edit)
    assert "No such file" in await refused(box, "edit", path="no", old_string="a", new_string="b")


async def test_write_makes_a_file_and_its_directories(space: Workspace, box: ToolBox) -> None:
    """A new module could not be written."""
    output = await ok(box, "write", path="new/deep/é.txt", content="x\n")
    assert output.changed == ("new/deep/é.txt",)
    assert (space.tree_path / "new/deep/é.txt").read_text() == "x\n"
    assert (space.tree_path / "new").stat().st_uid == space.tree_path.stat().st_uid
    assert names(space.tree_path / "new/deep") == ["é.txt"]
    await ok(box, "write", path="new/deep/é.txt", content="y\n")  # it wrote it, so it knows it


async def test_write_takes_only_a_file_that_was_read(space: Workspace, box: ToolBox) -> None:
    """A file that the model has never seen would be lost."""
    said = await refused(box, "write", path="README.md", content="x")
    assert said == "README.md exists; read it before writing over it."
    await ok(box, "read", path="README.md")
    put(space.tree_path, {"README.md": "changed by a command\n"})
    assert "has changed since" in await refused(box, "write", path="README.md", content="x")
    await ok(box, "read", path="./README.md")
    await ok(box, "write", path="README.md", content="x")


async def test_what_was_read_before_a_crash_counts_after_it(space: Workspace, box: ToolBox) -> None:
    """A resumed job would refuse what it allowed in its first run."""
    output = await ok(box, "read", path="README.md")
    resumed = toolbox(space)
    resumed.remember(ToolOutput("", data=output.data))
    await ok(resumed, "write", path="README.md", content="x")
    await resumed.close()


@pytest.mark.parametrize("path", [".", "src", "README.md/x", "/workspace", ""])
async def test_write_refuses_a_directory(box: ToolBox, path: str) -> None:
    """A directory could be replaced by a file."""
    await refused(box, "write", path=path, content="x")


async def test_glob_lists_in_one_order_without_dependencies(box: ToolBox) -> None:
    """The same question would have different answers, or ten thousand of them."""
    cases = {
        "**/*.py": ["src/a.py", "src/b.py"],
        "*.md": ["README.md"],
        "src/[!a].py": ["src/b.py"],
        "src/?.py": ["src/a.py", "src/b.py"],
        "{README.md,crlf.*}": ["README.md", "crlf.txt"],
        "**": ["README.md", "binary", "crlf.txt", "latin", "src/a.py", "src/b.py"],
        "a.py": ["No file matches."],
    }
    for pattern, expected in cases.items():
        assert (await ok(box, "glob", pattern=pattern)).text.splitlines() == expected, pattern
    assert (await ok(box, "glob", pattern="b*", path="src")).text == "src/b.py"
    assert (
        await ok(box, "glob", pattern="**/*.js", path="node_modules")
    ).text != "No file matches."


async def test_grep_shows_where_and_how_often(box: ToolBox) -> None:
    """A model would not find what it looks for."""
    assert (await ok(box, "grep", pattern=r"return \d")).text.splitlines() == [
        "src/a.py:2:    return 1", "src/a.py:6:    return 1", "src/b.py:2:    return 2",
        "[3 matches in 2 files, 3 shown]",
    ]  # fmt: skip
    one = await ok(box, "grep", pattern="def", glob="*.py", context=1, max=1)
    assert one.text.splitlines() == [
        "src/a.py:1:def f():", "src/a.py-2-    return 1", "[3 matches in 2 files, 1 shown]",
    ]  # fmt: skip
    assert (await ok(box, "grep", pattern="x{3}", path="src/a.py")).text == "No line matches."
    assert "not a regular expression" in await refused(box, "grep", pattern="(")


async def test_a_pattern_that_never_ends_is_stopped(
    box: ToolBox, space: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One pattern could hold its job for ever, and every later file tool with it."""
    put(space.tree_path, {"a": "a" * 60 + "!"})
    await ok(box, "read", path="a")
    monkeypatch.setattr("actors.tools.files.CALL_TIMEOUT_S", 0.5)
    said = await refused(box, "grep", pattern="(a+)+$", path="a")
    assert "gave no answer in time" in said
    monkeypatch.undo()
    await ok(box, "read", path="a")


async def test_a_helper_that_died_is_no_answer_and_another_one_is_started(box: ToolBox) -> None:
    """The job would fail by an error that is not its own."""
    await ok(box, "read", path="README.md")
    helpers = [pid for pid in processes_with("/run/files.py") if parent(pid) == os.getpid()]
    assert helpers
    for pid in helpers:
        os.kill(pid, signal.SIGKILL)
    await until(box._files._requests.is_closing)
    assert "gave no answer in time" in await refused(box, "read", path="README.md")
    await ok(box, "read", path="README.md")


async def test_a_cancelled_call_does_not_answer_the_next_one(
    box: ToolBox, space: Workspace
) -> None:
    """The answer to one question would be given to another."""
    put(space.tree_path, {"a": "a" * 60 + "!", "b": "b\n"})
    await ok(box, "read", path="b")
    slow = asyncio.ensure_future(box.run("grep", {"pattern": "(a+)+$", "path": "a"}))
    await until(box._files._busy.locked)
    slow.cancel()
    with pytest.raises(asyncio.CancelledError):
        await slow
    assert "\tb" in (await ok(box, "read", path="b")).text


async def test_the_file_tools_see_a_tree_that_was_made_anew(space: Workspace, box: ToolBox) -> None:
    """After a repair they would read and write a directory that is gone."""
    await ok(box, "read", path="README.md")
    (space.tree_path.parent / "index").write_bytes(b"rubbish")
    await space.restore(space.base_tree)
    await ok(box, "edit", path="README.md", old_string="hello", new_string="bye")
    assert (space.tree_path / "README.md").read_text() == "bye\nworld\n"


async def test_a_read_only_toolbox_changes_nothing(space: Workspace) -> None:
    """A reviewer or a researcher could change the work."""
    box = toolbox(space, read_only=True)
    assert {made["name"] for made in box.definitions()} & {"edit", "write"} == set()
    assert "no tool" in await refused(box, "write", path="x", content="x")
    assert box.kind("bash") == box.kind("run_tests") == "pure"
    output = await ok(box, "bash", command="touch x || echo refused")
    assert "refused" in output.text and output.changed == ()
    await ok(box, "read", path="README.md")
    assert await space.snapshot() == space.base_tree
    await box.close()


def parent(pid: int) -> int:
    """0 if it has ended."""
    with suppress(OSError):
        return int(re.findall(r"PPid:\t(\d+)", Path(f"/proc/{pid}/status").read_text())[0])
    return 0


async def test_closing_ends_the_helper_and_lets_the_workspace_go(
    tmp_path: Path, space: Workspace, box: ToolBox
) -> None:
    """Every finished job would leave a process behind, and its tree locked."""
    before = processes_with("/run/files.py")
    await ok(box, "read", path="README.md")
    assert set(processes_with("/run/files.py")) - set(before)
    await box.close()
    await box.close()
    space.release()
    again = await workspace(tmp_path)
    assert again.tree_path == space.tree_path
    again.release()


def test_a_link_that_was_swapped_in_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the check of a path and its use, a link could take its place."""
    put(tmp_path, {"outside/f": "secret", "root/real/f": "x"})
    monkeypatch.setattr(inside, "ROOT", str(tmp_path / "root"))
    (tmp_path / "root/dir").symlink_to(tmp_path / "outside")
    (tmp_path / "root/real/leaf").symlink_to(tmp_path / "outside/f")
    monkeypatch.setattr(inside, "canonical", lambda path: path)  # as it was when checked
    assert inside.load("real/f")[1] == b"x"
    for path in ("dir/f", "real/leaf"):
        with pytest.raises(OSError, match=r"directory|symbolic links"):
            inside.load(path)
    with pytest.raises(OSError, match="directory"):
        inside.save("dir/f", b"x", 0o644)
    inside.save("real/leaf", b"y", 0o644)
    assert (tmp_path / "outside/f").read_text() == "secret"


async def test_a_long_file_is_shortened_and_kept_whole(space: Workspace, box: ToolBox) -> None:
    """A long file would fill the conversation, or its middle would be out of reach."""
    put(space.tree_path, {"long": "".join(f"line {n}\n" for n in range(5_000))})
    output = await ok(box, "read", path="long")
    assert output.full is not None and b"line 2500" in output.full
    (handle,) = re.findall(r"artifact ([0-9a-f]{64})", output.text)
    assert handle == hashlib.sha256(output.full).hexdigest()
