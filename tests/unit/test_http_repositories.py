"""Which repository an issue may name, and what is told of the server's disk: nothing."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.http import HttpTroupe


def git(path: Path, *args: str) -> None:
    env = {"PATH": os.environ["PATH"], "HOME": str(path), "GIT_CONFIG_NOSYSTEM": "1"}
    subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *args],
        cwd=path, check=True, capture_output=True, env=env,
    )  # fmt: skip


def repository(path: Path, commit: bool = True, bare: bool = False) -> Path:
    path.mkdir(parents=True)
    git(path, "init", "-q", "-b", "main", *(["--bare"] if bare else []))
    if commit:
        git(path, "commit", "-q", "--allow-empty", "-m", "x")
    return path


async def submit(api: HttpTroupe, repository: str, **context: str) -> Any:
    async with await api.client() as ann:
        body = {"source": "manual", "title": "t", "context": {"repository": repository, **context}}
        return await ann.post("/api/issues", json=body)


async def test_a_repository_below_a_root_is_taken_by_its_true_path(tmp_path: Path) -> None:
    """Would refuse what the operator allowed, or hand a detour to the workspace."""
    root = tmp_path / "real"
    for name, bare in (("plain", False), ("bare.git", True)):
        repository(root / name, commit=not bare, bare=bare)
    git(root / "plain", "push", "-q", str(root / "bare.git"), "main")
    git(root / "plain", "pack-refs", "--all")
    alias = tmp_path / "alias"
    alias.symlink_to(root)
    api = HttpTroupe(roots=[alias])
    for named, meant in (
        (f"{alias}/plain", root / "plain"),
        (f"{root}/plain/", root / "plain"),
        (f"{alias}/./x/../plain", root / "plain"),
        (f"file://{root}/bare.git", root / "bare.git"),
    ):
        answer = await submit(api, named)
        assert answer.status_code == 202, answer.text
        document = await api.store.get("issue", answer.json()["id"])
        assert document and json.loads(document.body)["context"]["repository"] == str(meant)


async def test_outside_the_roots_everything_looks_alike(tmp_path: Path) -> None:
    """Would let anybody with a key find out what is on the server's disk."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    repository(root / "ok")
    repository(outside / "secret")
    (root / "link").symlink_to(outside / "secret")
    (root / "up").symlink_to(outside)
    (root / "file").write_text("x")
    (tmp_path / "rootless").mkdir()
    api = HttpTroupe(roots=[root])
    answers = [
        await submit(api, named)
        for named in (
            str(outside / "secret"),
            str(outside / "missing"),
            str(root / "missing"),
            str(root / "link"),
            str(root / "up" / "secret"),
            str(root / "file"),
            str(root / "ok" / ".." / ".." / "outside" / "secret"),
            f"{root}less",
            "/etc/passwd",
            "/",
            "relative/path",
            "../outside/secret",
            "~/x",
            f"file://{outside}/secret",
            "\x00/etc",
            f"{root}/ok\x00",
            "http://github.com/acme/x",
            "https://evil.example/acme/x",
            "https://github.com.evil.example/x",
            "https://user:pass@github.com/acme/x",
            "https://github.com@evil.example/x",
            "https://127.0.0.1/x",
            "git://github.com/acme/x",
            "ext::sh -c touch% /tmp/x",
            "-oProxyCommand=touch x",
            "ssh://-oProxyCommand=x/acme",
            "git@evil.example:acme/x",
            "ftp://github.com/x",
        )
    ]
    assert {answer.status_code for answer in answers} == {422}
    assert len({answer.content for answer in answers}) == 1
    assert answers[0].json()["code"] == "repository_not_allowed"
    assert answers[0].json()["errors"][0]["path"] == "body.context.repository"
    assert await api.store.count("issue") == 0


async def test_nothing_outside_a_root_is_even_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would mount a network share, or hang on one, because somebody named it."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    repository(outside / "secret")
    (root / "up").symlink_to(outside)
    touched: list[str] = []
    really = os.open

    def watch(path: Any, *args: Any, **kwargs: Any) -> int:
        touched.append(os.fspath(path))
        return really(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", watch)
    api = HttpTroupe(roots=[root])
    await submit(api, str(outside / "secret"))
    assert touched == []
    await submit(api, str(root / "up" / "secret"))
    assert touched == [str(root), "up"]


async def test_a_directory_that_is_no_repository_is_told_so(tmp_path: Path) -> None:
    """Would accept work that can't even begin, and fail later without a word."""
    (tmp_path / "plain").mkdir()
    (tmp_path / "broken" / ".git").mkdir(parents=True)
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / ".git").write_text("gitdir: /etc")
    repository(tmp_path / "empty", commit=False)
    api = HttpTroupe(roots=[tmp_path])
    codes = {
        name: (await submit(api, str(tmp_path / name))).json()["code"]
        for name in ("plain", "broken", "linked", "empty")
    }
    assert codes == {
        "plain": "not_a_repository",
        "broken": "not_a_repository",
        "linked": "not_a_repository",
        "empty": "empty_repository",
    }
    git(tmp_path / "empty", "commit", "-q", "--allow-empty", "-m", "x")
    git(tmp_path / "empty", "checkout", "-q", "--detach")
    git(tmp_path / "empty", "branch", "-D", "main")
    assert (await submit(api, str(tmp_path / "empty"))).status_code == 202


@pytest.mark.parametrize(
    "url",
    [
        "https://github.com/acme/briefs",
        "https://github.com/acme/briefs.git",
        "ssh://git@github.com/acme/briefs",
        "git@github.com:acme/briefs.git",
    ],
)
async def test_a_url_on_an_allowed_host_is_taken_as_it_is(url: str) -> None:
    """Would refuse the usual ways to name a repository."""
    assert (await submit(HttpTroupe(), url)).status_code == 202


@pytest.mark.parametrize("ref", ["-x", "a..b", "a b", "a~1", "a:b", "@{0}", "x.lock", "a\x00"])
async def test_a_base_that_is_no_ref_is_refused(ref: str) -> None:
    """Would hand an option to git."""
    answer = await submit(HttpTroupe(), "https://github.com/acme/x", baseRef=ref)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_base_ref")
