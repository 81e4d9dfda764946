"""Runs in the sandbox: what comes back, and that nothing is left of them."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from actors.errors import DiskFullError, SandboxError
from actors.sandbox import Limits, Sandbox, kill_orphans
from actors.sandbox.limits import Group, Groups
from actors.sandbox.process import SandboxProcess
from tests.workshop import (
    SANDBOX,
    a_year,
    bash,
    job_tree,
    names,
    needs_root,
    needs_sandbox,
    processes_with,
    until,
    wait_until_ended,
)

pytestmark = needs_sandbox


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return job_tree(tmp_path, {"a.txt": "hello\n"})


async def test_a_command_sees_the_workspace_and_its_result_comes_back(tree: Path) -> None:
    """No command would work."""
    done = await bash(tree, "pwd; cat a.txt; echo no >&2; echo new > b.txt; exit 7")
    assert (done.exit_code, done.stdout, done.stderr) == (7, b"/workspace\nhello\n", b"no\n")
    assert (tree / "b.txt").read_text() == "new\n"
    assert (tree / "b.txt").stat().st_uid == tree.stat().st_uid
    assert not (done.truncated or done.timed_out or done.stopped)


async def test_a_read_only_workspace_can_not_be_written(tree: Path) -> None:
    """A reviewer's command could change what it reviews."""
    done = await bash(tree, "cat a.txt; echo x > a.txt; touch b", read_only=True)
    assert done.stdout == b"hello\n" and done.exit_code != 0
    assert (names(tree), (tree / "a.txt").read_text()) == (["a.txt"], "hello\n")


async def test_a_folder_beside_the_workspace_is_seen_inside_it_and_may_be_written(
    tree: Path, tmp_path: Path
) -> None:
    """Dependencies would have to lie in the tree, where they look like the agent's change."""
    beside = tmp_path / "beside"
    beside.mkdir()
    (beside / "made").write_text("by setup\n")
    os.chown(beside, tree.stat().st_uid, tree.stat().st_gid)
    (tree / "lib").mkdir()
    for read_only in (False, True):
        binds = {"/workspace/lib": beside}
        done = await bash(tree, "cat lib/made; echo 1 >> lib/new", read_only=read_only, binds=binds)
        assert (done.exit_code, done.stdout) == (0, b"by setup\n")
    assert (beside / "new").read_text() == "1\n1\n"
    assert names(tree / "lib") == []


async def test_standard_input_is_what_was_given_or_empty(tree: Path) -> None:
    """A command that reads its input would hang, or read ours."""
    large = os.urandom(300_000)
    assert (await bash(tree, "cat", stdin=large)).stdout == large
    assert (await bash(tree, "cat")).stdout == b""
    assert (await bash(tree, "exit 3", stdin=large)).exit_code == 3


async def test_only_the_given_environment_is_added(tree: Path) -> None:
    """A command would depend on, or learn, how Troupe was started."""
    done = await bash(tree, 'echo "$GREETING $HOME $(id -un)"', env={"GREETING": "hi there"})
    assert done.stdout == b"hi there /tmp/home agent\n"


async def test_streams_can_come_in_one_order(tree: Path) -> None:
    """An error would be shown away from the line that it belongs to."""
    done = await bash(tree, "echo 1; echo 2 >&2; echo 3", merge_streams=True)
    assert (done.stdout, done.stderr) == (b"1\n2\n3\n", b"")


async def test_a_signal_shows_in_the_exit_code(tree: Path) -> None:
    """A crashed test run would pass for a failed or a passed one."""
    assert (await bash(tree, "kill -SEGV $$")).exit_code == 128 + signal.SIGSEGV


async def test_a_long_output_keeps_head_and_tail(tree: Path) -> None:
    """The error at the end of a long build would be cut off."""
    done = await bash(tree, "echo first; seq 100000; echo last", output_bytes_max=1_000)
    assert done.truncated
    assert done.stdout.startswith(b"first\n1\n") and done.stdout.endswith(b"100000\nlast\n")
    assert len(done.stdout) < 1_100 and b"bytes not kept" in done.stdout


