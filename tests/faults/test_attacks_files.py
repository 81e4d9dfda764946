"""Attacks through paths and files: no tool reads or writes anything but the workspace."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from actors.sandbox import owner_of_job
from actors.tools import ToolBox
from actors.workspace import Workspace
from tests.workshop import SANDBOX, bash, names, needs_root, needs_sandbox, put, workspace

pytestmark = needs_sandbox

SECRET = "canary-5e1f2a"


@pytest.fixture
async def space(tmp_path: Path) -> AsyncIterator[Workspace]:
    put(tmp_path, {"secret/key": SECRET, "secret/id_rsa": SECRET})
    made = await workspace(tmp_path, {"README.md": "hello\n", "src/a.py": "x = 1\n"})
    yield made
    await made.close()


async def every_tool(box: ToolBox, path: str) -> str:
    """All that the file tools and git say about a path."""
    calls = [
        ("read", {"path": path}),
        ("edit", {"path": path, "old_string": SECRET, "new_string": "x"}),
        ("write", {"path": path, "content": "written"}),
        ("glob", {"pattern": "**", "path": path}),
        ("grep", {"pattern": "canary", "path": path}),
        ("git_diff", {"paths": [path]}),
        ("git_log", {"path": path}),
        ("git_blame", {"path": path, "start": 1, "end": 1}),
    ]
    return "\n".join([(await box.run(name, asked)).text for name, asked in calls])


async def test_16_links_to_files_and_directories_outside(
    tmp_path: Path, space: Workspace, box: ToolBox
) -> None:
    """A link in the workspace would open the machine's files to the tools."""
    tree = space.tree_path
    (tree / "file").symlink_to(tmp_path / "secret/key")
    (tree / "dir").symlink_to(tmp_path / "secret")
    (tree / "relative").symlink_to("../../../../../secret/key")
    (tree / "passwd").symlink_to("/etc/passwd")
    (tree / "chain").symlink_to("file")
    for path in ("file", "dir", "dir/key", "relative", "passwd", "chain"):
        said = await every_tool(box, path)
        assert SECRET not in said and "root:" not in said
        assert "is outside the repository." in said
    whole = await box.run("grep", {"pattern": "canary|root:"})
    assert whole.text == "No line matches."
    assert (tmp_path / "secret/key").read_text() == SECRET


async def test_16_a_dangling_link_does_not_make_its_target(
    tmp_path: Path, space: Workspace, box: ToolBox
) -> None:
    """Writing through a link would create files outside."""
    (space.tree_path / "dangling").symlink_to(tmp_path / "made")
    (space.tree_path / "loop").symlink_to("loop")
    for path in ("dangling", "loop"):
        assert (await box.run("write", {"path": path, "content": "x"})).is_error
    assert not (tmp_path / "made").exists()


async def test_16_a_link_swapped_between_check_and_use(space: Workspace, box: ToolBox) -> None:
    """Whoever swaps fast enough would read what the check had refused."""
    tree = space.tree_path
    put(tree, {"real/f": "harmless\n", "swap/f": "harmless\n"})
    (tree / "swap" / "f").unlink()
    (tree / "swap").rmdir()
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for target in ("real", "/etc"):
                (tree / "next").symlink_to(target)
                (tree / "next").rename(tree / "swap")

    (tree / "real" / "passwd").write_text("harmless\n")
    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        said = [(await box.run("read", {"path": "swap/passwd"})).text for _ in range(300)]
    finally:
        stop.set()
        swapper.join()
    assert any("harmless" in text for text in said)
    assert not any("root:" in text for text in said)


LEAVING = (
    "../secret/key", "src/../../secret/key", "/etc/passwd", "/workspace/../etc/passwd",
    "~/.ssh/id_rsa", "file:///etc/passwd", "/proc/self/environ", "/proc/1/environ", "a\x00b",
    "a\nb", "x" * 4096, "/" * 4000, "\udcff", "SRC/A.PY", ".git/config", "/workspace/.git",
    "-rf", "--help", "$(id)", "`id`", "; id", "%2e%2e/secret/key", "..\\..\\secret",
    "\u2024\u2024/x", "/dev/mem", "/dev/tty", "//etc/passwd", "./././../etc/passwd", "", " ",
)  # fmt: skip


async def test_17_paths_that_try_to_leave(box: ToolBox, space: Workspace) -> None:
    """A path from a model would reach outside, or stop the job."""
    for path in LEAVING:
        said = await every_tool(box, path)
        assert SECRET not in said and "root:" not in said and "uid=" not in said, path
    await space.snapshot()


async def test_18_hard_links_to_files_outside(space: Workspace) -> None:
    """A file of the machine would become one of the workspace."""
    done = await bash(space.tree_path, "ln /etc/passwd a; ln /usr/bin/env b; ln -P /proc/1/exe c")
    assert done.exit_code != 0
    assert names(space.tree_path) == ["README.md", "src"]


