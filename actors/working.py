"""What code, research and review agents have in common: from an assignment to a conversation.

    start   the repository, its base commit and policy, recorded once for the job's life
    task    model, words and tools of the conversation, recorded too: a new release
            goes on with the words that the job began with
    rounds  see `rounds`

The workspace is removed at every way out, waiting included: the journal makes
it again.
"""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal

from actors.assignment import Assignment
from actors.bench import Bench, Delta
from actors.budget import Account, Budget
from actors.conversation import WORDS, Conversation
from actors.endings import OUTCOMES, Ending
from actors.errors import RepositoryUnknownError, SetupFailedError
from actors.gates.trees import list_tree, read_policy
from actors.mirror import RepositorySource
from actors.modelcall import ModelCalls
from actors.people import People
from actors.policy import RepositoryPolicy
from actors.progress import Progress
from actors.prompts import render, words
from actors.records import AgentIssue
from actors.rounds import OwnTool, Rounds
from actors.services import HopelessError, Services
from actors.setup.step import Setup
from actors.tools.text import shortened, visible
from actors.toolset import Toolset
from actors.untrusted import data_block, nonce
from actors.words import THINKING
from runtime.agent import BaseAgent
from runtime.ids import AgentId
from runtime.job import Job, JobResult, StepContext

ASSUMPTIONS_MAX: Final = 20
"""Guesses about the repository that the agent is told of."""


@dataclass(frozen=True)
class Started:
    """Where a job starts from; the same for all of its life."""

    commit: str
    tree: str
    files: int
    policy: RepositoryPolicy


@dataclass
class Attempt:
    """One try at one job."""

    job: Job
    assignment: Assignment
    bench: Bench
    started: Started
    people: People
    progress: Progress
    made: tuple[str, ...] = ()
    """What the setup command made in the tree: no part of any change."""


