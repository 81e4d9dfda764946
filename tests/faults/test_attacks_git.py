"""Attacks through git: nothing in a repository or a workspace makes our git run or read anything.

Each attack leaves a file at `canary` if it succeeds.
"""

from __future__ import annotations

import shlex
from contextlib import suppress
from pathlib import Path

import pytest

from actors.errors import (
    AgentError,
    GitError,
    NestedRepositoryError,
    RepositoryUnsafeError,
    SnapshotRefusedError,
)
from actors.git import Git
from actors.mirror import RepositorySource
from actors.workspace import Workspace
from tests.workshop import (
    commit,
    delivered,
    git,
    names,
    put,
    recorded,
    repository,
    toolbox,
    workspace,
)

HOOKS = ("pre-commit", "post-commit", "post-checkout", "post-index-change",
         "reference-transaction", "post-rewrite", "pre-auto-gc", "fsmonitor-watchman",
         "post-merge", "update", "post-update", "pre-receive", "post-receive")  # fmt: skip
DRIVERS = "* filter=evil diff=evil merge=evil\n"


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


def touch(canary: Path) -> str:
    return f"touch {shlex.quote(str(canary))}"


def poison(config: Path, canary: Path) -> None:
    """Every setting that runs a program."""
    run = touch(canary)
    settings = {
        "core.fsmonitor": run, "core.sshCommand": run, "core.pager": run, "core.editor": run,
        "core.askPass": run, "core.alternateRefsCommand": run, "core.gitProxy": run,
        "diff.external": run, "diff.evil.textconv": run, "diff.evil.command": run,
        "filter.evil.clean": f"{run}; cat", "filter.evil.smudge": f"{run}; cat",
        "filter.evil.process": run, "filter.evil.required": "true", "merge.evil.driver": run,
        "credential.helper": f"!{run}", "gpg.program": run, "commit.gpgSign": "true",
        "uploadpack.packObjectsHook": run, "sequence.editor": run, "interactive.diffFilter": run,
        "trailer.evil.command": run, "gc.auto": "1", "pager.log": run, "alias.log": f"!{run}",
    }  # fmt: skip
    for key, value in settings.items():
        git(config.parent, "config", "--file", str(config), key, value)


def poison_hooks(hooks: Path, canary: Path) -> None:
    hooks.mkdir(parents=True, exist_ok=True)
    for name in HOOKS:
        (hooks / name).write_text(f"#!/bin/sh\n{touch(canary)}\n")
        (hooks / name).chmod(0o755)


async def use(space: Workspace) -> None:
    """Everything we ever do with a workspace; refusals are answers."""
    with suppress(SnapshotRefusedError):
        tree = await space.snapshot()
        await space.delta(space.base_tree, tree)
        await space.diff(space.base_tree, tree)
        await space.changes(space.base_tree, tree)
        await delivered(space, tree)
    await space.has(space.base_tree)
    box = toolbox(space)
    for name, asked in (("git_diff", {}), ("git_log", {}),
                        ("git_blame", {"path": "README.md", "start": 1, "end": 1})):  # fmt: skip
        await box.run(name, asked)
    await space.restore(space.base_tree)
    await space.snapshot()


async def test_01_fsmonitor_and_other_settings_in_the_workspaces_git_config(
    tmp_path: Path, canary: Path
) -> None:
    """Commands of an agent's `.git/config` would run outside the sandbox."""
    space = await workspace(tmp_path)
    git(space.tree_path, "init", "--quiet")
    poison(space.tree_path / ".git" / "config", canary)
    put(space.tree_path, {".gitattributes": DRIVERS, "a": "1"})
    with pytest.raises(NestedRepositoryError):
        await space.snapshot()
    await use(space)
    assert not canary.exists()