async def test_time_is_limited_and_partial_output_kept(tree: Path) -> None:
    """A hanging test would hold its job, and nobody would see how far it came."""
    done = await bash(tree, "trap '' TERM INT; echo begun; sleep 600", timeout_s=2)
    assert (done.timed_out, done.stopped, done.stdout) == (True, "timeout", b"begun\n")
    assert done.exit_code == 137


async def test_a_cancelled_run_leaves_nothing(tree: Path) -> None:
    """A cancelled job would go on working."""
    marker = a_year()
    running = asyncio.ensure_future(bash(tree, f"setsid sleep {marker} & sleep {marker}; touch x"))
    await until(lambda: processes_with(f"sleep\0{marker}"))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not processes_with(marker)
    assert names(tree) == ["a.txt"]


async def test_a_run_cancelled_while_it_starts_never_runs(tree: Path) -> None:
    """A command could run after the job was told that it did not."""
    for turns in range(6):
        marker = a_year()
        await SANDBOX.probe()
        running = asyncio.ensure_future(bash(tree, f"sleep {marker}"))
        for _ in range(turns):
            await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert not processes_with(marker)


async def test_what_a_command_leaves_running_ends_with_it(tree: Path) -> None:
    """A daemon would change the workspace after it was recorded."""
    done = await bash(tree, "(setsid sh -c 'while :; do date >> log; done' &) ; echo ok")
    assert done.stdout == b"ok\n"
    size = (tree / "log").stat().st_size if (tree / "log").exists() else 0
    await bash(tree, "true")
    assert (tree / "log").stat().st_size == size if size else True
    assert not processes_with("date >> log")


HOST = """
import asyncio, sys
from pathlib import Path
from tests.workshop import bash

asyncio.run(bash(Path(sys.argv[1]), f"setsid sleep {sys.argv[2]} & sleep {sys.argv[2]}"))
"""


async def test_the_death_of_the_host_ends_its_commands(tree: Path) -> None:
    """A killed host would leave commands that write into a tree which another host took over."""
    marker = a_year()
    host = subprocess.Popen(
        [sys.executable, "-c", HOST, str(tree), marker], cwd=Path(__file__).parents[2]
    )
    await until(lambda: processes_with(f"sleep\0{marker}") or host.poll() is not None)
    assert host.poll() is None
    inside = processes_with(marker)
    host.kill()
    host.wait()
    wait_until_ended(inside)


DYING_HOSTS = """
import asyncio, os, signal, sys, time
from pathlib import Path
from tests.workshop import SANDBOX, bash

tree = Path(sys.argv[1])
asyncio.run(bash(tree, "true"))
for number in range(24):
    child = os.fork()
    if child == 0:
        asyncio.run(bash(tree, f"echo ran >> ran; sleep {sys.argv[2]}"))
    time.sleep(number * 0.0015)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""


async def test_a_host_that_dies_while_a_sandbox_is_made_leaves_nothing(tree: Path) -> None:
    """The command would run with nobody to stop it, since bubblewrap misses such a death."""
    marker = a_year()
    subprocess.run(
        [sys.executable, "-c", DYING_HOSTS, str(tree), marker],
        cwd=Path(__file__).parents[2], check=True,
    )  # fmt: skip
    ran = (tree / "ran").stat().st_size if (tree / "ran").exists() else 0
    await until(lambda: kill_orphans() == 0 and not processes_with(marker))
    assert ((tree / "ran").stat().st_size if ran else 0) == ran


DYING_AT_THE_GATE = """
import asyncio, os, signal, sys
from pathlib import Path
from actors.sandbox.process import SandboxProcess
from tests.workshop import SANDBOX, bash

