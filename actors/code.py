"""The CodeAgent: changes a repository so that an issue is solved, and proposes the change.

It owns the whole of its change and none of the delivery: its result names the
patch (computed from trees, never by the model), the hash that a person will
approve, and what any node needs to make the final tree again.  Work that ends
early is kept the same way, so nothing done is lost.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from actors.assignment import Note, Work
from actors.endings import OUTCOMES, Ending
from actors.prompts import render
from actors.rounds import OwnTool
from actors.tools import ToolOutput
from actors.tools.text import visible
from actors.untrusted import data_block, nonce
from actors.words import step_words
from actors.working import Attempt, WorkingAgent
from runtime.job import Artifact, JobResult, StepContext

PATCH_TYPE: Final = "text/x-diff"


class CodeAgent(WorkingAgent):
    """One for each job: `code:<job id>`."""

    kind = "code"
    role = "code"
    capabilities = ("fix_bug", "implement_feature", "write_tests")
    agent = "code"
    read_only = False
    tools = (
        "read",
        "edit",
        "write",
        "glob",
        "grep",
        "bash",
        "run_tests",
        "git_diff",
        "git_log",
        "git_blame",
        "artifact_read",
        "ask_human",
        "finish",
    )

    async def work(self, attempt: Attempt) -> JobResult:
        if (hindered := await self.hindered(attempt)) is not None:
            return hindered
        reviewing = _SelfReview(self, attempt)
        fields = {"facts": self.facts(attempt), "notes": _notes(attempt)}
        own: dict[str, OwnTool] = {
            "finish": reviewing.finish,
            "ask_human": partial(_ask_human, attempt),
        }
        ending = await self.converse(attempt, fields, own)
        return await self._result(attempt, ending)

    async def _result(self, attempt: Attempt, ending: Ending) -> JobResult:
        said = ending.data or {}
        summary = str(said.get("summary") or ending.summary)
        if attempt.bench.tree == attempt.started.tree:
            outcome = "no_change" if ending.outcome == "finished" else ending.outcome
            if not said.get("summary"):
                summary = OUTCOMES[outcome] if outcome == "no_change" else summary
            return JobResult(outcome=outcome, summary=visible(summary))
        kept = await attempt.job.step(
            "result", partial(_keep, attempt), request={"tree": attempt.bench.tree}
        )
        proposed = Work(
            job_id=attempt.job.record.id,
            repository=attempt.assignment.repository,
            base_commit=attempt.started.commit,
            base_tree=attempt.started.tree,
            final_tree=kept["tree"],
            artifact_hash=kept["patch"]["sha256"],
            patch_bytes=kept["patch"]["sizeBytes"],
            delta=kept["delta"],
            summary=visible(summary),
            confidence=said.get("confidence"),
            tests_run=tuple(visible(test) for test in said.get("tests_run", ())),
            residual_risk=visible(said.get("residual_risk", "")) or None,
            model=self.model_name(attempt.started.policy),
        )
        return JobResult(
            outcome=ending.outcome,
            summary=visible(summary),
            artifacts=(Artifact.from_wire(kept["patch"]),),
            data={"work": proposed.to_wire()},
        )


class _SelfReview:
    """`finish`: first the agent is shown its own change, the second time it is believed."""

    def __init__(self, agent: CodeAgent, attempt: Attempt) -> None:
        self._agent = agent
        self._attempt = attempt
        self._shown_in: str | None = None
        """The round whose `finish` showed the change."""

    async def finish(self, key: str, said: dict[str, Any]) -> ToolOutput:
        attempt = self._attempt
        if attempt.bench.tree == attempt.started.tree:
            raise Ending("finished", data=said)
        this_round = key.partition("/")[0]
        if self._shown_in not in (None, this_round):
            raise Ending("finished", data=said)
        self._shown_in = this_round
        doing = step_words("finish", said)
        return ToolOutput(await self._agent.change(attempt, key, doing, "self_review"))


async def _ask_human(attempt: Attempt, key: str, said: dict[str, Any]) -> ToolOutput:
    options = [f"- {option}" for option in said.get("options", ())]
    answer = await attempt.people.answer(key, "\n".join([said["question"], *options]))
    return ToolOutput(answer)


async def _keep(attempt: Attempt, context: StepContext) -> dict[str, Any]:
    """The patch and the delta of the whole change, kept under their hashes."""
    await attempt.job.progress(95, "Wrapping up")
    workspace = await attempt.bench.ready()
    base, final = attempt.started.tree, workspace.current_tree
    assert final is not None
    patch = await workspace.diff(base, final)
    name = f"{attempt.assignment.issue.id}.patch"
    artifact = await attempt.job.artifact("code_change", name, patch, PATCH_TYPE)
    delta = await workspace.delta(base, final)
    stored = await attempt.job.artifact(
        "code_change",
        f"{attempt.assignment.issue.id}.pack",
        delta,
        "application/x-git-packed-objects",
    )
    return {"tree": final, "patch": artifact.to_wire(), "delta": stored.sha256}


def _notes(attempt: Attempt) -> str:
    notes = attempt.assignment.notes
    if not notes:
        return ""
    marker = nonce(attempt.job.record.id)
    blocks = [data_block(_from(note), note.text, marker) for note in notes]
    return render("code_notes", notes="\n\n".join(blocks))


def _from(note: Note) -> str:
    return {"gate": "gate", "reviewer": "reviewer", "person": "the person in charge"}[note.source]
