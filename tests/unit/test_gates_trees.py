"""What the gates read is what git has, whatever the names and sizes."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from actors.changes import parse
from actors.gates import SuiteVerdict, UnscannableError, make_candidate, read_policy, run_gates
from actors.gates.candidate import SCAN_BYTES_MAX
from actors.gates.trees import list_tree, read_files
from actors.git import Git
from actors.policy import PolicyError

GREEN = SuiteVerdict(exit_code=0, passed=1, failed=0)


@pytest.fixture
async def git(tmp_path: Path) -> Git:
    await Git(tmp_path / "git").run("init", "-q", "--bare", "--template=")
    (tmp_path / "work").mkdir()
    return Git(tmp_path / "git", tmp_path / "work", tmp_path / "index")


async def tree_of(git: Git, files: dict[str, bytes]) -> str:
    """A tree with exactly these files."""
    assert git.work_tree and git.index
    git.index.unlink(missing_ok=True)
    for path in sorted(git.work_tree.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    for name, content in files.items():
        path = git.work_tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    await git.run("add", "-A")
    return (await git.run("write-tree")).text


ODD = {
    "plain.py": b"x = 1\n",
    "a file with spaces": b"1",
    "new\nline": b"2\r\n\r\n",
    "tab\tbed": b"",
    "--option": b"same",
    "HEAD": b"same",
    os.fsdecode(b"not-utf8-\xff"): b"\x00\xff",
    "deep/er/ünï.txt": b"\n\n",
}


async def test_files_come_back_byte_by_byte(git: Git) -> None:
    """Would judge other bytes than those that are delivered."""
    tree = await list_tree(git, await tree_of(git, ODD))
    assert tree.keys() == ODD.keys()
    read = await read_files(git, tree, [*ODD, "absent"])
    assert {name: read(name) for name in ODD} == ODD
    assert read("absent") is None
    assert (await read_files(git, tree, []))("plain.py") is None


async def test_a_huge_file_is_not_read_but_refused(git: Git) -> None:
    """Would fill memory, or pass a file that nobody has looked at."""
    big = b"x" * (SCAN_BYTES_MAX + 1)
    base, final = await tree_of(git, {}), await tree_of(git, {"big": big, "a": b"1\n"})
    read = await read_files(git, await list_tree(git, final), ["big", "a"])
    assert read("a") == b"1\n"
    with pytest.raises(UnscannableError, match=str(len(big))):
        read("big")
    how = ("diff-tree", "-r", "-M", "--raw", "--numstat", "-z", "--no-abbrev")
    changes = parse((await git.run(*how, base, final)).stdout)
    policy = await read_policy(git, base)
    made = await make_candidate(git, base, final, changes, b"x", policy, None, GREEN)
    verdicts = {item.gate: item.verdict for item in run_gates(made).results}
    assert (verdicts["size"], verdicts["secrets"]) == ("failed", "unknown")


async def test_a_change_in_git_passes_or_fails_as_it_should(git: Git) -> None:
    """Would break between the workspace's changes and the gates' idea of them."""
    test = b"def test_a():\n    assert f() == 1\n"
    base = await tree_of(git, {"a.py": b"f = 0\n", "test_a.py": test, "old.py": b"x = 1\n" * 20})
    good = {"a.py": b"f = lambda: 1\n", "test_a.py": test, "new.py": b"x = 1\n" * 20}
    bad = {"a.py": b"f = 0\n", "test_a.py": b"", "new.py": b"x = 1\n" * 20}
    policy = await read_policy(git, base)
    assert policy.commands.test == "python -m pytest -q"
    for files, verdict in ((good, "passed"), (bad, "failed")):
        final = await tree_of(git, files)
        how = ("diff-tree", "-r", "-M", "--raw", "--numstat", "-z", "--no-abbrev")
        changes = parse((await git.run(*how, base, final)).stdout)
        patch = (await git.run("diff-tree", "-p", "--binary", base, final)).stdout
        made = await make_candidate(git, base, final, changes, patch, policy, None, GREEN)
        report = await asyncio.to_thread(run_gates, made)
        assert report.verdict == verdict, report


async def test_the_policy_is_the_base_trees(git: Git) -> None:
    """Would follow rules that the agent itself has written."""
    text = b"protectedPaths: [db/**]\ncommands: {test: make check}\n"
    base = await tree_of(git, {".troupe.yaml": text})
    assert (await read_policy(git, base)).protected_paths == ("db/**",)
    wrong = await tree_of(git, {".troupe.yaml": b"protectedPath: [db/**]\n"})
    with pytest.raises(PolicyError, match="did you mean protectedPaths"):
        await read_policy(git, wrong)


async def test_many_files_are_read_with_one_call(git: Git, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would start a process for every changed file."""
    files = {f"d{n % 7}/f{n}": f"{n}\n".encode() * 50 for n in range(400)}
    tree = await list_tree(git, await tree_of(git, files))
    calls: list[str] = []
    started = asyncio.create_subprocess_exec

    async def counted(*argv: str, **options: object) -> object:
        calls.append(argv[-1])
        return await started(*argv, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", counted)
    read = await read_files(git, tree, files)
    assert all(read(name) == body for name, body in files.items())
    assert calls == ["--batch"]