async def test_02_hooks_in_the_workspace(tmp_path: Path, canary: Path) -> None:
    """Hooks that an agent writes would run outside the sandbox."""
    space = await workspace(tmp_path)
    git(space.tree_path, "init", "--quiet")
    poison_hooks(space.tree_path / ".git" / "hooks", canary)
    poison_hooks(space.tree_path / "hooks", canary)
    await use(space)
    assert not canary.exists()


async def test_03_hooks_and_settings_of_the_users_repository(tmp_path: Path, canary: Path) -> None:
    """A repository that somebody sent would run commands when a job reads or delivers."""
    origin = repository(tmp_path / "origin")
    put(origin, {".gitattributes": DRIVERS, "b": "1"})
    commit(origin)
    poison(origin / ".git" / "config", canary)
    poison_hooks(origin / ".git" / "hooks", canary)
    space = await workspace(tmp_path)
    await use(space)
    put(space.tree_path, {"b": "2"})
    made = await delivered(space, await space.snapshot(), origin)
    owner = Git(origin / ".git")
    await owner.run("log", "-p", "--no-ext-diff", "--no-textconv", str(made.commit))
    assert (await owner.run("cat-file", "blob", f"{made.branch}:b")).text == "2"
    assert not canary.exists()


async def test_04_a_git_file_that_points_to_the_attackers_directory(
    tmp_path: Path, canary: Path
) -> None:
    """Our git would take its settings from where the agent says."""
    space = await workspace(tmp_path)
    git(space.tree_path, "init", "--quiet", "--separate-git-dir", str(space.tree_path / "evil"))
    poison(space.tree_path / "evil" / "config", canary)
    with pytest.raises(NestedRepositoryError):
        await space.snapshot()
    await use(space)
    assert not canary.exists()


async def test_05_a_bare_repository_in_a_subdirectory(tmp_path: Path, canary: Path) -> None:
    """git would discover it and obey it."""
    space = await workspace(tmp_path)
    place = space.tree_path / "innocent"
    place.mkdir()
    git(place, "init", "--quiet", "--bare")
    poison(place / "config", canary)
    git(place, "config", "--file", "config", "core.worktree", "..")
    await use(space)
    await Git(space.git.git_dir, place).run("status", codes=(0, 1, 128))
    assert not canary.exists()


async def test_06_external_diff_and_textconv_by_attributes(tmp_path: Path, canary: Path) -> None:
    """Showing a diff would run a command."""
    space = await workspace(tmp_path, {".gitattributes": "* diff=evil\n", "README.md": "1\n"})
    poison(space.git.git_dir / "config", canary)  # even if somebody got that far
    put(space.tree_path, {"README.md": "2\n"})
    tree = await space.snapshot(only=["README.md"])
    assert b"-1\n+2" in await space.diff(space.base_tree, tree)
    assert not canary.exists()


async def test_07_clean_and_smudge_filters(tmp_path: Path, canary: Path) -> None:
    """Checking out or recording a file would run a command."""
    space = await workspace(tmp_path, {".gitattributes": "* filter=evil\n", "README.md": "1\n"})
    poison(space.git.git_dir / "config", canary)
    put(space.tree_path, {"README.md": "2\n", "new": "x"})
    tree = await space.snapshot()
    await space.restore(space.base_tree)
    await space.restore(tree)
    assert (space.tree_path / "README.md").read_text() == "2\n"
    assert not canary.exists()


