"""A recipe: how a repository is set up, and the name under which the result is kept.

Two jobs share a result only if nothing that decided it differs: organization,
repository, the ref the work begins from, the command, every lock file, manifest
and file that the command names, and the sandbox it ran in.  The ref is part of
it so that whoever may push a branch can't make what jobs on another branch
use.  A pure function of the base tree's listing: nothing is read or run here.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import translate
from typing import Final

from actors.gates.paths import LOCKS
from actors.gates.trees import Entry

FORM: Final = 1
"""Of what is kept; another number, and everything is made anew."""
_PYTHON: Final = ("pyproject.toml", "setup.py", "setup.cfg", "*requirements*.txt", "Pipfile")
_MANIFESTS: Final = (
    *_PYTHON, "*constraints*.txt", "environment.yml", ".python-version", ".tool-versions",
    "package.json", ".npmrc", ".yarnrc*", "pnpm-workspace.yaml", ".nvmrc", "go.mod", "go.work",
    "cargo.toml", "rust-toolchain*", "gemfile", "*.gemspec", "composer.json", "pom.xml",
    "*.gradle", "*.gradle.kts", "gradle.properties", "mix.exs", "makefile", "gnumakefile",
)  # fmt: skip
_REQUIREMENTS_FOLDER: Final = re.compile(r"(^|/)requirements/[^/]+\.(txt|in)$")
_NOT_A_WORD: Final = re.compile(r"[\s;&|()<>\"'`]+")


def _any_of(patterns: Sequence[str]) -> re.Pattern[str]:
    return re.compile("|".join(translate(pattern.casefold()) for pattern in patterns))


_INPUT: Final = _any_of((*LOCKS, *_MANIFESTS))
_PYTHON_PROJECT: Final = _any_of(_PYTHON)


@dataclass(frozen=True)
class Recipe:
    """What is run, and the name of its result."""

    command: str
    key: str
    """64 hexadecimal digits."""
    python: bool
    """It is a Python project: an environment for its packages is made first."""

    def only_for(self, tree: str) -> Recipe:
        """The same for one base tree alone."""
        return replace(self, key=_digest([self.key, tree]))


def recipe(command: str, surroundings: Sequence[str], tree: Mapping[str, Entry]) -> Recipe:
    """The recipe of a base tree.

    Args:
        command: as the policy says it.
        surroundings: what else tells results apart: organization, repository, ref, sandbox.
        tree: the base tree's listing.
    """
    inputs = [[path, tree[path].mode, tree[path].object_id] for path in _inputs(command, tree)]
    names = (path.rpartition("/")[2].casefold() for path in tree)
    key = _digest([FORM, command, list(surroundings), inputs])
    return Recipe(command, key, any(map(_PYTHON_PROJECT.fullmatch, names)))


def _inputs(command: str, tree: Mapping[str, Entry]) -> Iterator[str]:
    words = {word.removeprefix("./") for word in _NOT_A_WORD.split(command)}
    for path in sorted(tree):
        name = path.rpartition("/")[2].casefold()
        if path in words or _INPUT.fullmatch(name) or _REQUIREMENTS_FOLDER.search(path):
            yield path


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
