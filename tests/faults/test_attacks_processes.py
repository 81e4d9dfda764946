"""Attacks by processes: nothing gets out of a sandbox, and nothing of one outlives its run."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from actors.sandbox import Limits, Sandbox
from actors.tools import ToolBox
from actors.workspace import Workspace
from tests.workshop import (
    SANDBOX,
    a_year,
    bash,
    job_tree,
    needs_sandbox,
    processes_with,
    workspace,
)

pytestmark = needs_sandbox

SECRET = "canary-77aa01"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return job_tree(tmp_path, {"README.md": "hello\n"})


@pytest.fixture
async def space(tmp_path: Path) -> AsyncIterator[Workspace]:
    made = await workspace(tmp_path)
    yield made
    await made.close()


async def python(tree: Path, code: str) -> str:
    """What a Python program in the sandbox prints, with its errors."""
    done = await SANDBOX.run(
        [SANDBOX.toolchain.python, "-c", code], workspace=tree, merge_streams=True, timeout_s=20
    )
    return done.stdout.decode()


async def test_22_a_fork_bomb(tree: Path) -> None:
    """One command would take the machine's processes from everybody."""
    done = await bash(tree, ": forkbomb-22; f() { f | f & }; f; sleep 60", timeout_s=1.5)
    assert done.timed_out
    assert not processes_with("forkbomb-22")
    assert (await bash(tree, "echo alive")).stdout == b"alive\n"


@pytest.mark.parametrize(
    "escape",
    ["setsid sleep {} &", "nohup sleep {} &", "(setsid sh -c 'setsid sleep {} &' &)",
     "sleep {} & disown", "exec -a innocent sleep {} &"],
)  # fmt: skip
async def test_23_daemons(tree: Path, escape: str) -> None:
    """A daemon would go on working after its job was told that it ended."""
    marker = a_year()
    done = await bash(tree, f"{escape.format(marker)}\necho ok")
    assert done.stdout == b"ok\n"
    assert not processes_with(f"\0{marker}")


async def test_24_memory(tree: Path) -> None:
    """One command would take the machine's memory from everybody."""
    sandbox = Sandbox(Limits(memory_bytes=128 << 20))
    hog = "x = []\nwhile True: x.append(bytearray(16 << 20))"
    done = await sandbox.run([sandbox.toolchain.python, "-c", hog], workspace=tree)
    assert done.exit_code != 0
    assert done.stopped == "memory" or b"MemoryError" in done.stderr


async def test_25_a_spin_that_ignores_signals(tree: Path) -> None:
    """A command could not be stopped."""
    code = "trap '' TERM INT HUP QUIT XCPU; while :; do :; done"
    done = await bash(tree, code, timeout_s=0.5)
    assert done.timed_out and done.duration_ms < 10_000


@pytest.mark.parametrize(
    "flood",
    ["yes", "cat /dev/zero", "head -c 200M /dev/zero | tr '\\0' x", "yes >&2",
     "printf '\\033]52;c;x\\007\\033[2J\\377\\376\\342\\200\\256'; yes"],
)  # fmt: skip
async def test_26_floods_escapes_and_endless_lines(box: ToolBox, flood: str) -> None:
    """Output would fill the host's memory or take over a reader's terminal."""
    output = await box.run("bash", {"command": flood, "timeout_s": 30})
    assert len(output.text) <= 16_000 and "printed too much" in output.text
    assert not set(output.text) & {chr(n) for n in (*range(9), *range(11, 32), 0x7F, 0x202E)}


async def test_27_changes_after_the_step(space: Workspace, box: ToolBox) -> None:
    """The recorded tree would not be the one that the next step finds."""
    late = "(setsid sh -c 'while :; do echo x >> late; done' &) ; until [ -s late ]; do :; done"
    output = await box.run("bash", {"command": late})
    tree = await space.snapshot(output.changed)
    await box.run("bash", {"command": "true"})
    assert await space.snapshot() == tree


