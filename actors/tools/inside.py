"""The file tools' inner half: a program that runs in the sandbox and serves requests.

It reads requests from standard input and answers on standard output, each a
four-byte length and a JSON object.  A path is followed to its canonical place,
which must lie in /workspace, and is then opened component by component without
following links, so a link swapped in between is refused and not followed.
Only regular files are opened.  It imports the standard library only.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
import struct
import sys
from collections.abc import Iterator
from typing import Any

ROOT = "/workspace"
FILE_BYTES_MAX = 50 << 20
SHOWN_BYTES_MAX = 256 << 10
SEARCHED_BYTES_MAX = 2 << 20
LINE_CHARS_MAX = 500
"""Of a match."""
WIDE_CHARS_MAX = 20_000
"""Of a line that is read."""
ENTRIES_MAX = 200_000
PATHS_MAX = 1_000
MATCHES = 100
PATH_BYTES_MAX = 4_096
SNIPPET_LINES = 3
SKIPPED = frozenset(
    (".git", "node_modules", "__pycache__", ".venv", "venv", ".tox", ".nox", ".mypy_cache",
     ".pytest_cache", ".ruff_cache", ".hypothesis", ".eggs", ".gradle", ".next", ".cache")
)  # fmt: skip


class Refused(Exception):
    """The request can't be done; the sentence goes to the model."""


Answer = tuple[str, dict[str, Any]]


def read(asked: dict[str, Any]) -> Answer:
    name, content, _ = load(asked["path"])
    if b"\0" in content[:8192]:
        raise Refused(f"{name} is a binary file of {len(content)} bytes.")
    lines = text_of(content).split("\n")
    if lines[-1] == "":
        lines.pop()
    first = asked.get("start_line", 1)
    last = min(asked.get("end_line", len(lines)), len(lines))
    if first > max(last, 1):
        raise Refused(f"{name} has {len(lines)} lines; {first} to {last} is no range in it.")
    shown, size = [], 0
    for number in range(first, last + 1):
        line = f"{number:6}\t{cut(lines[number - 1])}"
        size += len(line) + 1
        if size > SHOWN_BYTES_MAX:
            shown.append(f"[cut at {SHOWN_BYTES_MAX} characters; read from line {number}]")
            break
        shown.append(line)
    ends = ", line ends CRLF" if b"\r\n" in content else ""
    head = f"{name}: {len(lines)} lines, {len(content)} bytes{ends}, sha256 {sha(content)}"
    return "\n".join([head, *shown]), {"path": name, "sha256": sha(content)}


def edit(asked: dict[str, Any]) -> Answer:
    old, new = asked["old_string"], asked["new_string"]
    if not old or old == new:
        raise Refused("old_string must not be empty and must differ from new_string.")
    name, content, mode = load(asked["path"])
    if asked.get("expect_sha") not in (None, sha(content)):
        raise Refused(f"{name} has sha256 {sha(content)} now; read it again.")
    text = text_of(content)
    if old not in text and "\r\n" in text and "\r" not in old:
        old, new = old.replace("\n", "\r\n"), new.replace("\n", "\r\n")
    count = text.count(old)
    if count == 0:
        raise Refused(
            f"old_string was not found in {name}. It must match exactly, with its indentation"
            " and without line numbers; read the file again."
        )
    if count > 1 and not asked.get("replace_all"):
        raise Refused(
            f"old_string occurs {count} times in {name} (lines {places(text, old)}); add lines"
            " around it, or set replace_all."
        )
    at = text.index(old)
    changed = text.replace(old, new)
    saved = bytes_of(changed)
    save(name, saved, mode)
    times = f"{count} occurrences" if count > 1 else "1 occurrence"
    head = f"{name}: replaced {times}, sha256 {sha(saved)}"
    return f"{head}\n{snippet(changed, at, new)}", {"path": name, "sha256": sha(saved)}


def write(asked: dict[str, Any]) -> Answer:
    content = bytes_of(asked["content"])
    mode = 0o644
    try:
        name, before, mode = load(asked["path"])
    except FileNotFoundError:
        name = canonical(asked["path"])
        done = "created"
    else:
        seen = asked["seen"].get(name)
        if seen is None:
            raise Refused(f"{name} exists; read it before writing over it.")
        if seen != sha(before):
            raise Refused(f"{name} has changed since it was read; read it again.")
        done = "written"
    save(name, content, mode)
    return (
        f"{name}: {done}, {len(content)} bytes, sha256 {sha(content)}",
        {"path": name, "sha256": sha(content)},
    )


