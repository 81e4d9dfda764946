"""The hardened git runner: what it refuses, and that nothing of it lives on."""

from __future__ import annotations

import os
import pickle
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors import errors
from actors.errors import AgentError, GitError, GitTimeoutError, RefNameError
from actors.git import Git, check_object, check_ref, decode, encode
from tests.workshop import git, processes_with, repository, wait_until_ended


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    return repository(tmp_path / "origin")


@pytest.mark.parametrize(
    "name",
    ["-x", "--upload-pack=x", "a..b", "a b", "a~1", "a^", "a:b", "a?", "a*", "a[", "a\\b", "@",
     "a@{1}", "a//b", "/a", "a/", "a.", "a.lock", "a.lock/b", ".a", "a/.b", "a\x00", "a\nb", "",
     "\x7f", "a" * 241],
)  # fmt: skip
def test_a_name_that_is_no_ref_is_refused(name: str) -> None:
    """A ref name could be read as an option or as an expression."""
    with pytest.raises(RefNameError):
        check_ref(name)


@given(st.text(alphabet="ab/.-@{}~^:*[\\? \x01é", min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_git_takes_every_name_that_we_take(name: str) -> None:
    """We would pass a name to git that git itself refuses."""
    try:
        check_ref(name)
    except RefNameError:
        return
    done = subprocess.run(["git", "check-ref-format", f"refs/heads/{name}"], check=False)
    assert done.returncode == 0


def test_only_a_full_object_id_is_an_object_id() -> None:
    """An operand such as `HEAD` or `--all` would pass as a tree id."""
    assert check_object("a" * 40) and check_object("0" * 64)
    for wrong in ("a" * 39, "A" * 40, "HEAD", "--all", "a" * 40 + "\n"):
        with pytest.raises(RefNameError):
            check_object(wrong)


def test_output_that_is_not_utf8_comes_back_as_the_same_bytes() -> None:
    """Names that are not UTF-8 would be lost or would stop the job."""
    assert encode(decode(b"\xff\xfe caf\xc3\xa9")) == b"\xff\xfe caf\xc3\xa9"


async def test_no_transport_is_open_unless_the_call_names_it(origin: Path, tmp_path: Path) -> None:
    """Any git command could be made to read other repositories or hosts."""
    runner = Git(tmp_path / "none")
    with pytest.raises(GitError, match="not allowed"):
        await runner.run("ls-remote", "--end-of-options", str(origin))
    listed = await runner.run("ls-remote", "--end-of-options", str(origin), allow=("file",))
    assert "refs/heads/main" in listed.text


async def test_a_call_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    """A hanging git would hold its job for ever, or go on after the job has moved."""
    pipe = tmp_path / "never-written-to"
    os.mkfifo(pipe)
    with pytest.raises(GitTimeoutError):
        await Git(tmp_path / "none").run("hash-object", str(pipe), timeout_s=0.2)
    wait_until_ended(processes_with(str(pipe)))


async def test_a_call_that_prints_too_much_is_killed(origin: Path) -> None:
    """A huge blob would fill the host's memory."""
    content = await Git(origin / ".git").run("cat-file", "blob", "main:README.md")
    assert content.stdout == b"hello\n"
    with pytest.raises(GitError, match="more than 5 bytes"):
        await Git(origin / ".git").run("cat-file", "blob", "main:README.md", output_bytes_max=5)


async def test_settings_with_secrets_do_not_show_in_the_process_list(origin: Path) -> None:
    """A token for fetching could be read by every user of the machine."""
    answer = await Git(origin / ".git").run(
        "config", "--get", "http.extraheader", config={"http.extraheader": "Bearer t0ken"}
    )
    assert answer.text == "Bearer t0ken"


async def test_a_failure_says_which_command_and_what_git_said(origin: Path) -> None:
    """Nobody could tell from the record why a job stopped."""
    with pytest.raises(GitError, match=r"git cat-file.*exit code 128.*Not a valid object name"):
        await Git(origin / ".git").run("cat-file", "-t", "nothing")


async def test_the_persons_own_configuration_and_environment_count_for_nothing(
    origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Aliases, identities or GIT_* of whoever starts Troupe would change what agents do."""
    (tmp_path / ".gitconfig").write_text("[user]\nname = Somebody\n[core]\nabbrev = 4\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "user.name")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "Somebody")
    runner = Git(origin / ".git")
    assert (await runner.run("rev-parse", "HEAD")).text == git(origin, "rev-parse", "HEAD")
    assert (await runner.run("config", "--get", "user.name", codes=(0, 1))).text == ""


@pytest.mark.parametrize(
    "kind", [kind for kind in vars(errors).values() if isinstance(kind, type)], ids=str
)
def test_every_error_travels_between_processes(kind: type[Exception]) -> None:
    """An error that can't be pickled arrives as a serialization failure, its reason lost."""
    if not issubclass(kind, AgentError):
        return
    again = pickle.loads(pickle.dumps(kind("a", 1)))
    assert (type(again), str(again)) == (kind, str(kind("a", 1)))
