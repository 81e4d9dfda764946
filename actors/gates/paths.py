"""What a path means: a glob of the policy, a test, a CI file, a lock file.

Patterns are matched against whole paths without regard to case, because a
repository may be checked out where `.GITHUB` is `.github`.  `*` stays inside a
directory, `**` crosses them; a pattern without a slash matches in every
directory; what matches a directory matches everything below it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Final

CI: Final = (
    ".github/workflows/**",
    ".github/actions/**",
    ".gitlab-ci.yml",
    ".gitlab/ci/**",
    "/.ci/**",
    ".circleci/**",
    ".buildkite/**",
    ".woodpecker/**",
    ".woodpecker.y*ml",
    ".drone.yml",
    ".travis.yml",
    ".teamcity/**",
    ".cirrus.yml",
    "azure-pipelines*.yml",
    "bitbucket-pipelines.yml",
    "appveyor.yml",
    "cloudbuild.y*ml",
    "buildspec*.yml",
    "Jenkinsfile*",
    ".pre-commit-config.yaml",
    ".husky/**",
    ".githooks/**",
    "lefthook.yml",
)

PROTECTED: Final = (
    ".github/**",
    ".troupe.yaml",
    ".troupe.yml",
    "CODEOWNERS",
    "Dockerfile*",
    "*.dockerfile",
    "Containerfile*",
    "docker-compose*.y*ml",
    "compose.y*ml",
    ".dockerignore",
    ".gitattributes",
    ".gitmodules",
    ".envrc",
    ".mcp.json",
    ".vscode/**",
    ".idea/**",
    ".devcontainer/**",
    ".claude/**",
    ".cursor/**",
    "AGENTS.md",
    "CLAUDE.md",
    "GEMINI.md",
    "sitecustomize.py",
    "usercustomize.py",
    "*.pth",
)
"""Read by tools that trust the repository: build machines, editors, other agents."""

LOCKS: Final = (
    "package-lock.json",
    "npm-shrinkwrap.json",
    "yarn.lock",
    "pnpm-lock.yaml",
    "bun.lock*",
    "poetry.lock",
    "uv.lock",
    "pdm.lock",
    "Pipfile.lock",
    "pylock*.toml",
    "Cargo.lock",
    "go.sum",
    "Gemfile.lock",
    "composer.lock",
    "flake.lock",
    "gradle.lockfile",
)

TEST_CONFIG: Final = (
    "conftest.py",
    "/pytest.ini",
    "/tox.ini",
    "/noxfile.py",
    ".coveragerc",
    "jest.config.*",
    "jest.setup.*",
    "vitest.config.*",
    "vitest.setup.*",
    "karma.conf.*",
    "playwright.config.*",
    "cypress.config.*",
    ".mocharc*",
    "phpunit.xml*",
    ".rspec",
)

_TEST_FILE: Final = (
    "test_*.py",
    "*_test.py",
    "*.test.*",
    "*.spec.*",
    "*_test.go",
    "*_spec.rb",
    "*Test.java",
    "*Tests.java",
    "*Test.kt",
    "*Tests.cs",
    "*Test.php",
)
_TEST_DIRECTORIES: Final = frozenset({"test", "tests", "__tests__", "spec", "specs", "testdata"})


@lru_cache(maxsize=4_096)
def _compiled(pattern: str) -> re.Pattern[str]:
    text = pattern.casefold().rstrip("/")
    rooted = text.startswith("/")
    anywhere = not rooted and "/" not in text
    expression = ""
    for part in re.split(r"(\*\*/|\*\*|\*|\?)", text.lstrip("/")):
        expression += _GLOB.get(part, re.escape(part))
    return re.compile(("(?:.*/)?" if anywhere else "") + expression + "(?:/.*)?", re.DOTALL)


_GLOB: Final = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def matching(path: str, patterns: Iterable[str]) -> str | None:
    """The first pattern that matches the path."""
    folded = path.casefold()
    return next((item for item in patterns if _compiled(item).fullmatch(folded)), None)


def is_test(path: str) -> bool:
    """Whether the path is a test, or belongs to tests."""
    parts = PurePosixPath(path).parts
    inside = any(part.casefold() in _TEST_DIRECTORIES for part in parts[:-1])
    return inside or matching(path, _TEST_FILE) is not None


def is_collected_test(path: str) -> bool:
    """Whether a runner would collect this very file."""
    return matching(path, _TEST_FILE) is not None
