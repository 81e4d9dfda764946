"""The department as a whole: its kinds, its words, its settings, its sample."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from string import Template

import pytest

from actors import prompts
from actors.department import kinds
from actors.models.script import Script
from actors.models.scripted import SCRIPTS
from actors.models.settings import ModelSettings
from actors.prompts import render
from actors.records import AgentIssue, IssueSubmission
from actors.research import ResearchAgent
from actors.sample import ISSUE_NAME, is_sample, is_sample_issue, sample_tree
from actors.settings import SAMPLE_DEFAULT, DepartmentSettings
from actors.tools import NAMES
from actors.words import step_words
from actors.working import issue_text
from runtime.errors import SettingsError
from runtime.ids import AgentId
from tests.agents import AT, FINISH, case, git, issue, sample_repository, use
from tests.workshop import needs_sandbox

REPORT = use(
    "report",
    root_cause="It subtracts one.",
    evidence=[{"path": "cart.py", "line": 2}],
    options=["Leave it out."],
    confidence="high",
)


def test_every_kind_makes_an_agent_of_that_kind():
    """Else the runtime can't bring an agent to life."""
    made = {kind: factory(AgentId(f"{kind}:x")) for kind, factory in kinds(settings()).items()}
    assert set(made) == {"issue", "triage", "code", "research", "review", "delivery"}
    assert all(agent.kind == kind and agent.capabilities for kind, agent in made.items())


def settings(**fields) -> DepartmentSettings:
    return DepartmentSettings(**fields)


@needs_sandbox
async def test_research_ends_in_a_report_and_changes_nothing(tmp_path):
    """Else a question is answered by nothing that stays."""
    turns = [use("read", path="cart.py"), FINISH, REPORT]
    async with case(tmp_path, *turns, agent=ResearchAgent) as work:
        result = await work.run()
        assert result.outcome == "reported"
        assert result.summary == "It subtracts one."
        assert result.recommendations == ("Leave it out.",)
        [artifact] = result.artifacts
        assert (artifact.type, artifact.name) == ("analysis", "issue_1.md")
        text = work.durable.content[artifact.sha256].decode()
        assert "- `cart.py:2`" in text
        assert text.startswith("# Totals are wrong")


# Words


def test_prompts_are_filled_strictly_and_never_twice():
    """Else a forgotten field reaches the model, or a text from outside pulls another in."""
    assert render("steering", message="$message ${x}").endswith("$message ${x}")
    with pytest.raises(KeyError):
        render("steering")
    with pytest.raises(ValueError, match="no field"):
        render("nudge", ends="finish", more="")


def test_prompts_say_nothing_that_changes_between_two_jobs():
    """Else no two jobs share the cached beginning of their conversations."""
    folder = Path(prompts.__file__).parent
    for path in folder.glob("*_system.md"):
        assert Template(path.read_text()).get_identifiers() == [], path.name


def test_every_tool_has_words_for_people():
    """Else progress shows a code."""
    for name in NAMES:
        assert not step_words(name, {}).startswith("Using"), name
    assert step_words("edit", {"path": "a\u202e\nb.py"}) == "Editing a\\u202e b.py"
    assert len(step_words("bash", {"command": "x" * 500})) < 100
    assert step_words("read", {"path": ["no text"]}) == "Reading"


def test_all_that_an_issue_says_reaches_the_model():
    """Else an agent works without what its author said."""
    text = issue_text(
        issue(context={"module": "cart", "affected_files": ["cart.py"], "metadata": {"n": 1}})
    )
    for part in ("Totals are wrong", "one too low", "cart", "cart.py", '"n": 1'):
        assert part in text


# Settings


