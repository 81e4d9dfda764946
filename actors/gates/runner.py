"""What decides how the tests are run: its change is a person's question.

Configuration of the runner, the command's own script, and modules that would
be imported in place of the runner itself: with the repository's root first on
the path, a file `pytest.py` there *is* pytest.
"""

from __future__ import annotations

import configparser
import json
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any, Final

from actors.gates import paths
from actors.gates.candidate import Candidate, Change, Objection, object_to
from actors.gates.protected import touched

_RUNNERS: Final = frozenset(
    {
        "pytest",
        "_pytest",
        "pluggy",
        "iniconfig",
        "unittest",
        "nose",
        "coverage",
        "xdist",
    }
)


def runner_objections(candidate: Candidate, change: Change) -> Iterator[Objection]:
    """What is to be said about one change and the way tests are run."""
    for path in touched(change):
        if paths.matching(path, paths.TEST_CONFIG):
            yield object_to("needs_human", "configures the tests", path)
        elif _in_command(path, candidate.policy.commands.test or ""):
            yield object_to("needs_human", "the test command runs it", path)
    yield from _section(candidate, change)
    yield from _shadow(change)


def _in_command(path: str, command: str) -> bool:
    if path.casefold() in ("makefile", "gnumakefile"):
        return "make" in command.split()
    return any(word.removeprefix("./") == path for word in command.split())


def _shadow(change: Change) -> Iterator[Objection]:
    if change.status[:1] not in ("A", "R", "C"):
        return
    parts = PurePosixPath(change.path).parts
    for root in (parts, parts[1:] if parts[0] == "src" else ()):
        module = root[0].partition(".")[0] if root else ""
        if root and not (len(root) > 1 or root[0].endswith((".py", ".so"))):
            continue
        if module in _RUNNERS:
            yield object_to("failed", f"would be imported instead of {module}", change.path)
        elif module in sys.stdlib_module_names and change.path.endswith((".py", ".so")):
            why = f"may be imported instead of the standard {module}"
            yield object_to("needs_human", why, change.path)


def _section(candidate: Candidate, change: Change) -> Iterator[Objection]:
    read = _SECTIONS.get(change.path)
    if read is None:
        return
    texts = candidate.text_before(change), candidate.text_after(change)
    try:
        before, after = (read(text) if text is not None else None for text in texts)
    except (ValueError, TypeError, AttributeError, RecursionError, configparser.Error):
        yield object_to("needs_human", "may configure the tests, can't be parsed", change.path)
        return
    if (before or None) != (after or None):
        yield object_to("needs_human", "changes how tests are run", change.path)


def _pyproject(text: str) -> Any:
    tool = tomllib.loads(text).get("tool", {})
    return {name: tool[name] for name in ("pytest", "coverage", "tox", "hatch") if name in tool}


def _setup_cfg(text: str) -> Any:
    parser = configparser.RawConfigParser(strict=False)
    parser.read_string(text)
    names = [name for name in parser.sections() if "pytest" in name or name.startswith("coverage")]
    return {name: dict(parser[name]) for name in names}


def _package_json(text: str) -> Any:
    data = json.loads(text)
    scripts = {key: value for key, value in data.get("scripts", {}).items() if "test" in key}
    kept = {name: data[name] for name in ("jest", "vitest", "mocha", "ava", "nyc") if name in data}
    return kept | ({"scripts": scripts} if scripts else {})


_SECTIONS: Final[dict[str, Callable[[str], Any]]] = {
    "pyproject.toml": _pyproject,
    "setup.cfg": _setup_cfg,
    "package.json": _package_json,
}