async def test_08_ssh_credential_and_signing_programs(tmp_path: Path, canary: Path) -> None:
    """Speaking with a remote, or committing, would run what the repository says."""
    origin = repository(tmp_path / "origin")
    poison(origin / ".git" / "config", canary)
    owner = Git(origin / ".git")
    for url, transport in (("ssh://nowhere.invalid/x", "ssh"), ("https://127.0.0.1:9/x", "https")):
        with pytest.raises(GitError):
            await owner.run("ls-remote", "--end-of-options", url, allow=(transport,))
    tree = git(origin, "rev-parse", "HEAD^{tree}")
    await owner.run(
        "commit-tree", tree, "-m", "x", env={f"GIT_{who}_{what}": "a@b" for who in
        ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    )  # fmt: skip
    assert not canary.exists()


@pytest.mark.parametrize("update", ["", "update = !touch {}\n"])
@pytest.mark.parametrize("url", ["ext::sh -c 'touch {}'", "{}", "ssh://-oProxyCommand=touch"])
async def test_09_submodule_urls(tmp_path: Path, canary: Path, url: str, update: str) -> None:
    """Opening a workspace would fetch from where a submodule says, or run its helper."""
    origin = repository(tmp_path / "origin")
    text = f'[submodule "x"]\npath = x\nurl = {url}\n{update}'.replace("{}", str(canary))
    put(origin, {".gitmodules": text})
    head = git(origin, "rev-parse", "HEAD")
    git(origin, "update-index", "--add", "--cacheinfo", f"160000,{head},x")
    git(origin, "add", ".gitmodules")
    git(origin, "commit", "--quiet", "--message", "x")
    try:
        space = await workspace(tmp_path)
    except RepositoryUnsafeError:
        assert update or "Proxy" in url
    else:
        assert names(space.tree_path / "x") == []
        await use(space)
    assert not canary.exists()


async def test_10_options_in_the_place_of_names(tmp_path: Path, canary: Path) -> None:
    """A ref, path or URL from an issue or a model would be read as an option."""
    space = await workspace(tmp_path)
    evil = [f"--output={canary}", f"--upload-pack=touch {canary}", f"-O{canary}", f"-o{canary}",
            f"--exec=touch {canary}", f"--contents={canary}", f"--ext-diff={canary}"]  # fmt: skip
    source = RepositorySource(str(tmp_path / "origin"))
    box = toolbox(space)
    for word in evil:
        for call in (
            Workspace.open(tmp_path / "data", "job_2", source, word),
            Workspace.open(tmp_path / "data", "job_2", RepositorySource(word)),
            space.restore(word), space.diff(word, word), space.changes(space.base_tree, word),
            space.has(word), space.delta(word, word),
        ):  # fmt: skip
            with pytest.raises(AgentError):
                await call
        assert await recorded(space, space.base_tree, word) is None
        await space.diff(space.base_tree, space.base_tree, [word])
        await space.snapshot(only=[word])
        for name, asked in (("git_diff", {"paths": [word]}), ("git_log", {"path": word}),
                            ("git_blame", {"path": word, "start": 1, "end": 1})):  # fmt: skip
            await box.run(name, asked)
    assert not canary.exists() and names(space.tree_path) == ["README.md"]


async def test_11_a_nested_repository_hides_files_from_the_record(tmp_path: Path) -> None:
    """Work could be kept out of the patch, the review and the gates."""
    space = await workspace(tmp_path)
    place = space.tree_path / "lib"
    place.mkdir()
    git(place, "init", "--quiet")
    put(place, {"backdoor.py": "x"})
    commit(place)
    with pytest.raises(NestedRepositoryError):
        await space.snapshot()


async def test_12_a_large_file_pointer_is_not_resolved(tmp_path: Path, canary: Path) -> None:
    """Checking out would fetch from a server that the repository names."""
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 1\n"
    files = {".gitattributes": "*.bin filter=lfs diff=lfs merge=lfs -text\n", "a.bin": pointer,
             ".lfsconfig": f"[lfs]\nurl = file://{canary}\n"}  # fmt: skip
    space = await workspace(tmp_path, files)
    assert (space.tree_path / "a.bin").read_text() == pointer
    await use(space)
    assert not canary.exists()


async def test_13_attributes_that_change_bytes(tmp_path: Path) -> None:
    """What is reviewed would differ from what was tested."""
    space = await workspace(tmp_path)
    attributes = "* text eol=crlf ident export-subst working-tree-encoding=UTF-16LE\n"
    put(space.tree_path, {".gitattributes": attributes, "a": b"$Id$\r\n\n\xff"})
    tree = await space.snapshot()
    assert await recorded(space, tree, "a") == b"$Id$\r\n\n\xff"


async def test_14_files_named_like_gits_own(tmp_path: Path) -> None:
    """A forged lock or head in the workspace would stop or redirect our git."""
    space = await workspace(tmp_path)
    like = ("index.lock", "HEAD", "config", "objects/info/alternates", "refs/heads/main", "index")
    put(space.tree_path, {name: "ref: /etc/passwd\n" for name in like})
    tree = await space.snapshot()
    assert await recorded(space, tree, "objects/info/alternates") == b"ref: /etc/passwd\n"
    await space.restore(space.base_tree)
    assert names(space.tree_path) == ["README.md"]


async def test_15_variables_of_git_in_our_environment(
    tmp_path: Path, canary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever shell started Troupe would steer every job's git."""
    for name in ("GIT_EXTERNAL_DIFF", "GIT_SSH_COMMAND", "GIT_ASKPASS", "GIT_PAGER", "GIT_EDITOR",
                 "GIT_PROXY_COMMAND", "GIT_SEQUENCE_EDITOR"):  # fmt: skip
        monkeypatch.setenv(name, touch(canary))
    monkeypatch.setenv("GIT_TRACE", str(canary))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(canary))
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_PARAMETERS", f"'core.fsmonitor={touch(canary)}'")
    await use(await workspace(tmp_path))
    assert not canary.exists()


async def test_16_replaced_objects_do_not_change_what_is_reviewed(tmp_path: Path) -> None:
    """`refs/replace` would show a commit with another content than it has."""
    origin = repository(tmp_path / "origin", {"README.md": "true\n"})
    head = git(origin, "rev-parse", "HEAD")
    put(origin, {"README.md": "forged\n"})
    forged = commit(origin)
    git(origin, "update-ref", "refs/heads/main", head)
    git(origin, "replace", head, forged)
    space = await workspace(tmp_path)
    assert (space.tree_path / "README.md").read_text() == "true\n"
    read = await Git(origin / ".git").run("cat-file", "blob", f"{head}:README.md")
    assert read.stdout == b"true\n"


@pytest.mark.parametrize("name", [b".git", b"..", b"a/b", b".GIT", b"git~1"])
async def test_17_a_tree_object_with_a_name_that_leaves_the_tree(
    tmp_path: Path, name: bytes
) -> None:
    """A checkout would write outside the workspace, or into its git dir."""
    origin = repository(tmp_path / "origin")
    blob = git(origin, "hash-object", "-w", "--stdin", stdin=b"evil")
    entry = b"100644 " + name + b"\0" + bytes.fromhex(blob)
    tree = git(origin, "hash-object", "-t", "tree", "-w", "--literally", "--stdin", stdin=entry)
    evil = git(origin, "commit-tree", tree, "-m", "x")
    git(origin, "update-ref", "refs/heads/main", evil)
    with pytest.raises(RepositoryUnsafeError):
        await workspace(tmp_path)


async def test_18_links_in_the_repository_lead_nowhere(tmp_path: Path) -> None:
    """A restore would write, or a snapshot read, through a link to the machine's files."""
    outside = tmp_path / "outside"
    put(outside, {"a": "secret\n"})
    origin = repository(tmp_path / "origin")
    (origin / "dir").symlink_to(outside)
    commit(origin)
    space = await workspace(tmp_path)
    (space.tree_path / "dir").unlink()
    put(space.tree_path, {"dir/a": "mine\n"})
    tree = await space.snapshot()
    await space.restore(space.base_tree)
    await space.restore(tree)
    assert (outside / "a").read_text() == "secret\n"
    (space.tree_path / "dir" / "a").unlink()
    (space.tree_path / "dir").rmdir()
    (space.tree_path / "dir").symlink_to(outside)
    assert b"secret" not in await space.diff(tree, await space.snapshot())
    await space.restore(tree)
    assert (outside / "a").read_text() == "secret\n"
