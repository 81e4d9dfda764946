"""Finding how a repository runs its tests when its owner has not said so.

A pure function of the base tree: the same tree always gives the same command,
and everything that was guessed is put into words.  Nothing is executed here.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Collection, Iterator
from pathlib import PurePosixPath
from typing import Any, Final

READ_BYTES_MAX: Final = 256 << 10
"""Bigger files are taken as saying nothing."""

Reader = Callable[[str], bytes | None]
_PYTHON_PROJECT: Final = ("pyproject.toml", "setup.py", "setup.cfg", "pytest.ini", "tox.ini")
_MAKEFILES: Final = ("GNUmakefile", "makefile", "Makefile")
_MAKE_TEST: Final = re.compile(r"^(?:[\w./-]+[ \t]+)*test(?:[ \t]+[\w./-]+)*[ \t]*::?(?!=)", re.M)
READS: Final = ("package.json", "pyproject.toml", "setup.cfg", "tox.ini", *_MAKEFILES)
"""The files whose content is looked at; of the others the name says enough."""
_NPM_PLACEHOLDER: Final = "no test specified"


def detect_test_command(read: Reader, names: Collection[str]) -> tuple[str | None, list[str]]:
    """The command that runs the tests and what was assumed, in sentences.

    Looked for in order: Python tests, an npm `test` script, a Makefile target
    `test`, Go, Cargo, and a Python project without any visible tests.
    """
    found = list(_candidates(read, set(names)))
    if not found:
        return None, ["no test command was found: set commands.test in .troupe.yaml"]
    (command, reason), *others = found
    said = [f"commands.test: `{command}`, because {reason}"]
    for other, reason in others:
        if other != command:
            said.append(f"not run: `{other}`, although {reason}; set commands.test to change it")
    return command, said


def _candidates(read: Reader, names: set[str]) -> Iterator[tuple[str, str]]:
    pytest = "python -m pytest -q"
    reason = _python_tests(read, names)
    if reason:
        yield pytest, reason
    script = _npm_test(_text(read, names, "package.json"))
    if script:
        yield "npm test", "package.json has a test script"
    for name in _MAKEFILES:
        if _MAKE_TEST.search(_text(read, names, name)):
            yield "make test", f"{name} has a target test"
            break
    if "go.mod" in names:
        yield "go test ./...", "there is a go.mod"
    if "Cargo.toml" in names:
        yield "cargo test", "there is a Cargo.toml"
    if not reason:
        project = next((name for name in _PYTHON_PROJECT if name in names), None)
        if project:
            yield pytest, f"there is a {project} (but no test file was seen)"


def _python_tests(read: Reader, names: set[str]) -> str | None:
    if "pytest.ini" in names:
        return "there is a pytest.ini"
    if "pytest" in _table(_text(read, names, "pyproject.toml")).get("tool", {}):
        return "pyproject.toml configures pytest"
    if "[tool:pytest]" in _text(read, names, "setup.cfg"):
        return "setup.cfg configures pytest"
    if "[pytest]" in _text(read, names, "tox.ini"):
        return "tox.ini configures pytest"
    tests = sorted(name for name in names if _is_python_test(PurePosixPath(name)))
    return f"there is {tests[0]}" if tests else None


def _is_python_test(path: PurePosixPath) -> bool:
    if path.suffix != ".py" or "node_modules" in path.parts:
        return False
    return path.name.startswith("test_") or path.name.endswith("_test.py")


def _npm_test(text: str) -> str | None:
    try:
        script = json.loads(text)["scripts"]["test"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not isinstance(script, str) or not script.strip() or _NPM_PLACEHOLDER in script:
        return None
    return script


def _table(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError):
        return {}


def _text(read: Reader, names: set[str], name: str) -> str:
    body = read(name) if name in names else None
    if body is None or len(body) > READ_BYTES_MAX:
        return ""
    return body.decode("utf-8", "replace")