class WorkingAgent(BaseAgent, ABC):
    """Base of the agents that work in a repository. Subclasses name tools and words."""

    agent: Literal["code", "research", "review"]
    tools: tuple[str, ...]
    read_only: bool = True

    def __init__(self, agent_id: AgentId, services: Services) -> None:
        super().__init__(agent_id)
        self.services = services

    async def process_task(self, job: Job) -> JobResult:
        assignment = Assignment.model_validate(job.record.payload)
        self.services.need_model()
        work = assignment.work
        bench = Bench(
            job,
            self.services.workspaces,
            RepositorySource(assignment.repository),
            assignment.base_ref,
            work.base_commit if work else None,
            keep_discarded=not self.read_only,
        )
        try:
            with self.services.troubles():
                started = await self._start(job, assignment, bench)
                await self.services.need_model_for(started.tree)
                if work is not None:
                    bench.advanced(Delta(work.base_tree, work.final_tree, None, work.delta))
                people, progress = People(job), Progress(job)
                return await self.work(Attempt(job, assignment, bench, started, people, progress))
        finally:
            await bench.close()

    @abstractmethod
    async def work(self, attempt: Attempt) -> JobResult:
        """Do the job, from its first step to its result."""

    async def _start(self, job: Job, assignment: Assignment, bench: Bench) -> Started:
        async def look(context: StepContext) -> dict[str, Any]:
            await self._check_repository(assignment.repository)
            try:
                workspace = await bench.open()
            except RepositoryUnknownError as error:
                if assignment.repository.startswith(("/", "file:")):
                    raise HopelessError(str(error)) from error
                raise  # a remote one may answer the next time
            policy = await read_policy(workspace.git, workspace.base_tree)
            return {
                "commit": workspace.base_commit,
                "tree": workspace.base_tree,
                "files": len(await list_tree(workspace.git, workspace.base_tree)),
                "policy": policy.to_wire(),
            }

        request = {"repository": assignment.repository, "baseRef": assignment.base_ref}
        said = await job.step("start", look, request=request)
        bench.established(said["commit"], said["tree"])
        policy = RepositoryPolicy.model_validate_json(json.dumps(said["policy"]))
        return Started(said["commit"], said["tree"], said["files"], policy)

    async def _check_repository(self, repository: str) -> None:
        allowed = await asyncio.to_thread(self.services.settings.allows_repository, repository)
        if not allowed:
            raise HopelessError(f"The operator does not allow this repository: {repository}")

    async def hindered(self, attempt: Attempt) -> JobResult | None:
        """Make everything ready for the conversation; the job's result if that can't be."""
        if not attempt.started.policy.allows(self.agent):
            return JobResult(outcome="not_allowed", summary=OUTCOMES["not_allowed"])
        try:
            await self.set_up(attempt)
        except SetupFailedError as error:
            said = ". ".join(str(part).strip() for part in error.args)
            summary = f"{OUTCOMES['setup_failed']} {said}"
            return JobResult(outcome="setup_failed", summary=summary)
        return None

    async def set_up(self, attempt: Attempt) -> None:
        """Install the repository's dependencies, if its policy says how.

        Raises:
            SetupFailedError: the work can't begin.
        """
        command = attempt.started.policy.commands.setup
        if command is None:
            return
        assignment, services = attempt.assignment, self.services
        ref = assignment.base_ref or assignment.issue.context.base_ref or "HEAD"
        where = [assignment.repository, ref]
        setup = Setup(attempt.job, attempt.bench, services.dependencies, services.sandbox, where)
        attempt.made = await setup.made(command)

    # The conversation

    async def converse(
        self,
        attempt: Attempt,
        fields: Mapping[str, str],
        own: Mapping[str, OwnTool],
    ) -> Ending:
        """Talk with the model until there is an end.

        Args:
            fields: of the prompt `<agent>_task`.
            own: the control tools, see Rounds.
        """
        toolset = self.toolset(attempt, self.tools, self.read_only)
        begun = await attempt.job.step("task", partial(self._begin, attempt, toolset, fields))
        conversation = Conversation(purpose=self.agent, **begun)
        config, services = attempt.job.record.config, self.services
        account = Account(Budget.of(config, attempt.started.policy.budgets))
        calls = ModelCalls(
            attempt.job,
            services.model,
            services.clock,
            account,
            attempt.people,
            self.model_name(attempt.started.policy),
            partial(attempt.progress.say, THINKING),
            services.monotonic,
        )
        rounds = Rounds(
            attempt.job,
            calls,
            conversation,
            account,
            attempt.bench,
            toolset,
            own,
            config.max_tokens,
            partial(self.change, attempt),
            attempt.progress,
            services.monotonic,
        )
        try:
            return await rounds.run()
        finally:
            await toolset.close()

    def toolset(self, attempt: Attempt, names: tuple[str, ...], read_only: bool) -> Toolset:
        commands = attempt.started.policy.commands
        return Toolset(self.services.sandbox, attempt.job, commands, names, read_only)

    async def _begin(
        self, attempt: Attempt, toolset: Toolset, fields: Mapping[str, str], context: StepContext
    ) -> dict[str, Any]:
        """The words of the conversation, as they will be to its end."""
        marker = nonce(attempt.job.record.id)
        task = render(
            f"{self.agent}_task",
            untrusted=render("untrusted", nonce=marker),
            issue=data_block("issue", issue_text(attempt.assignment.issue), marker),
            **fields,
        )
        return {
            "model": self.model_name(attempt.started.policy),
            "system": render(f"{self.agent}_system"),
            "tools": toolset.definitions(),
            "task": task,
            "words": {name: words(name) for name in WORDS},
        }

    def model_name(self, policy: RepositoryPolicy) -> str:
        """The script serves under its own name; else the repository may choose."""
        settings = self.services.model.settings
        chosen = policy.agents.get(self.agent)
        if settings.provider == "scripted" or chosen is None or chosen.model is None:
            return settings.model
        return chosen.model

    async def change(
        self,
        attempt: Attempt,
        key: str,
        doing: str = "Looking at the change",
        around: str | None = None,
    ) -> str:
        """The present change, as it is shown to the model; empty if there is none.

        Args:
            doing: what people are told meanwhile.
            around: a prompt to put it into, as its field `change`.
        """

        async def look(context: StepContext) -> str:
            await attempt.progress.say(doing)
            workspace = await attempt.bench.ready()
            assert attempt.bench.tree is not None
            diff = visible(await workspace.diff(attempt.started.tree, attempt.bench.tree))
            text, whole = shortened(diff)
            if whole is not None:
                await attempt.job.artifact("code_change", f"{key}.diff", whole, "text/x-diff")
            return text if around is None else render(around, change=text)

        return str(await attempt.job.step(key, look, request={"tree": attempt.bench.tree}))

    def facts(self, attempt: Attempt) -> str:
        """What is known of the repository, a line each."""
        started = attempt.started
        test = started.policy.commands.test
        lines = [
            f"- {started.files} files, commit {started.commit[:12]}",
            f"- tests are run with `{test}`" if test else "- there is no test command",
            *(f"- checks: `{check}`" for check in _checks(started.policy)),
            *(f"- {assumed}" for assumed in started.policy.assumptions[:ASSUMPTIONS_MAX]),
        ]
        if attempt.made:
            names = ", ".join(f"`{name}`" for name in attempt.made[:ASSUMPTIONS_MAX])
            lines.append(f"- made by the setup command and no part of your change: {names}")
        protected = ", ".join(started.policy.protected_paths)
        if protected:
            lines.append(f"- not to be changed: {protected}")
        return "\n".join(visible(line) for line in lines)


def _checks(policy: RepositoryPolicy) -> list[str]:
    return [command for command in (policy.commands.lint, policy.commands.types) if command]


def issue_text(issue: AgentIssue) -> str:
    """An issue as a model reads it."""
    context = issue.context
    lines = [f"Title: {issue.title}", f"Type: {issue.type}", f"Priority: {issue.priority}"]
    if context.module:
        lines.append(f"Module: {context.module}")
    if context.affected_files:
        lines.append(f"Files named: {', '.join(context.affected_files)}")
    if context.metadata:
        lines.append(f"Metadata: {json.dumps(context.metadata, ensure_ascii=False)}")
    return "\n".join([*lines, "", issue.description])
