"""The command's help: every command teaches itself, and every example is one that works."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from actors.cli import main
from actors.commands.base import TroupeCommand, TroupeGroup


def leaves(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from leaves(child, (*path, name))
    else:
        yield path


PATHS = sorted(leaves(main, ()))


def find(path: tuple[str, ...]) -> click.Command:
    command: click.Command = main
    for name in path:
        assert isinstance(command, click.Group)
        command = command.commands[name]
    return command


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_every_command_has_json_and_an_example(path: tuple[str, ...]) -> None:
    """A user would have to guess how it is called, a program could not read it."""
    result = CliRunner().invoke(main, [*path, "--help"])
    assert result.exit_code == 0
    for option in ("--json", "--url", "--token", "--data"):
        assert option in result.output
    assert f"troupe {' '.join(path)}" in result.output.partition("Examples:")[2]


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_every_example_can_be_typed(path: tuple[str, ...]) -> None:
    """Help would teach options that do not exist."""
    command = find(path)
    assert isinstance(command, TroupeCommand)
    for example in command.examples:
        words = [w for w in shlex.split(example.replace("$(", " ").replace(")", " ")) if w != "|"]
        if "troupe" not in words:
            assert example == "make run"
            continue
        args = words[words.index("troupe") + 1 :]
        named = args[: len(path)]
        assert tuple(named) == path[: len(named)]
        rest = args[len(path) :] if tuple(named) == path else []
        rest = rest[: next((i for i, word in enumerate(rest) if word in ("jq", "git")), len(rest))]
        context = click.Context(command, info_name="troupe", **command.context_settings)
        command.parse_args(context, ["-" if word == "issue.md" else word for word in rest])


def test_a_command_without_an_example_can_not_be_made() -> None:
    """The next command would come without one."""
    with pytest.raises(ValueError, match="example"):
        TroupeCommand("x", examples=[])


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["isues"], "troupe issues"),
        (["statsu"], "troupe status"),
        (["jobs", "lst"], "troupe jobs list"),
        (["review", "aprove"], "troupe review approve"),
    ],
)
def test_a_near_name_is_offered(typed: list[str], meant: str) -> None:
    """A typing error would send the user to the manual."""
    result = CliRunner().invoke(main, typed)
    assert result.exit_code == 2
    assert f"Did you mean `{meant}`?" in result.output


def test_a_far_name_offers_nothing() -> None:
    """A wrong guess is worse than none."""
    result = CliRunner().invoke(main, ["xyzzy"])
    assert result.exit_code == 2
    assert "Did you mean" not in result.output


@pytest.mark.parametrize(
    "group", [c.name for c in main.commands.values() if isinstance(c, TroupeGroup)]
)
def test_a_group_without_a_command_lists(group: str) -> None:
    """`troupe jobs` would print a usage error instead of the jobs."""
    result = CliRunner().invoke(main, [group, "--limit", "zero"])
    assert result.exit_code == 2
    assert "--limit" in result.output or group == "keys"
    assert CliRunner().invoke(main, [group, "-h"]).output.startswith(f"Usage: troupe {group} [")


def test_the_exit_codes_are_documented() -> None:
    """Scripts could not tell a stopped Troupe from failed work."""
    shown = CliRunner().invoke(main, ["--help"]).output
    for code in ("0", "1", "2", "3", "4", "5", "130"):
        assert f"\n    {code} " in shown