async def test_19_pipes_devices_and_sockets_do_not_hang(space: Workspace, box: ToolBox) -> None:
    """Reading a pipe that nobody writes to would stop the job for ever."""
    made = "mkfifo pipe; mknod dev c 1 3; mknod mem c 1 1; ln -s /dev/zero zero; ln -s /dev/tty tty"
    done = await bash(space.tree_path, made)
    assert b"mknod: dev: Operation not permitted" in done.stderr
    for path in ("pipe", "zero", "tty"):
        said = await every_tool(box, path)
        assert "not a regular file" in said or "outside the repository" in said
    assert (await box.run("grep", {"pattern": "hello"})).text.startswith("README.md:1:")


async def test_20_a_sparse_giant_and_a_hundred_thousand_files(
    space: Workspace, box: ToolBox
) -> None:
    """A bomb of size or number would fill the disk or stop the tools."""
    done = await bash(space.tree_path, "truncate -s 10G giant; truncate -s 900M large; ls")
    assert b"File size limit exceeded" in done.stderr and b"giant" in done.stdout
    assert (space.tree_path / "giant").stat().st_size == 0
    assert "at most" in (await box.run("read", {"path": "large"})).text
    many = "rm giant large; mkdir many; cd many; seq 20000 | xargs touch"
    assert (await bash(space.tree_path, many)).exit_code == 0
    found = await box.run("glob", {"pattern": "many/*"})
    assert len(found.text) <= 16_000 and "[19000 more]" in found.text


async def test_20_directories_a_thousand_deep(space: Workspace, box: ToolBox) -> None:
    """A walk that calls itself would end the helper, or the host."""
    dig = "import os\nfor n in range(1500): os.mkdir('d'); os.chdir('d')\nopen('leaf', 'w')"
    await SANDBOX.run([SANDBOX.toolchain.python, "-c", dig], workspace=space.tree_path)
    assert not (await box.run("grep", {"pattern": "canary"})).is_error
    assert not (await box.run("glob", {"pattern": "**/leaf"})).is_error
    await space.restore(space.base_tree)


async def test_21_set_user_id_and_closed_files(space: Workspace, box: ToolBox) -> None:
    """A program left in the workspace would run with its owner's rights, or stop the record."""
    await bash(space.tree_path, "cp /usr/bin/id own; chmod 6755 own; touch closed; chmod 0 closed")
    assert "Permission denied" in (await box.run("read", {"path": "closed"})).text
    if os.geteuid() == 0:
        changes = await space.changes(space.base_tree, await space.snapshot())
        modes = {change.path: change.new_mode for change in changes}
        assert modes == {"own": "100755", "closed": "100644"}
    ran = await bash(space.tree_path, "./own -u")
    assert ran.stdout.strip() == str(owner_of_job("job_1") or 1000).encode()


async def test_31_modules_in_the_workspace_do_not_reach_the_file_tools(
    space: Workspace, box: ToolBox
) -> None:
    """A `json.py` in the repository would become part of our own helper."""
    evil = "import os\nos.system('touch /workspace/ran')\n"
    modules = ("json", "re", "os", "sitecustomize", "usercustomize", "hashlib", "struct")
    put(space.tree_path, {f"{name}.py": evil for name in modules})
    put(space.tree_path, {"evil.pth": "import os; os.system('touch /workspace/ran')\n"})
    assert not (await box.run("read", {"path": "README.md"})).is_error
    assert not (space.tree_path / "ran").exists()


async def test_31_the_interpreter_and_the_system_can_not_be_changed(space: Workspace) -> None:
    """The next command, or Troupe itself, would run what this one planted."""
    places = [*SANDBOX.toolchain.prefixes, Path("/usr/lib"), Path("/usr/local/bin"), Path("/etc")]
    for place in places:
        planted = f"{place}/planted.pth"
        present = names(place)
        done = await bash(space.tree_path, f"touch '{planted}'; rmdir '{place}'; id >> '{planted}'")
        assert b"Read-only file system" in done.stderr and done.exit_code != 0
        assert names(place) == present


@needs_root
async def test_31_one_jobs_files_are_closed_to_another(tmp_path: Path, space: Workspace) -> None:
    """An agent could read what another organization's agent works on."""
    other = await workspace(tmp_path, job_id="job_2")
    put(other.tree_path, {"private": SECRET})
    done = await bash(
        space.tree_path, f"cat {other.tree_path}/private; grep -r canary / --include=private 2>&-"
    )
    assert SECRET.encode() not in done.stdout
    assert other.tree_path.stat().st_uid != space.tree_path.stat().st_uid
