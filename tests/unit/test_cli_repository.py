"""What `--repo` names is checked before anything is sent, with real git."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from actors.commands.failures import WrongUsageError
from actors.commands.repository import find_repository


def git(path: Path, *args: str) -> None:
    identity = ("-c", "user.name=T", "-c", "user.email=t@example.org")
    subprocess.run(["git", "-C", str(path), *identity, *args], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    path = tmp_path / "repository"
    path.mkdir()
    git(path, "init", "--initial-branch=main")
    (path / "a.txt").write_text("one\n")
    (path / "folder").mkdir()
    git(path, "add", "--all")
    git(path, "commit", "--message=first")
    return path


async def test_a_relative_path_is_made_absolute(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server would look for `.` in its own folder."""
    monkeypatch.chdir(repository)
    found = await find_repository(".", "main", local=True)
    assert found.address == str(repository.resolve())
    assert found.uncommitted == ()


async def test_uncommitted_work_is_noticed(repository: Path) -> None:
    """The agent would start without it, and the user would wonder."""
    (repository / "a.txt").write_text("two\n")
    (repository / "untracked.txt").write_text("x")
    assert (await find_repository(str(repository), None, local=True)).uncommitted == ("a.txt",)


async def test_a_bare_repository_is_one(repository: Path, tmp_path: Path) -> None:
    """Servers keep theirs without a checkout."""
    bare = tmp_path / "bare.git"
    git(repository, "clone", "--bare", str(repository), str(bare))
    assert (await find_repository(str(bare), "main", local=True)).address == str(bare)


async def test_the_environment_of_a_git_hook_misleads_nobody(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Called from a hook, the command would check the hook's repository."""
    empty = tmp_path / "empty"
    empty.mkdir()
    git(empty, "init")
    monkeypatch.setenv("GIT_DIR", str(repository / ".git"))
    with pytest.raises(WrongUsageError, match="no commit yet"):
        await find_repository(str(empty), None, local=True)


@pytest.mark.parametrize(
    ("named", "sentence"),
    [
        ("missing", "There is no"),
        ("repository/a.txt", "is a file"),
        ("repository/folder", "inside the repository"),
        ("plain", "is not a git repository"),
        ("https://ann:secret@example.org/a.git", "password"),
        ("https://[broken", "is not a URL"),
    ],
)
async def test_what_is_no_repository_is_said_to_be_none(
    repository: Path, tmp_path: Path, named: str, sentence: str
) -> None:
    """The user would wait for an answer that says less."""
    (tmp_path / "plain").mkdir()
    where = named if "://" in named else str(tmp_path / named)
    with pytest.raises(WrongUsageError, match=sentence.replace("[", r"\[")) as wrong:
        await find_repository(where, None, local=True)
    assert "secret" not in str(wrong.value)


async def test_an_unknown_base_is_refused_and_never_an_option(repository: Path) -> None:
    """The job would fail after it had been queued, or git would run an option."""
    for base in ("nowhere", "--output=stolen"):
        with pytest.raises(WrongUsageError, match="no branch, tag or commit"):
            await find_repository(str(repository), base, local=True)
    assert not (repository / "stolen").exists()


@pytest.mark.parametrize(
    "url", ["https://github.com/acme/api", "ssh://git@example.org/a.git", "git@example.org:a/b.git"]
)
async def test_urls_are_sent_as_they_are(url: str) -> None:
    """Only the server knows its allowed hosts and credentials."""
    assert (await find_repository(url, "any", local=True)).address == url


async def test_a_path_of_another_machine_is_not_looked_up_here() -> None:
    """A remote Troupe's repository would have to exist on the user's laptop."""
    assert (await find_repository("/srv/git/api", "main", local=False)).address == "/srv/git/api"
    with pytest.raises(WrongUsageError, match="another machine"):
        await find_repository("api", None, local=False)
