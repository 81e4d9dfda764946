"""The README teaches commands that exist and names files that are there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from actors.cli import main

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
TYPED = [
    line.partition("#")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
]


@pytest.mark.parametrize("line", [line for line in TYPED if re.search(r"\btroupe\b", line)])
def test_every_command_of_the_readme_can_be_typed(line: str) -> None:
    """A newcomer's first commands would be refused."""
    words = shlex.split(line)
    args = words[words.index("troupe") + 1 :]
    command: click.Command = main
    while isinstance(command, click.Group):
        command = command.commands[args.pop(0)]
    command.parse_args(click.Context(command), args)


def test_every_command_is_in_the_readme() -> None:
    """A newcomer would not learn that there is one."""
    table = README.partition("\n| command | does |\n")[2].partition("\n\n")[0]
    first = [re.findall(r"`([a-z]+)`", line.split(" | ")[0]) for line in table.splitlines()]
    named = [name for names in first for name in names]
    assert sorted(named) == sorted(name for name, one in main.commands.items() if not one.hidden)


def test_every_target_of_the_readme_is_in_the_makefile() -> None:
    """`make run` would be a target that nobody has written."""
    makefile = (ROOT / "Makefile").read_text()
    named = set(re.findall(r"`make ([a-z]+)`", README)) | {
        line.split()[1] for line in TYPED if line.startswith("make ")
    }
    named |= {
        t
        for row in re.findall(r"\| `make ([a-z` ]+)` \|", README)
        for t in re.findall(r"[a-z]+", row)
    }
    assert {"run", "stop", "test"} <= named
    assert [target for target in named if not re.search(rf"^{target}:", makefile, re.M)] == []


DOCUMENTS = ["README.md", "CHANGELOG.md", *sorted(
    str(page.relative_to(ROOT)) for page in (ROOT / "docs").rglob("*.md"))]  # fmt: skip


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_leads_somewhere(document: str) -> None:
    """A reader would be sent to a page that is not there."""
    text = (ROOT / document).read_text()
    folder = (ROOT / document).parent
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", text)
    code = re.findall(
        r"(?<![\w/])((?:actors|runtime|docs|examples|tests)/[\w/.-]*\w)\b(?!\*)", text
    )
    missing = [link for link in links if "://" not in link and not (folder / link).exists()]
    named = [ROOT / name for name in code]
    gone = [path for path in named if not (path.exists() or path.with_suffix(".py").exists())]
    assert (missing, gone) == ([], [])


NAMED = sorted(
    (document, line)
    for document in DOCUMENTS
    for line in set(re.findall(r"`(troupe [a-z][^`]*)`", (ROOT / document).read_text()))
)


@pytest.mark.parametrize(("document", "line"), NAMED)
def test_every_command_that_a_document_names_has_its_options(document: str, line: str) -> None:
    """An operator would type what was renamed."""
    words = line.replace("|", " | ").split()[1:]
    command: click.Command = main
    while isinstance(command, click.Group) and words:
        command = command.commands[words.pop(0)]
    if command.name == "verify":  # it hands its words on
        return
    known = {option for one in command.params for option in (*one.opts, *one.secondary_opts)}
    typed = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
    assert typed <= known | {"--help"}
