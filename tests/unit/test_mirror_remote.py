"""Repositories over https and ssh, each with a true server."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import stat
import subprocess
import threading
import time
from pathlib import Path

import pytest

from actors.errors import DiskFullError, RepositoryUnknownError
from actors.mirror import RepositorySource
from actors.workspace import Workspace
from tests.forge import SSHD, forge, ssh_door
from tests.workshop import (
    commit,
    fingerprint,
    git,
    needs_root,
    processes_with,
    put,
    repository,
    wait_until_ended,
)

needs_sshd = pytest.mark.skipif(SSHD is None, reason="openssh-server is not installed")
TOKEN = "s3cr3t-t0k3n-of-a-forge"


async def opened(root: Path, source: RepositorySource, job_id: str = "job_1") -> Workspace:
    return await Workspace.open(root / "data", job_id, source)


def mirrors(root: Path) -> list[Path]:
    return list((root / "data" / "mirrors").glob("*.git"))


async def cloned_and_updated(root: Path, source: RepositorySource, origin: Path) -> None:
    """One job begins at the first commit, the next at what was pushed meanwhile."""
    first = await opened(root, source, "job_1")
    assert first.base_commit == git(origin, "rev-parse", "HEAD")
    assert (first.tree_path / "README.md").read_text() == "hello\n"
    put(origin, {"README.md": "hello again\n"})
    later = commit(origin)
    second = await opened(root, source, "job_2")
    assert (second.base_commit, first.base_commit != later) == (later, True)
    assert (second.tree_path / "README.md").read_text() == "hello again\n"
    assert len(mirrors(root)) == 1


# https


async def test_a_repository_is_cloned_and_updated_over_https(tmp_path: Path) -> None:
    """No repository of a forge could be worked on, or only as it was on the first day."""
    origin = repository(tmp_path / "shop")
    with forge(tmp_path) as host:
        await cloned_and_updated(tmp_path, host.source(), origin)
        asked = len(host.asked)
        known = git(origin, "rev-parse", "HEAD~1")
        again = await Workspace.open(tmp_path / "data", "job_3", host.source(), base_commit=known)
        assert again.base_commit == known
        assert len(host.asked) == asked, "what is here is not asked for"


async def test_a_branch_that_was_rewritten_is_taken_as_it_is_now(tmp_path: Path) -> None:
    """After a force-push no job could begin, or each at the old commit."""
    origin = repository(tmp_path / "shop")
    with forge(tmp_path) as host:
        first = await opened(tmp_path, host.source())
        git(origin, "commit", "--quiet", "--amend", "--message", "rewritten")
        second = await opened(tmp_path, host.source(), "job_2")
        assert second.base_commit == git(origin, "rev-parse", "HEAD") != first.base_commit
        assert await first.has(first.base_tree)


async def test_an_unknown_certificate_is_refused(tmp_path: Path) -> None:
    """Whoever sits in between would hand us another repository."""
    repository(tmp_path / "shop")
    with forge(tmp_path) as host:
        with pytest.raises(RepositoryUnknownError, match="its certificate is not trusted"):
            await opened(tmp_path, RepositorySource(host.url()))
        assert host.asked == []


async def test_a_private_repository_opens_with_its_token_and_leaves_no_trace_of_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A token would be read from the disk, the process list, an error or a log."""
    caplog.set_level(logging.DEBUG)
    repository(tmp_path / "shop")
    with forge(tmp_path, token=TOKEN) as host:
        space = await opened(tmp_path, host.source(token=TOKEN))
        assert (space.tree_path / "README.md").exists()
        wrong = host.source(token=TOKEN + "-old")
        with pytest.raises(RepositoryUnknownError) as refused:
            await opened(tmp_path, wrong, "job_2")
        assert host.seen_with_token == []
    said = f"{refused.value} {refused.value.args} {refused.value.__cause__} {caplog.text}"
    assert "it asks for a login, and Troupe has none" in str(refused.value)
    for secret in (TOKEN, base64.b64encode(f"x:{TOKEN}".encode()).decode()[:-4]):
        assert secret not in said and secret not in repr(wrong)
        for path in (tmp_path / "data").rglob("*"):
            assert path.is_dir() or secret.encode() not in path.read_bytes(), path


async def test_without_a_token_nobody_is_asked_for_one(tmp_path: Path) -> None:
    """A host would wait for ever at a prompt that nobody sees."""
    repository(tmp_path / "shop")
    with forge(tmp_path, token=TOKEN) as host:
        began = time.monotonic()
        with pytest.raises(RepositoryUnknownError) as refused:
            await opened(tmp_path, host.source())
        assert time.monotonic() - began < 10
    assert "There is no such repository, or it can't be read" in str(refused.value)
    assert "it asks for a login, and Troupe has none" in str(refused.value)


async def test_a_redirect_is_not_followed(tmp_path: Path) -> None:
    """An allowed host could send us to any other, inside our network too."""
    (tmp_path / "other").mkdir()
    repository(tmp_path / "other" / "shop")
    with forge(tmp_path / "other") as forbidden, forge(tmp_path) as host:
        both = tmp_path / "both.pem"
        both.write_text(host.certificate.read_text() + forbidden.certificate.read_text())
        source = RepositorySource(host.url(), config={"http.sslCAInfo": str(both)})
        for scheme in ("https", "http"):
            host.redirect = forbidden.url("").rstrip("/").replace("https", scheme)
            with pytest.raises(RepositoryUnknownError) as refused:
                await opened(tmp_path, source)
            assert "it has moved: name its new URL" in str(refused.value)
        assert forbidden.asked == [] and len(host.asked) == 2