def glob(asked: dict[str, Any]) -> Answer:
    top = canonical(asked.get("path", "."))
    wanted = matcher(asked["pattern"])
    found = sorted(path for path in walk(top) if wanted.fullmatch(below(top, path)))
    if not found:
        return "No file matches.", {}
    more = [f"[{len(found) - PATHS_MAX} more]"] if len(found) > PATHS_MAX else []
    return "\n".join([*map(shown_name, found[:PATHS_MAX]), *more]), {}


def grep(asked: dict[str, Any]) -> Answer:
    try:
        wanted = re.compile(asked["pattern"])
    except re.error as error:
        raise Refused(f"pattern is not a regular expression: {error}.") from error
    top = canonical(asked.get("path", "."))
    only = matcher(asked["glob"]) if "glob" in asked else None
    most, context = asked.get("max", MATCHES), asked.get("context", 0)
    shown: list[str] = []
    matches = files = 0
    for path in sorted(walk(top)):
        if only and not (only.fullmatch(path) or only.fullmatch(path.rpartition("/")[2])):
            continue
        lines = searchable(path)
        hits = [number for number, line in enumerate(lines) if wanted.search(line)]
        files += bool(hits)
        if hits and matches < most:
            shown += around(shown_name(path), lines, hits[: most - matches], context)
        matches += len(hits)
    if not matches:
        return "No line matches.", {}
    return "\n".join(
        [*shown, f"[{matches} matches in {files} files, {min(matches, most)} shown]"]
    ), {}


def canonical(path: str) -> str:
    """The path from /workspace of what `path` leads to, links followed."""
    if "\0" in path or len(os.fsencode(path)) > PATH_BYTES_MAX:
        raise Refused("The path holds a NUL or is longer than 4096 bytes.")
    real = os.path.realpath(os.path.join(ROOT, path))  # noqa: PTH118
    if real != ROOT and not real.startswith(ROOT + "/"):
        raise Refused(f"{path} is outside the repository.")
    return os.path.relpath(real, ROOT)


@contextlib.contextmanager
def opened_parent(name: str, make: bool = False) -> Iterator[tuple[int, str]]:
    """The directory of a canonical name, reached without following a link."""
    *above, leaf = name.split("/")
    fd = os.open(ROOT, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in above:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=fd)
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
            os.close(fd)
            fd = below
        yield fd, leaf
    finally:
        os.close(fd)


def load(path: str) -> tuple[str, bytes, int]:
    """Name, content and mode of a regular file."""
    name = canonical(path)
    with opened_parent(name) as (parent, leaf):
        # Without O_NONBLOCK opening a pipe would wait for its other end.
        fd = os.open(leaf, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=parent)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise Refused(f"{name} is not a regular file.")
        if status.st_size > FILE_BYTES_MAX:
            raise Refused(f"{name} has {status.st_size} bytes; at most {FILE_BYTES_MAX} are read.")
        with os.fdopen(fd, "rb", closefd=False) as file:
            return name, file.read(FILE_BYTES_MAX + 1), stat.S_IMODE(status.st_mode)
    finally:
        os.close(fd)


def save(name: str, content: bytes, mode: int) -> None:
    """Write a file whole or not at all."""
    if name == ".":
        raise Refused("The path names the repository itself.")
    if ".git" in name.casefold().split("/"):
        raise Refused("Nothing named .git can be written; the history is kept elsewhere.")
    with opened_parent(name, make=True) as (parent, leaf):
        try:
            if stat.S_ISDIR(os.stat(leaf, dir_fd=parent, follow_symlinks=False).st_mode):
                raise Refused(f"{name} is a directory.")
        except FileNotFoundError:
            pass
        aside = f".{os.getpid()}.writing"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with contextlib.suppress(FileNotFoundError):
            os.unlink(aside, dir_fd=parent)
        fd = os.open(aside, flags, 0o644, dir_fd=parent)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(content)
                os.fchmod(fd, mode & 0o777)
            os.rename(aside, leaf, src_dir_fd=parent, dst_dir_fd=parent)
        except OSError:
            os.unlink(aside, dir_fd=parent)
            raise