def test_settings_come_from_the_environment_and_are_checked():
    """Else a slip of the operator becomes another limit."""
    made = DepartmentSettings.from_env(
        {
            "TROUPE_DATA": "/data",
            "TROUPE_REPOSITORY_ROOTS": "/a:/b/c",
            "TROUPE_COST_USD_MAX": "0.5",
            "TROUPE_ROUNDS_MAX": "7",
        }
    )
    assert made.data_dir == Path("/data")
    assert made.repository_roots == (Path("/a"), Path("/b/c"))
    assert (made.job_config().cost_usd_max, made.job_config().rounds_max) == (0.5, 7)
    for wrong in (
        {"TROUPE_COST_USD_MAX": "none"},
        {"TROUPE_ROUNDS_MAX": "0"},
        {"TROUPE_WALL_S": "inf"},
        {"TROUPE_REPOSITORY_ROOTS": "relative"},
        {"TROUPE_REPOSITORY_ROOTS": "/a:~nobody-has-this-name/b"},
        {"TROUPE_DATA": "~nobody-has-this-name/troupe"},
        {"TROUPE_ROUNDS_MAX": "0.5"},
        {"TROUPE_ROUNDS_MAX": "1.9"},
        {"TROUPE_TOKENS_MAX": "1000.5"},
        {"TROUPE_ANSWER_TOKENS_MAX": "1.5"},
        {"TROUPE_TOKENS_MAX": "9" * 5_000},
    ):
        with pytest.raises(SettingsError, match=next(iter(wrong))):
            DepartmentSettings.from_env(wrong)
    assert DepartmentSettings.from_env({"TROUPE_TOKENS_MAX": "1e6"}).tokens_max == 1_000_000


def test_only_allowed_places_are_repositories(tmp_path):
    """Else an issue reads the server's disk, or calls a host inside the network."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "out").symlink_to(tmp_path)
    allowed = settings(repository_roots=(root,))
    for place in (f"{root}/shop", f"file://{root}/shop", "https://github.com/a/b",
                  "ssh://git@github.com/a/b", "git@github.com:a/b.git"):  # fmt: skip
        assert allowed.allows_repository(place), place
    for place in (f"{tmp_path}/shop", f"{root}/../shop", f"{root}/out/shop", "/", "shop",
                  "http://github.com/a/b", "https://169.254.169.254/a", "ext::sh -c id",
                  "https://github.com.example.org/a", "https://github.com@example.org/a",
                  "example.org:a/b", "https://[::1]/a", "https://["):  # fmt: skip
        assert not allowed.allows_repository(place), place
    assert not settings().allows_repository(str(root)), "without a root, no path is"


# The sample


async def test_the_sample_is_known_by_its_content_whatever_its_branch(tmp_path):
    """Else the script works on another repository, or not on the sample."""
    place = sample_repository(tmp_path / "sample")
    git(place, "branch", "--move", "trunk")
    tree = git(place, "rev-parse", "HEAD^{tree}")
    assert await is_sample(SAMPLE_DEFAULT, tree)
    (place / "briefs" / "export.py").write_text("# mine\n")
    git(place, "commit", "--all", "--message=Mine")
    assert not await is_sample(SAMPLE_DEFAULT, git(place, "rev-parse", "HEAD^{tree}"))
    assert await sample_tree(tmp_path / "absent", "sha1") is None


def test_the_samples_issue_is_known_by_its_words():
    """Else the script answers for issues that it does not know."""
    shipped = IssueSubmission.model_validate_json((SAMPLE_DEFAULT.parent / ISSUE_NAME).read_text())
    record = AgentIssue.of(shipped, "issue_1", "acme", AT)
    assert is_sample_issue(SAMPLE_DEFAULT, record)
    assert not is_sample_issue(SAMPLE_DEFAULT, record.model_copy(update={"title": "Another"}))


def test_the_script_fits_the_sample(tmp_path):
    """Else the demo stops at an edit that finds no text, or at an issue without a scene."""
    script = Script.load(SCRIPTS / "sample.json")
    shipped = json.loads((SAMPLE_DEFAULT.parent / ISSUE_NAME).read_text())
    files = shutil.copytree(SAMPLE_DEFAULT, tmp_path / "files")
    for scene in script.scenes:
        assert shipped["title"] in scene.match.user
        turns = [turn for turn in scene.turns if not isinstance(turn, tuple)]
        for call in (call for turn in turns for call in turn.tools if call.name == "edit"):
            assert (files / call.input["path"]).read_text().count(call.input["old_string"]) == 1


def test_a_script_is_no_configured_model_of_a_users_own():
    """Else `scripted` is taken for a model anywhere."""
    assert ModelSettings.from_env({"TROUPE_SCRIPTED_URL": "http://127.0.0.1:1"}).provider == (
        "scripted"
    )
