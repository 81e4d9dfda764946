"""YAML as plain data with the line of every value, and none of YAML's surprises.

Only one document of mappings, lists and plain scalars is read: aliases,
anchors, explicit tags and repeated keys are refused by line, so the size of the
text bounds the size of the data and nothing is ever constructed by name.  What
the keys mean is the caller's business.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import yaml

from actors.errors import AgentError

DEPTH_MAX: Final = 16

Path = tuple[int | str, ...]
"""Keys and list indexes from the top of the file."""


class PolicyFileError(AgentError):
    """The file is not the plain YAML that is read here."""


def read_yaml(body: bytes) -> tuple[Any, dict[Path, int]]:
    """The data of a YAML text and the 1-based line of every path in it.

    An empty text is an empty mapping.

    Raises:
        PolicyFileError: not UTF-8, not YAML, or YAML that is not plain; with the line.
    """
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PolicyFileError(f"not UTF-8 at byte {error.start}") from error
    try:
        _refuse_surprises(text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        lines: dict[Path, int] = {}
        data = _build(node, (), lines) if node is not None else {}
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise PolicyFileError(f"line {mark.line + 1 if mark else 1}: {error.problem}") from error
    except yaml.YAMLError as error:
        raise PolicyFileError(str(error).partition("\n")[0]) from error
    return ({} if data is None else data), lines


def _refuse_surprises(text: str) -> None:
    depth = documents = 0
    events: Iterator[Any] = yaml.parse(text, Loader=yaml.SafeLoader)
    for event in events:
        line = event.start_mark.line + 1
        documents += isinstance(event, yaml.DocumentStartEvent)
        if documents > 1:
            raise PolicyFileError(f"line {line}: a second document")
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise PolicyFileError(f"line {line}: anchors and aliases are not read")
        if getattr(event, "tag", None):
            raise PolicyFileError(f"line {line}: tags are not read")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > DEPTH_MAX:
            raise PolicyFileError(f"line {line}: nested deeper than {DEPTH_MAX}")


def _build(node: Any, path: Path, lines: dict[Path, int]) -> Any:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        return [_build(child, (*path, index), lines) for index, child in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, path, lines)
    return _scalar(node)


def _mapping(node: Any, path: Path, lines: dict[Path, int]) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        key = _scalar(key_node) if isinstance(key_node, yaml.ScalarNode) else None
        if not isinstance(key, str):
            raise PolicyFileError(f"line {line}: a key must be text; quote it if it is meant so")
        if key in data:
            raise PolicyFileError(f"line {line}: {key} is there twice")
        lines[(*path, key)] = line
        data[key] = _build(value_node, (*path, key), lines)
    return data


def _scalar(node: Any) -> Any:
    try:
        return yaml.constructor.SafeConstructor().construct_object(node)
    except (ValueError, OverflowError) as error:
        raise PolicyFileError(f"line {node.start_mark.line + 1}: not a usable value") from error
