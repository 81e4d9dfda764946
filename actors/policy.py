"""The repository's policy: what its owner lets agents do there.

It is read from the *base* commit's `.troupe.yaml`, so nothing an agent writes
changes the rules of its own job, and it is complete: what the file leaves out
is a default or was detected, and every guess is named in `assumptions`.  An
unknown key, a wrong type or a repeated key is an error with its line, never
ignored: a protected path that was misspelled protects nothing.  Reading YAML is
`policyfile`'s business, guessing a test command `detection`'s.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.functional_validators import AfterValidator

from actors.detection import READS, detect_test_command
from actors.errors import AgentError
from actors.policyfile import Path, PolicyFileError, read_yaml
from runtime.wire import WireModel

POLICY_NAME: Final = ".troupe.yaml"
POLICY_BYTES_MAX: Final = 16 << 10
"""Parsing this much takes under half a second at worst."""
COMMAND_LENGTH_MAX: Final = 4_000
PATTERN_LENGTH_MAX: Final = 200
PATTERNS_MAX: Final = 200
WILDCARDS_MAX: Final = 8
"""Stars in one pattern: each multiplies the time a match may take."""
ERRORS_SHOWN_MAX: Final = 10

POLICY_READS: Final = (POLICY_NAME, *READS)
"""The paths that `load_policy` may ask its reader for."""
_MISNAMED: Final = (".troupe.yml", "troupe.yaml", "troupe.yml")
_UNPRINTABLE: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_WORDS: Final = {
    "tuple_type": "it must be a list",
    "dict_type": "it must be a mapping of keys to values",
    "model_type": "it must be a mapping of keys to values",
    "model_attributes_type": "it must be a mapping of keys to values",
    "string_type": "it must be text",
}


class PolicyError(AgentError):
    """The repository's .troupe.yaml can't be used."""


def _command(text: str) -> str:
    if _UNPRINTABLE.search(text):
        raise ValueError("a command may not contain control characters")
    if not text.strip():
        raise ValueError("a command may not be blank; leave the key out instead")
    return text


def _pattern(text: str) -> str:
    if text.startswith("!"):
        raise ValueError("a pattern can't be negated")
    if _UNPRINTABLE.search(text) or ".." in text.split("/") or not text.strip("/"):
        raise ValueError("not a path inside the repository")
    if text.count("*") > WILDCARDS_MAX:
        raise ValueError(f"more than {WILDCARDS_MAX} stars")
    return text


Command = Annotated[str, Field(max_length=COMMAND_LENGTH_MAX), AfterValidator(_command)]
Pattern = Annotated[
    str, Field(min_length=1, max_length=PATTERN_LENGTH_MAX), AfterValidator(_pattern)
]


class _Section(WireModel):
    """A part of the file: types are not coerced, `"3"` is no number."""

    model_config = ConfigDict(strict=True)


class Commands(_Section):
    """Shell commands, run in the sandbox at the repository's root."""

    setup: Command | None = None
    """Installs dependencies; run by the harness before the agent starts."""
    test: Command | None = None
    """Exit code 0 means the tests pass."""
    lint: Command | None = None
    types: Command | None = None


class GatePolicy(_Section):
    """Where the deterministic gates draw their lines."""

    max_files: int = Field(default=40, ge=1, le=10_000)
    """Changed files; more needs a person."""
    max_lines: int = Field(default=1_500, ge=1, le=1_000_000)
    """Added and deleted lines together; more needs a person."""
    max_deleted_files: int = Field(default=5, ge=0, le=10_000)
    max_file_bytes: int = Field(default=1 << 20, ge=1, le=100 << 20)
    """Of one new or changed file; more is refused."""
    dependencies: Literal["allow", "human", "refuse"] = "human"
    """What a new or changed dependency, or a changed lock file, means."""


class DeliveryPolicy(_Section):
    """How approved work reaches the owner."""

    mode: Literal["branch"] = "branch"


class Budgets(_Section):
    """Ceilings of one job; absent means the operator's own, and those are never exceeded."""

    rounds: int | None = Field(default=None, ge=1, le=1_000)
    tokens: int | None = Field(default=None, ge=1_000, le=100_000_000)
    cost_usd: float | None = Field(default=None, gt=0, le=10_000)
    wall_minutes: float | None = Field(default=None, gt=0, le=7 * 24 * 60)


class AgentPolicy(_Section):
    """What one kind of agent may do here."""

    enabled: bool = True
    model: Annotated[str, Field(min_length=1, max_length=100)] | None = None