asyncio.run(SANDBOX.probe())
SandboxProcess._open_gate = lambda self: os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(bash(Path(sys.argv[1]), f"echo ran >> ran; sleep {sys.argv[2]}"))
"""


async def test_a_command_whose_host_is_dead_is_not_begun(tree: Path) -> None:
    """It would change a tree that has another owner by then."""
    marker = a_year()
    died = subprocess.run(
        [sys.executable, "-c", DYING_AT_THE_GATE, str(tree), marker],
        cwd=Path(__file__).parents[2], check=False,
    )  # fmt: skip
    assert died.returncode == -signal.SIGKILL
    with suppress(TimeoutError):  # one that has missed the death waits for ever: see `orphans`
        await until(lambda: not processes_with(marker) or (tree / "ran").exists(), within_s=5)
    assert names(tree) == ["a.txt"]
    await until(lambda: kill_orphans() == 0 and not processes_with(marker))


async def test_a_living_sandbox_is_no_orphan(tree: Path) -> None:
    """A host that starts would kill the commands of the others on its machine."""
    command = "touch begun; until [ -e go ]; do sleep 0.01; done; echo done"
    running = asyncio.ensure_future(bash(tree, command))
    await until((tree / "begun").exists)
    kill_orphans()  # of other tests, if they have left any
    (tree / "go").touch()
    assert (await running).stdout == b"done\n"


async def test_many_runs_at_once_do_not_meet(tmp_path: Path) -> None:
    """Jobs on one host would see each other's files or output."""
    places = [tmp_path / str(number) for number in range(8)]
    for place in places:
        place.mkdir()
    trees = [job_tree(place) for place in places]
    runs = [
        bash(tree, f"echo {n} > n; ls /proc | grep -c '^[0-9]'") for n, tree in enumerate(trees)
    ]
    for number, done in enumerate(await asyncio.gather(*runs)):
        assert int(done.stdout) < 8
        assert (trees[number] / "n").read_text() == f"{number}\n"


async def test_memory_of_all_processes_together_is_limited(tree: Path) -> None:
    """One job's test suite would take the whole machine down."""
    sandbox = Sandbox(Limits(memory_bytes=64 << 20))
    report = await sandbox.probe()
    if report.missing:
        pytest.skip(report.missing[0])
    hog = "python3 -c 'x = bytearray(200 << 20); print(len(x))'"
    done = await sandbox.run(["bash", "-c", hog], workspace=tree)
    assert b"209715200" not in done.stdout and done.exit_code != 0
    spread = "for n in 1 2 3 4 5; do head -c 20M /dev/zero > /tmp/$n || exit 9; done; echo fits"
    done = await sandbox.run(["bash", "-c", spread], workspace=tree)
    assert b"fits" not in done.stdout and done.stopped == "memory"


def test_both_kinds_of_control_groups_are_written_as_the_kernel_reads_them(tmp_path: Path) -> None:
    """Memory would be limited on half of the machines only."""
    for v2, files in {
        True: {"memory.max": "7", "memory.swap.max": "0", "cgroup.procs": "42"},
        False: {"memory.limit_in_bytes": "7", "memory.memsw.limit_in_bytes": "7", "tasks": "0"},
    }.items():
        group = Group(tmp_path / str(v2), v2)
        group.directory.mkdir()
        group.limit(7)
        assert group.started(lambda: "it") == "it"
        if v2:
            group.add(42)
        else:
            assert (tmp_path / "tasks").read_text() == "0"  # the thread is out of it again
        assert {path.name: path.read_text() for path in group.directory.iterdir()} == files
    (tmp_path / "True" / "memory.events").write_text("low 0\noom 3\noom_kill 2\n")
    (tmp_path / "False" / "memory.oom_control").write_text("under_oom 0\noom_kill 0\n")
    assert Group(tmp_path / "True", True).out_of_memory()
    assert not Group(tmp_path / "False", False).out_of_memory()
    assert Groups.detect(tmp_path / "none") is None


async def test_the_number_of_processes_is_limited(tree: Path) -> None:
    """A fork bomb would take the whole machine down."""
    sandbox = Sandbox(Limits(processes_max=20))
    bomb = "import os, signal\nwhile os.fork(): print('.', flush=True)\nsignal.pause()"
    done = await sandbox.run([sandbox.toolchain.python, "-c", bomb], workspace=tree, timeout_s=20)
    assert b"BlockingIOError" in done.stderr
    assert 1 < done.stdout.count(b".") < 20


async def test_every_limit_holds_for_the_command_itself(tree: Path) -> None:
    """A limit could be set on a process that the command does not come from."""
    sandbox = Sandbox(Limits(open_files_max=77, processes_max=88, file_bytes_max=99 << 10))
    done = await sandbox.run(["bash", "-c", "ulimit -Hn -Hu -Hf -Hc -Hl"], workspace=tree)
    values = [line.split()[-1] for line in done.stdout.decode().splitlines()]
    assert values == ["77", "88", "99", "0", "64"]


