"""Gate `dependencies`: whose code the change brings in.

A dependency is somebody else's code on the owner's machines, so a new name or
another version needs a person (or what the policy says).  Manifests are parsed
and compared, base with final; one that can't be parsed any more, and a scripted
manifest that was touched, need a person too.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, Final

from actors.gates import paths
from actors.gates.candidate import Candidate, Change, Objection, object_to
from actors.gates.verdicts import result
from actors.records import GateResult, GateVerdict

Requirements = dict[str, str]
"""Name (with its group where that matters) to version or source, as written."""

_REQUIREMENT: Final = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)(.*)", re.DOTALL)
_OPTION_OR_ADDRESS: Final = re.compile(r"-|[a-z+]+://")
_SCRIPTED: Final = ("setup.py", "Gemfile", "*.gemspec", "*.gradle", "*.gradle.kts", "pom.xml")
_SETUP_KEYS: Final = ("install_requires", "setup_requires", "tests_require")
_INSTALL_SCRIPTS: Final = ("preinstall", "install", "postinstall", "prepare", "prepublish")


def dependencies(candidate: Candidate) -> GateResult:
    """Whether the change adds no dependency and alters none."""
    rule = candidate.policy.gates.dependencies
    if rule == "allow":
        return GateResult(gate="dependencies", verdict="passed", message="allowed by the policy")
    verdict: GateVerdict = "failed" if rule == "refuse" else "needs_human"
    found: list[Objection] = []
    for change in candidate.changes:
        found += _of(candidate, change, verdict)
    return result("dependencies", found, "no new dependency")


def _of(candidate: Candidate, change: Change, verdict: GateVerdict) -> Iterator[Objection]:
    parse = _parser(change.path)
    if parse is None:
        if paths.matching(change.path, _SCRIPTED):
            why = "a manifest that is a program: look for dependencies in it"
            yield object_to("needs_human", why, change.path)
        return
    after = candidate.text_after(change)
    if after is None:
        return
    before = candidate.text_before(change) if _parser(change.old_path or change.path) else None
    try:
        new = parse(after)
    except (ValueError, TypeError, AttributeError, RecursionError):
        yield object_to("needs_human", "can't be parsed as a manifest", change.path)
        return
    try:
        old = parse(before) if before is not None else {}
    except (ValueError, TypeError, AttributeError, RecursionError):
        old = {}
    for name, version in sorted(new.items()):
        if name not in old:
            yield object_to(verdict, f"a new dependency: {name}", change.path)
        elif old[name] != version:
            yield object_to(verdict, f"another version of {name}", change.path)


def _parser(path: str) -> Callable[[str], Requirements] | None:
    name = PurePosixPath(path).name.casefold()
    if name in _PARSERS:
        return _PARSERS[name]
    requirements = paths.matching(path, ("*requirements*.txt", "*constraints*.txt"))
    if requirements or paths.matching(path, ("requirements/*.txt", "**/requirements/*.txt")):
        return _requirements_txt
    return None


def _requirements_txt(text: str) -> Requirements:
    lines = (re.split(r"(?:^|\s)#", line)[0].strip() for line in text.splitlines())
    return _requirements(line for line in lines if line)


def _requirements(lines: Any) -> Requirements:
    """`name[extra]>=1; marker`, options and addresses (`-r x`, `git+https://...`) by themselves."""
    found: Requirements = {}
    for line in lines:
        match = None if _OPTION_OR_ADDRESS.match(line) else _REQUIREMENT.match(line)
        if match:
            name = re.sub(r"[-_.]+", "-", match[1]).lower()
            found[name] = found.get(name, "") + "".join(match[2].split())
        else:
            found[str(line)] = ""
    return found


def _pyproject(text: str) -> Requirements:
    data = tomllib.loads(text)
    project = data.get("project", {})
    groups = [project.get("dependencies", []), data.get("build-system", {}).get("requires", [])]
    groups += project.get("optional-dependencies", {}).values()
    for group in data.get("dependency-groups", {}).values():
        groups.append([item for item in group if isinstance(item, str)])
    found = _requirements(line for group in groups for line in group)
    tool = data.get("tool", {})
    poetry = tool.get("poetry", {})
    tables = [poetry.get("dependencies", {}), poetry.get("dev-dependencies", {})]
    tables += [group.get("dependencies", {}) for group in poetry.get("group", {}).values()]
    tables.append(tool.get("uv", {}).get("sources", {}))
    backend = data.get("build-system", {}).get("build-backend")
    return found | _tables(tables) | ({"build-backend": str(backend)} if backend else {})


def _pipfile(text: str) -> Requirements:
    data = tomllib.loads(text)
    return _tables([data.get("packages", {}), data.get("dev-packages", {})])


def _cargo(text: str) -> Requirements:
    data = tomllib.loads(text)
    tables = [data, *data.get("target", {}).values(), data.get("workspace", {})]
    kinds = ("dependencies", "dev-dependencies", "build-dependencies")
    return _tables([table.get(kind, {}) for table in tables for kind in kinds])


def _package_json(text: str) -> Requirements:
    data = json.loads(text)
    kinds = ("dependencies", "devDependencies", "peerDependencies", "optionalDependencies")
    found = _tables([data.get(kind, {}) for kind in (*kinds, "overrides", "resolutions")])
    scripts = data.get("scripts", {})
    return found | {f"script {key}": scripts[key] for key in _INSTALL_SCRIPTS if key in scripts}


def _composer(text: str) -> Requirements:
    data = json.loads(text)
    return _tables([data.get("require", {}), data.get("require-dev", {})])


def _go_mod(text: str) -> Requirements:
    found: Requirements = {}
    block = ""
    for raw in text.splitlines():
        words = raw.partition("//")[0].split()
        if words and words[-1] == "(":
            block = words[0]
        elif words == [")"]:
            block = ""
        elif words:
            verb, rest = (block, words) if block else (words[0], words[1:])
            if verb in ("require", "replace") and rest:
                found[("replace " if verb == "replace" else "") + rest[0]] = " ".join(rest[1:])
    return found


def _setup_cfg(text: str) -> Requirements:
    """Continuation lines of the keys that list requirements."""
    lines: list[str] = []
    section = key = ""
    for raw in text.splitlines():
        line = raw.partition("#")[0]
        if line.startswith("["):
            section, key = line.strip(), ""
        elif line and not line[0].isspace():
            key, _, line = line.partition("=")
        listing = key.strip() in _SETUP_KEYS or (key and section == "[options.extras_require]")
        if listing and line.strip():
            lines.append(line.strip())
    return _requirements(lines)


def _tables(tables: Any) -> Requirements:
    found: Requirements = {}
    for table in tables:
        if not isinstance(table, Mapping):
            raise ValueError("a table of dependencies is expected")
        for name, version in table.items():
            found[name] = found.get(name, "") + json.dumps(version, sort_keys=True, default=str)
    return found


_PARSERS: Final[dict[str, Callable[[str], Requirements]]] = {
    "pyproject.toml": _pyproject,
    "pipfile": _pipfile,
    "setup.cfg": _setup_cfg,
    "package.json": _package_json,
    "cargo.toml": _cargo,
    "composer.json": _composer,
    "go.mod": _go_mod,
}
