"""Names: nothing that git would leave out may be missed, however it came."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from actors.names import SETTLED_NS, Names


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for place in ("a/b", "c"):
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "a" / "file").write_text("x")
    return tmp_path


def settle(tree: Path) -> None:
    """Let the directories grow old enough to be remembered."""
    while time.time_ns() - newest(tree) <= SETTLED_NS:
        pass


def newest(tree: Path) -> int:
    return max(os.lstat(place).st_ctime_ns for place, _, _ in os.walk(tree))


def test_repositories_and_special_files_are_found_at_any_depth(tree: Path) -> None:
    """A snapshot would leave them out, and the restored tree would not be what it was."""
    (tree / "a" / "b" / ".git").mkdir()
    (tree / ".git").write_text("gitdir: elsewhere")
    os.mkfifo(tree / "c" / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.fspath(tree / "a" / "socket"))
    (tree / "c" / "link").symlink_to("pipe")
    (tree / "c" / "out").symlink_to(tree / "a")
    found = Names(tree).suspects()
    assert sorted(found.repositories) == [".git", "a/b/.git"]
    assert sorted(found.special) == ["a/socket", "c/pipe"]


def test_what_comes_later_is_found_where_nothing_was(tree: Path) -> None:
    """A remembered directory would hide what a command puts into it."""
    names = Names(tree)
    settle(tree)
    assert not names.suspects().special
    assert not names.suspects().special
    os.mkfifo(tree / "a" / "b" / "pipe")
    assert names.suspects().special == ["a/b/pipe"]
    (tree / "a" / "b" / "pipe").unlink()
    assert not names.suspects().special


def test_times_set_back_by_a_command_do_not_hide_a_change(tree: Path) -> None:
    """A command sets a directory's other times as it likes."""
    names = Names(tree)
    settle(tree)
    names.suspects()
    before = os.lstat(tree / "c")
    os.mkfifo(tree / "c" / "pipe")
    os.utime(tree / "c", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert names.suspects().special == ["c/pipe"]


def test_a_directory_that_has_just_changed_is_read_again(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two changes within one tick of the clock leave the same time behind."""
    names = Names(tree)
    names.suspects()
    read: list[str] = []
    scan = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: read.append(str(path)) or scan(path))
    names.suspects()
    assert len(read) == 4
    settle(tree)
    names.suspects()
    read.clear()
    names.suspects()
    assert read == []


def test_a_directory_that_took_anothers_place_is_read(tree: Path) -> None:
    """Moving an older directory to a remembered name keeps that directory's own entries."""
    os.mkfifo(tree / "a" / "b" / "pipe")
    names = Names(tree)
    settle(tree)
    assert names.suspects().special == ["a/b/pipe"]
    (tree / "a" / "b").rename(tree / "d")
    (tree / "c").rename(tree / "a" / "b")
    assert names.suspects().special == ["d/pipe"]