async def test_a_host_that_is_not_there_is_said_at_once(tmp_path: Path) -> None:
    """A job would hold its slot for the whole time limit of a fetch."""
    repository(tmp_path / "shop")
    with forge(tmp_path) as host:
        source = host.source()
    began = time.monotonic()
    with pytest.raises(RepositoryUnknownError, match="connect"):
        await opened(tmp_path, source)
    assert time.monotonic() - began < 10


async def test_a_repository_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    """A slip in a name would look like a failure of Troupe."""
    with (
        forge(tmp_path) as host,
        pytest.raises(RepositoryUnknownError, match=r"check the path or URL.*shpo/' not found"),
    ):
        await opened(tmp_path, host.source("shpo"))


async def test_a_host_that_never_answers_is_given_up_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job would hang for ever, with git and its transport beside it."""
    monkeypatch.setattr("actors.remote.LIST_TIMEOUT_S", 1.0)
    repository(tmp_path / "shop")
    with forge(tmp_path, held=threading.Event()) as host:
        with pytest.raises(RepositoryUnknownError, match="no answer within 1 s"):
            await opened(tmp_path, host.source())
        wait_until_ended(processes_with(host.url()))


async def test_a_fetch_that_breaks_off_is_done_again_as_a_whole(tmp_path: Path) -> None:
    """Half of a repository would be worked on."""
    origin = repository(tmp_path / "shop", {"README.md": "hello\n", "big": os.urandom(300_000)})
    with forge(tmp_path, cut_after_bytes=100_000) as host:
        with pytest.raises(RepositoryUnknownError):
            await opened(tmp_path, host.source())
        space = await opened(tmp_path, host.source())
        assert (space.tree_path / "big").read_bytes() == (origin / "big").read_bytes()


async def test_a_cancelled_fetch_is_done_again_as_a_whole(tmp_path: Path) -> None:
    """A cancelled job would leave a mirror that never works again."""
    origin = repository(tmp_path / "shop")
    with forge(tmp_path) as host:
        await cloned_and_updated(tmp_path, host.source(), origin)
        put(origin, {"more": "x"})
        commit(origin)
        host.held, asked = threading.Event(), len(host.asked)
        fetching = asyncio.ensure_future(opened(tmp_path, host.source(), "job_9"))
        async with asyncio.timeout(20):
            while len(host.asked) == asked:
                await asyncio.sleep(0.01)
        fetching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetching
        host.held.set()
        host.held = None
        again = await opened(tmp_path, host.source(), "job_9")
        assert (again.tree_path / "more").exists()


@needs_root
async def test_a_fetch_stops_before_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A huge repository would take the last byte, and the store stops with it."""
    monkeypatch.setattr("actors.remote.DISK_FREE_BYTES_MIN", 12 << 20)
    monkeypatch.setattr("actors.remote.DISK_POLL_S", 0.01)
    origin = repository(tmp_path / "huge", {f"f{n}": os.urandom(2 << 20) for n in range(10)})
    disk = tmp_path / "data"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=28m", "none", disk], check=True)
    try:
        with pytest.raises(DiskFullError):
            await opened(tmp_path, RepositorySource(str(origin)))
        free = os.statvfs(disk)
        assert free.f_bavail * free.f_frsize > 6 << 20
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


# ssh


@needs_sshd
async def test_a_repository_is_cloned_and_updated_over_ssh(tmp_path: Path) -> None:
    """Private repositories, which are reached with a key, could not be worked on."""
    origin = repository(tmp_path / "shop")
    before = fingerprint(origin / ".git" / "hooks")
    with ssh_door(tmp_path / "ssh") as door:
        await cloned_and_updated(tmp_path, door.source(origin), origin)
    assert fingerprint(origin / ".git" / "hooks") == before


@needs_sshd
async def test_a_wrong_key_and_an_unknown_host_are_refused_without_a_question(
    tmp_path: Path,
) -> None:
    """A host would wait for a password, or trust whoever answers."""
    origin = repository(tmp_path / "shop")
    with ssh_door(tmp_path / "ssh") as door:
        began = time.monotonic()
        with pytest.raises(RepositoryUnknownError, match="knows no key of Troupe"):
            await opened(tmp_path, door.source(origin, key="stranger"))
        with pytest.raises(RepositoryUnknownError, match="not among the known hosts"):
            await opened(tmp_path, door.source(origin, known=False))
        assert time.monotonic() - began < 20
        gone = door.source(origin)
    with pytest.raises(RepositoryUnknownError, match="Connection refused"):
        await opened(tmp_path, gone)
    assert mirrors(tmp_path) == []


async def test_ssh_is_spoken_over_whatever_command_carries_it(tmp_path: Path) -> None:
    """Where no sshd is installed, nothing would have tried the protocol at all."""
    origin = repository(tmp_path / "shop")
    carrier = tmp_path / "carrier"
    carrier.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\nwhile [ $# -gt 1 ]; do shift; done\n'
        "exec env GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*'"
        ' sh -c "$1"\n'
    )
    carrier.chmod(carrier.stat().st_mode | stat.S_IXUSR)
    url = f"ssh://git@example.org{origin}"
    source = RepositorySource(url, env={"GIT_SSH_COMMAND": str(carrier), "GIT_SSH_VARIANT": "ssh"})
    await cloned_and_updated(tmp_path, source, origin)
    asked = (tmp_path / "asked").read_text()
    assert asked.count("git-upload-pack") == 4 and "git@example.org" in asked