async def test_28_secrets_of_our_own_process(
    space: Workspace, box: ToolBox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The API key in Troupe's environment, or a file it holds open, could be read."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", SECRET)
    (tmp_path / "open").write_text(SECRET)
    command = """
        env; set; cat /proc/*/environ /proc/*/cmdline /proc/*/task/*/environ
        for fd in /proc/*/fd/*; do readlink $fd; timeout 1 cat $fd; done
        ls -la /proc/1/root /proc/1/cwd; cat /proc/self/mountinfo /proc/keys /proc/mounts
        grep -ra canary- /proc/1/ /tmp /run /var /dev/shm /etc
    """
    with (tmp_path / "open").open() as held:
        os.set_inheritable(held.fileno(), True)
        output = await box.run("bash", {"command": command.replace("canary-", "canar[y]-")})
    whole = output.full.decode() if output.full else output.text
    assert SECRET not in whole
    assert str(tmp_path / "open") not in whole


@pytest.mark.parametrize(
    "code",
    [
        "import ctypes; l = ctypes.CDLL(None, use_errno=True)\n"
        f"print(l.{call}, ctypes.get_errno())"
        for call in (
            "ptrace(16, 1, 0, 0)", "unshare(0x10000000)", "setns(0, 0)",
            "mount(b'none', b'/tmp', b'tmpfs', 0, 0)", "umount2(b'/workspace', 2)",
            "syscall(250, 0, 0)", "syscall(425, 8, 0)", "syscall(321, 0, 0, 0)",
            "syscall(304, 0, 0, 0)", "personality(0x40000)", "syscall(438, 0, 0, 0)",
            "chroot(b'/workspace')", "syscall(56, 0x10000011, 0, 0, 0, 0)",
            "process_vm_readv(1, 0, 0, 0, 0, 0)", "syscall(0x40000065, 0, 0, 0, 0)",
        )
    ],
)  # fmt: skip
async def test_29_calls_that_an_escape_begins_with(tree: Path, code: str) -> None:
    """The kernel would be open to whoever knows one of its weak spots."""
    if os.uname().machine != "x86_64":
        pytest.skip("the numbers are of another architecture")
    assert (await python(tree, code)).strip() == "-1 1"


async def test_29_programs_that_would_give_rights(tree: Path) -> None:
    """A program with the set-user-id bit would run as root."""
    done = await bash(
        tree,
        "sudo -n id; su -c id; newgrp root; mount -t tmpfs x /tmp; chroot / id;"
        " nsenter -t 1 -m id; unshare -Ur id; cat /etc/shadow; id -u",
    )
    lines = done.stdout.decode().split()
    assert "uid=0(root)" not in lines and b"root:" not in done.stdout
    assert lines[-1] != "0"


async def test_30_kill_everything(tree: Path) -> None:
    """A command could end Troupe, or its own sandbox's guard."""
    ours = os.getpid()
    done = await bash(tree, f"sleep 60 & kill -9 {ours}; kill -9 1; kill -9 -1; wait $!; echo $?")
    assert done.stdout == b"137\n"
    assert b"No such process" in done.stderr and b"not permitted" in done.stderr
    done = await bash(tree, "kill -STOP 1; kill -KILL 1; echo alive; cat /proc/1/comm")
    assert done.stdout == b"alive\nbwrap\n"


async def test_30_one_run_can_not_see_another(space: Workspace, box: ToolBox) -> None:
    """A command could stop or steer the file tools of its own job."""
    await box.run("read", {"path": "README.md"})
    look = "cat /proc/*/cmdline | tr '\\0' '\\n' | grep -c file[s]"
    output = await box.run("bash", {"command": look})
    assert output.text == "exit code 1\n0\n"


async def test_43_fifty_calls_at_once(box: ToolBox) -> None:
    """A model that asks for everything at once would get wrong answers or none."""
    calls = [
        box.run("bash", {"command": f"echo {n}"}) if n % 10 == 0
        else box.run("read", {"path": "README.md" if n % 2 else f"no-{n}"})
        for n in range(50)
    ]  # fmt: skip
    for number, output in enumerate(await asyncio.gather(*calls)):
        expected = str(number) if number % 10 == 0 else "hello" if number % 2 else f"no-{number}"
        assert expected in output.text
