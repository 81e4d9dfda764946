"""Commands, tests and questions to git, as a model asks for them."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from actors.errors import DiskFullError
from actors.sandbox import Limits, Sandbox
from actors.tools import ToolBox
from actors.workspace import Workspace
from tests.workshop import Policy, Shelf, commit, needs_sandbox, put, toolbox, workspace

pytestmark = needs_sandbox

TESTS = """
import unittest


class TestSum(unittest.TestCase):
    def test_good(self):
        self.assertEqual(1 + 1, 2)

    def test_bad(self):
        self.assertEqual(1 + 1, 3, "sums")
"""


@pytest.fixture
async def space(tmp_path: Path) -> AsyncIterator[Workspace]:
    made = await workspace(tmp_path, {"a.txt": "one\n", "test_sum.py": TESTS, "sub/x": "x\n"})
    yield made
    await made.close()


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
async def box(space: Workspace, shelf: Shelf) -> AsyncIterator[ToolBox]:
    made = toolbox(space, shelf)
    yield made
    await made.close()


async def test_bash_shows_exit_code_and_output(space: Workspace, box: ToolBox) -> None:
    """A model would not know whether its command worked."""
    output = await box.run("bash", {"command": "cat a.txt; echo bad >&2; echo y > b; exit 3"})
    assert output.text == "exit code 3\none\nbad\n"
    assert (output.is_error, output.changed, output.data) == (False, None, {"exitCode": 3})
    assert (space.tree_path / "b").read_text() == "y\n"


async def test_each_bash_call_is_a_new_shell(box: ToolBox) -> None:
    """A resumed job would lack what an earlier shell remembered."""
    await box.run("bash", {"command": "cd sub; export X=1; touch /tmp/kept"})
    output = await box.run("bash", {"command": 'pwd; echo "[$X]"; ls /tmp/kept'})
    assert output.text.splitlines()[1:3] == ["/workspace", "[]"]
    assert "No such file" in output.text
    assert (await box.run("bash", {"command": "pwd", "cwd": "sub"})).text.endswith(
        "/workspace/sub\n"
    )
    assert "exit code 126" in (await box.run("bash", {"command": "pwd", "cwd": "nope"})).text


async def test_bash_is_stopped_in_time_and_says_so(box: ToolBox) -> None:
    """A hanging command would hold the job, or look like one that failed."""
    output = await box.run("bash", {"command": "echo begun; sleep 60", "timeout_s": 1})
    assert output.is_error and output.text == "exit code 137 (killed after 1 s)\nbegun\n"


async def test_an_endless_output_is_stopped_and_shortened(box: ToolBox) -> None:
    """`yes` would fill memory, journal and conversation."""
    output = await box.run("bash", {"command": "yes"})
    assert output.text.startswith("exit code 137 (killed: it printed too much)\ny\n")
    assert len(output.text) <= 16_000
    assert output.full is not None and len(output.full) < 5 << 20


async def test_the_whole_of_a_long_output_can_be_read_in_parts(box: ToolBox, shelf: Shelf) -> None:
    """What was left out would be lost."""
    output = await box.run("bash", {"command": "seq 20000"})
    assert output.full is not None
    handle = await shelf.put("x", output.full)
    assert handle in output.text
    part = await box.run("artifact_read", {"id": handle, "offset": 12, "limit": 9})
    assert part.text == f"[12 to 21 of {len(output.full)} characters]\n1\n2\n3\n4\n5"
    for wrong in ("0" * 64, "../../etc/passwd", ""):
        missing = await box.run("artifact_read", {"id": wrong, "offset": 0, "limit": 9})
        assert missing.is_error


@pytest.mark.parametrize("command", ["echo \0", "true " + "é" * 70_000])
async def test_a_command_that_can_not_be_passed_is_refused(box: ToolBox, command: str) -> None:
    """A command would fail as if the sandbox were broken."""
    assert (await box.run("bash", {"command": command})).is_error


async def test_the_verdict_of_tests_is_their_exit_code(space: Workspace, box: ToolBox) -> None:
    """A failed test run could pass for a good one."""
    output = await box.run("run_tests", {})
    assert output.text.startswith(
        "exit code 1: tests FAILED\nThe runner reports 1 passed, 1 failed"
    )
    assert "sums" in output.text and output.changed is None
    assert output.data["exitCode"] == 1 and output.data["passed"] is False
    assert output.data["failing"] == ["test_sum.py::TestSum::test_bad"]
    again = await box.run("run_tests", {"last_failed": True})
    assert "0 passed, 1 failed" in again.text
    one = await box.run("run_tests", {"targets": ["test_sum.py::TestSum::test_good"]})
    assert one.text.startswith("exit code 0: tests PASSED\nThe runner reports 1 passed, 0 failed")
    assert one.data["passed"] is True
    assert await space.snapshot() == space.base_tree  # no cache, no bytecode


async def test_a_runner_without_a_report_is_shown_by_its_output(space: Workspace) -> None:
    """Repositories that do not use pytest could not be tested."""
    box = toolbox(space, commands=Policy(test="python -m unittest -q"))
    output = await box.run("run_tests", {})
    assert output.text.startswith("exit code 1: tests FAILED\n--- output\n")
    assert "FAILED (failures=1)" in output.text and "summary" not in output.data


async def test_tests_that_can_not_be_run_are_said_so(space: Workspace, box: ToolBox) -> None:
    """A model would take a missing command for a failing test."""
    none = toolbox(space, commands=Policy(test=None))
    assert "No test command" in (await none.run("run_tests", {})).text
    assert "not an option" in (await box.run("run_tests", {"targets": ["--pdb"]})).text
    assert "No failing test" in (await box.run("run_tests", {"last_failed": True})).text
    injected = await box.run("run_tests", {"targets": ["x; touch injected"]})
    assert injected.data["exitCode"] != 0
    assert not (space.tree_path / "injected").exists()


async def test_git_diff_shows_the_work_so_far(space: Workspace, box: ToolBox) -> None:
    """A model could not review its own work."""
    assert (await box.run("git_diff", {})).text == "Nothing has changed."
    put(space.tree_path, {"a.txt": "two\n", "sub/x": "y\n"})
    await space.snapshot()
    whole = (await box.run("git_diff", {})).text
    assert "-one\n+two" in whole and "+y" in whole
    part = (await box.run("git_diff", {"paths": ["sub"]})).text
    assert "+y" in part and "+two" not in part


async def test_git_log_and_blame_tell_the_history(tmp_path: Path, space: Workspace) -> None:
    """A model could not see why a line is as it is."""
    origin = tmp_path / "origin"
    put(origin, {"a.txt": "one\ntwo\n"})
    second = commit(origin, "add two\x1b[31m")
    other = await workspace(tmp_path, job_id="job_2")
    box = toolbox(other)
    log = (await box.run("git_log", {})).text
    assert log.splitlines()[0] == f"{second[:7]} 2023-11-14 Ada: add two\\x1b[31m"
    assert len(log.splitlines()) == 2
    assert len((await box.run("git_log", {"path": "sub/x"})).text.splitlines()) == 1
    assert len((await box.run("git_log", {"n": 1})).text.splitlines()) == 1
    blame = (await box.run("git_blame", {"path": "a.txt", "start": 2, "end": 2})).text
    assert blame.startswith(second[:7]) and blame.strip().endswith("two")
    for path, start, end in (
        ("no", 1, 1),
        ("a.txt", 2, 1),
        ("a.txt", 7, 9),
        ("--contents=x", 1, 1),
    ):
        assert (await box.run("git_blame", {"path": path, "start": start, "end": end})).is_error


async def test_control_tools_are_checked_and_left_to_the_loop(box: ToolBox) -> None:
    """A wrong `finish` would end the job, or a right one be done twice."""
    asked = {"question": "Which?", "options": ["a", "b"]}
    output = await box.run("ask_human", asked)
    assert (output.data, output.is_error, output.changed) == (asked, False, ())
    assert (await box.run("finish", {"summary": "x"})).is_error


async def test_an_unknown_tool_is_answered_with_the_near_name(box: ToolBox) -> None:
    """A typing error of the model would end the job."""
    assert (await box.run("reed", {})).text == "There is no tool 'reed'. Did you mean read?"
    assert box.kind("reed") == "pure"
    few = ToolBox(box._workspace, box._sandbox, Policy(), Shelf(), names=("read", "finish"))
    assert (await few.run("bash", {"command": "true"})).is_error
    assert [made["name"] for made in few.definitions()] == ["read", "finish"]
    assert [made["name"] for made in few.definitions(["finish", "bash"])] == ["finish"]


async def test_a_full_disk_is_the_operators_error_and_not_the_models(space: Workspace) -> None:
    """The model would be asked to mend the machine, and the job would fail for good."""
    full = Sandbox(Limits(disk_free_bytes_min=sys.maxsize))
    box = ToolBox(space, full, Policy(), Shelf())
    with pytest.raises(DiskFullError, match="free some space"):
        await box.run("bash", {"command": "true"})


async def test_the_agent_has_no_git_of_its_own(box: ToolBox) -> None:
    """A command could read or change the history that the harness trusts."""
    output = await box.run("bash", {"command": "git status; ls -a; find / -name 'pack-*' 2>&-"})
    assert "not a git repository" in output.text
    assert ".git" not in output.text.split() and "pack-" not in output.text
