"""The search for canaries: what is found, and the one place where a secret may be."""

from __future__ import annotations

from pathlib import Path

from actors.verification.secrets import CHUNK, _Canaries, _files, _search_file


def found(tmp_path: Path, canaries: _Canaries) -> list[str]:
    for path in _files(tmp_path):
        _search_file(canaries, path)
    return canaries.hits


def test_a_secret_in_a_file_is_found(tmp_path: Path) -> None:
    """A key in a log would be told as none."""
    canaries = _Canaries()
    word = canaries.new("a key")
    (tmp_path / "log").write_text(f"GET /?token={word}\n")
    assert found(tmp_path, canaries) == [f"a key is in {tmp_path / 'log'}"]


def test_a_secret_across_two_pieces_of_a_large_file_is_found(tmp_path: Path) -> None:
    """One secret in some thousands of bytes would be overlooked by its place."""
    canaries = _Canaries()
    word = canaries.new("a key").encode()
    (tmp_path / "store").write_bytes(b"x" * (CHUNK - len(word) // 2) + word)
    assert len(found(tmp_path, canaries)) == 1


def test_a_secret_is_at_home_in_its_own_file_only(tmp_path: Path) -> None:
    """The file that holds the key would be an alarm, or every file its home."""
    canaries = _Canaries()
    word = canaries.new("the admin key")
    home = tmp_path / "admin.key"
    canaries.homes["the admin key"] = home
    home.write_text(word)
    assert found(tmp_path, canaries) == []
    (tmp_path / "copy").write_text(word)
    assert found(tmp_path, canaries) == [f"the admin key is in {tmp_path / 'copy'}"]


def test_a_secret_that_is_told_is_found_also_when_it_has_a_home(tmp_path: Path) -> None:
    """An answer of the API is nobody's home."""
    canaries = _Canaries()
    word = canaries.new("the admin key")
    canaries.homes["the admin key"] = tmp_path / "admin.key"
    canaries.search("/api/health", word.encode())
    assert canaries.hits == ["the admin key is in /api/health"]