class PolicyFile(_Section):
    """`.troupe.yaml` as written."""

    version: Literal[1] = 1
    commands: Commands = Commands()
    gates: GatePolicy = GatePolicy()
    protected_paths: tuple[Pattern, ...] = Field(default=(), max_length=PATTERNS_MAX, strict=False)
    """Paths no agent may change: `dir/**`, `*.sql` (in any directory), `/only-at-root`."""
    delivery: DeliveryPolicy = DeliveryPolicy()
    budgets: Budgets = Budgets()
    agents: dict[Literal["code", "research", "review"], AgentPolicy] = Field(default_factory=dict)


class RepositoryPolicy(PolicyFile):
    """The policy of one base commit, complete."""

    model_config = ConfigDict(strict=False)

    source: Literal["file", "detected"] = "detected"
    assumptions: tuple[str, ...] = ()
    """One sentence for each thing that was guessed."""

    @property
    def digest(self) -> str:
        """SHA-256 of everything the policy says; equal digests mean equal rules."""
        text = json.dumps(self.model_dump(mode="json", by_alias=True), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def allows(self, agent: str) -> bool:
        """Whether agents of this kind may work in the repository."""
        return all(chosen.enabled for kind, chosen in self.agents.items() if kind == agent)


def load_policy(read: Callable[[str], bytes | None], names: Collection[str]) -> RepositoryPolicy:
    """The policy of a base tree.

    Args:
        read: a file's content in the base tree; None when there is no such file.
        names: the paths of all files of the base tree.

    Raises:
        PolicyError: the file is there and wrong; the sentence names line, key and near name.
    """
    misnamed = [name for name in _MISNAMED if name in names and POLICY_NAME not in names]
    if misnamed:
        raise PolicyError(f"{misnamed[0]} is not read: rename it to {POLICY_NAME}")
    body = read(POLICY_NAME) if POLICY_NAME in names else None
    stated = parse_policy(body) if body is not None else PolicyFile()
    assumptions = [] if body is not None else [f"no {POLICY_NAME}: defaults apply"]
    commands = stated.commands
    if commands.test is None:
        command, why = detect_test_command(read, names)
        commands = commands.model_copy(update={"test": command})
        assumptions += why
    fields = {name: getattr(stated, name) for name in PolicyFile.model_fields}
    return RepositoryPolicy(
        **(fields | {"commands": commands}),
        source="detected" if body is None else "file",
        assumptions=tuple(assumptions),
    )


def parse_policy(body: bytes) -> PolicyFile:
    """Read `.troupe.yaml`.

    Raises:
        PolicyError: too big, not YAML, or not a policy; all errors at once, by line.
    """
    if len(body) > POLICY_BYTES_MAX:
        raise PolicyError(f"{len(body)} bytes; at most {POLICY_BYTES_MAX}")
    try:
        data, lines = read_yaml(body)
    except PolicyFileError as error:
        raise PolicyError(*error.args) from error
    try:
        return PolicyFile.model_validate(data, by_alias=True, by_name=False)
    except ValidationError as error:
        found = sorted(error.errors(include_url=False), key=lambda item: _line(_path(item), lines))
        sentences = [_sentence(item, lines) for item in found[:ERRORS_SHOWN_MAX]]
        if len(found) > ERRORS_SHOWN_MAX:
            sentences.append(f"and {len(found) - ERRORS_SHOWN_MAX} more")
        raise PolicyError(*sentences) from error


def _sentence(error: Any, lines: Mapping[Path, int]) -> str:
    """`line 3: gates.maxFile is not known; did you mean maxFiles?`"""
    path = _path(error)
    name = ".".join(str(part) for part in path) or "the file"
    if error["type"] in ("extra_forbidden", "literal_error") and _is_key(error, path):
        known = _names_at(path[:-1])
        near = get_close_matches(str(path[-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
        what = f"is not known; {hint}"
    else:
        what = _WORDS.get(error["type"]) or str(error["msg"]).removeprefix("Value error, ")
        what = f"is wrong: {what[0].lower()}{what[1:]}"
    return f"line {_line(path, lines)}: {name} {what}"


def _path(error: Any) -> Path:
    return tuple(part for part in error["loc"] if part != "[key]")


def _is_key(error: Any, path: Path) -> bool:
    """Whether the error is about a key rather than its value."""
    return error["type"] == "extra_forbidden" or len(error["loc"]) != len(path)


def _line(path: Path, lines: Mapping[Path, int]) -> int:
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)


def _names_at(path: Path) -> list[str]:
    """The keys that are known below `path`."""
    if path == ("agents",):
        return ["code", "research", "review"]
    model: type[BaseModel] = PolicyFile
    for part in path:
        if part in ("code", "research", "review"):
            model = AgentPolicy
            continue
        for field in model.model_fields.values():
            if field.alias == part and isinstance(field.annotation, type):
                model = field.annotation
                break
    return [field.alias or name for name, field in model.model_fields.items()]