def walk(top: str) -> Iterator[str]:
    """The files and links below a directory (or the one file), links not followed."""
    if not os.path.isdir(os.path.join(ROOT, top)):  # noqa: PTH112, PTH118
        yield top
        return
    waiting, seen = [top], 0
    while waiting:
        directory = waiting.pop()
        try:
            entries = list(os.scandir(os.path.join(ROOT, directory)))  # noqa: PTH118
        except OSError:
            continue
        for entry in entries:
            seen += 1
            if seen > ENTRIES_MAX:
                raise Refused(f"There are more than {ENTRIES_MAX} files; give a path.")
            path = entry.name if directory == "." else f"{directory}/{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                if entry.name not in SKIPPED:
                    waiting.append(path)
            else:
                yield path


def matcher(pattern: str) -> re.Pattern[str]:
    """A glob as a regular expression on paths with `/`."""
    out, at, braces = "", 0, 0
    while at < len(pattern):
        rest, character = pattern[at:], pattern[at]
        step = 1
        if rest.startswith("**/"):
            out, step = out + "(?:[^/]+/)*", 3
        elif rest.startswith("**"):
            out, step = out + ".*", 2
        elif character == "*":
            out += "[^/]*"
        elif character == "?":
            out += "[^/]"
        elif character == "[" and "]" in rest[2:]:
            end = rest.index("]", 2)
            inner = rest[1:end].replace("\\", "\\\\")
            out, step = out + "[" + ("^" + inner[1:] if inner[0] in "!^" else inner) + "]", end + 1
        elif character == "{" and "}" in rest:
            out, braces = out + "(?:", braces + 1
        elif character == "}" and braces:
            out, braces = out + ")", braces - 1
        elif character == "," and braces:
            out += "|"
        else:
            out += re.escape(character)
        at += step
    try:
        return re.compile(out, re.DOTALL)
    except re.error as error:
        raise Refused(f"{pattern!r} is not a pattern: {error}.") from error


def searchable(path: str) -> list[str]:
    """The lines of a text file; none of what can't be searched."""
    try:
        _, content, _ = load(path)
    except (OSError, Refused):
        return []
    if len(content) > SEARCHED_BYTES_MAX or b"\0" in content[:8192]:
        return []
    return text_of(content).split("\n")


def around(name: str, lines: list[str], hits: list[int], context: int) -> list[str]:
    shown: dict[int, str] = {}
    for hit in hits:
        for number in range(max(0, hit - context), min(len(lines), hit + context + 1)):
            shown.setdefault(number, "-")
        shown[hit] = ":"
    return [
        f"{name}{sign}{number + 1}{sign}{lines[number][:LINE_CHARS_MAX]}"
        for number, sign in sorted(shown.items())
    ]


def places(text: str, part: str) -> str:
    """The line numbers of the first few occurrences."""
    numbers: list[str] = []
    at = text.find(part)
    while at >= 0 and len(numbers) < 5:
        numbers.append(str(text.count("\n", 0, at) + 1))
        at = text.find(part, at + len(part))
    return ", ".join(numbers)


def snippet(text: str, at: int, new: str) -> str:
    """The changed lines with a few around them, numbered."""
    lines = text.split("\n")
    first = text.count("\n", 0, at)
    last = first + new.count("\n")
    window = range(max(0, first - SNIPPET_LINES), min(len(lines), last + SNIPPET_LINES + 1))
    return "\n".join(f"{number + 1:6}\t{lines[number]}" for number in window)


def below(top: str, path: str) -> str:
    return path if top in (".", path) else path[len(top) + 1 :]


def cut(line: str) -> str:
    more = len(line) - WIDE_CHARS_MAX
    return line if more <= 0 else f"{line[:WIDE_CHARS_MAX]} [{more} more characters]"


def shown_name(path: str) -> str:
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def text_of(content: bytes) -> str:
    """Text from which `bytes_of` gets the same bytes back, UTF-8 or not."""
    return content.decode("utf-8", "surrogateescape")


def bytes_of(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


TOOLS = {"read": read, "edit": edit, "write": write, "glob": glob, "grep": grep}


def answer(request: dict[str, Any]) -> dict[str, Any]:
    try:
        text, data = TOOLS[request["name"]](request["input"])
    except Refused as refusal:
        return {"text": str(refusal), "is_error": True, "data": {}}
    except OSError as error:
        where = request["input"].get("path", "")
        return {"text": f"{where}: {error.strerror}.", "is_error": True, "data": {}}
    return {"text": text, "is_error": False, "data": data}


def main() -> None:
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    while header := requests.read(4):
        (size,) = struct.unpack(">I", header)
        reply = json.dumps(answer(json.loads(requests.read(size)))).encode()
        answers.write(struct.pack(">I", len(reply)) + reply)
        answers.flush()


if __name__ == "__main__":
    main()