async def test_the_size_of_a_file_and_of_scratch_is_limited(tree: Path) -> None:
    """A command would fill the host's disk or memory."""
    sandbox = Sandbox(Limits(file_bytes_max=1 << 20, tmp_bytes=1 << 20))
    done = await sandbox.run(
        ["bash", "-c", "head -c 3M /dev/zero > big; cd /tmp; for n in 1 2 3; do"
         " head -c 900K /dev/zero > $n || echo full; done"],
        workspace=tree,
    )  # fmt: skip
    assert (tree / "big").stat().st_size == 1 << 20
    assert b"full" in done.stdout


@needs_root
async def test_a_command_that_fills_the_disk_is_stopped(tmp_path: Path) -> None:
    """One job would take the disk from every other."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "none", disk], check=True)
    try:
        tree = job_tree(disk)
        sandbox = Sandbox(Limits(disk_free_bytes_min=20 << 20))
        command = "for n in $(seq 100); do head -c 1M /dev/zero > $n; done; sleep 60"
        done = await sandbox.run(["bash", "-c", command], workspace=tree)
        assert done.stopped == "disk"
        with pytest.raises(DiskFullError):
            await sandbox.run(["true"], workspace=tree)
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


async def test_more_of_the_machine_is_seen_only_where_the_operator_says(
    tree: Path, tmp_path: Path
) -> None:
    """A toolchain outside /usr could not be used, or could be written to."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "hi").write_text("hi\n")
    sandbox = Sandbox(ro_binds={"/opt/tools": tools})
    done = await sandbox.run(
        ["bash", "-c", "cat /opt/tools/hi; touch /opt/tools/x"], workspace=tree
    )
    assert (done.stdout, done.exit_code) == (b"hi\n", 1)
    assert not (await bash(tree, "ls /opt")).stdout


@pytest.mark.parametrize("argv", [["a\0b"], ["x" * 200_000], ["true"] * 200_000])
async def test_a_command_that_can_not_be_started_is_an_error_of_its_own(
    tree: Path, argv: list[str]
) -> None:
    """It would look as if the command had run and failed."""
    with pytest.raises(SandboxError):
        await SANDBOX.run(argv, workspace=tree)


@needs_root
async def test_a_tree_that_belongs_to_no_job_is_refused(tmp_path: Path) -> None:
    """A command would run as root, or as a person."""
    with pytest.raises(SandboxError, match="belongs to user 0"):
        await SANDBOX.run(["true"], workspace=tmp_path)


async def test_a_run_leaves_no_dead_process(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container whose first process waits for nobody, the process table would fill."""
    started: list[int] = []
    watch = SandboxProcess._watch

    def noting(self: SandboxProcess, pid: int, ended: Callable[[int], None]) -> None:
        started.append(pid)
        watch(self, pid, ended)

    monkeypatch.setattr(SandboxProcess, "_watch", noting)
    for command in ("true", "sleep 5 & true", "kill -9 $$"):
        await bash(tree, command)
    await bash(tree, "sleep 5", timeout_s=0.05)
    assert len(started) == 8
    assert not [pid for pid in started if Path(f"/proc/{pid}").exists()]


async def test_a_run_leaves_no_file_open(tree: Path) -> None:
    """A host would run out of descriptors after some thousand tools."""
    await bash(tree, "true", stdin=b"x")
    gc.collect()  # else an earlier test's event loop may be closed within a count
    before = names(Path("/proc/self/fd"))
    groups = SANDBOX._groups
    for _ in range(3):
        await bash(tree, "true", stdin=b"x")
        await bash(tree, "sleep 5", timeout_s=0.05)
        with pytest.raises(SandboxError):
            await SANDBOX.run(["x" * 200_000], workspace=tree)
    assert len(names(Path("/proc/self/fd"))) <= len(before)
    if groups is not None:
        await bash(tree, "true")  # what was not empty yet is tried again with the next run
        assert (
            len([name for name in names(groups.parent) if name.startswith(f"{os.getpid()}-")]) <= 1
        )
