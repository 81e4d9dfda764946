"""The ReviewAgent: deterministic gates first, then a second opinion that never met the author.

A change that a gate fails reaches no model and no person: it goes back, or ends
`refused_by_gate`.  The model sees the issue, the patch and the proposed tree,
read-only; its verdict is an opinion, and where it has none (a budget is spent,
it refuses) a person decides.  What follows from a verdict is the IssueAgent's
business.
"""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import Any, Final

from actors.assignment import ReviewOpinion, Work
from actors.endings import Ending
from actors.gates import run_gates
from actors.gates.trees import make_candidate
from actors.records import AutomatedReview, GateFinding, GateReport
from actors.services import HopelessError
from actors.tools import ToolOutput
from actors.tools.text import shortened, visible
from actors.trials import Trial, Trials
from actors.untrusted import data_block, nonce
from actors.working import Attempt, WorkingAgent
from runtime.job import JobResult, StepContext

_VERDICTS: Final = {
    "approve": "The reviewer would merge it.",
    "request_changes": "The reviewer asks for changes.",
    "escalate": "The reviewer wants a person to decide.",
}


class ReviewAgent(WorkingAgent):
    """One for each job: `review:<job id>`."""

    kind = "review"
    role = "reviewer"
    capabilities = ("review_code",)
    agent = "review"
    tools = (
        "read",
        "glob",
        "grep",
        "bash",
        "git_diff",
        "git_log",
        "git_blame",
        "artifact_read",
        "review",
    )

    async def work(self, attempt: Attempt) -> JobResult:
        proposed = attempt.assignment.work
        assert proposed is not None, "a review is asked for with the work"
        await self.set_up(attempt)
        commands = attempt.started.policy.commands
        tools = partial(self.toolset, attempt, read_only=False)
        trials = Trials(attempt.job, attempt.bench, commands, tools)
        before = await trials.of("base", proposed.base_tree)
        after = await trials.of("final", proposed.final_tree)
        said = await attempt.job.step(
            "gates", partial(self._gates, attempt, proposed, before, after)
        )
        gates = GateReport.model_validate(said)
        if gates.verdict == "failed":
            opinion = ReviewOpinion(gates=gates)
            return _result("refused_by_gate", _refusal(gates), opinion)
        if not attempt.started.policy.allows(self.agent):
            return _result("reviewed", "The gates found nothing.", ReviewOpinion(gates=gates))
        ending = await self.converse(
            attempt, await self._fields(attempt, gates), {"review": _review}
        )
        automated = self._opinion(attempt, ending)
        opinion = ReviewOpinion(gates=gates, automated=automated)
        return _result("reviewed", automated.summary, opinion)

    # Gates

    async def _gates(
        self,
        attempt: Attempt,
        proposed: Work,
        before: Trial,
        after: Trial,
        context: StepContext,
    ) -> dict[str, Any]:
        await attempt.job.progress(20, "Checking the gates", "Checking the gates")
        workspace = await attempt.bench.ready()
        patch = await self._patch(attempt, proposed)
        changes = await workspace.changes(proposed.base_tree, proposed.final_tree)
        candidate = await make_candidate(
            workspace.git,
            proposed.base_tree,
            proposed.final_tree,
            changes,
            patch,
            attempt.started.policy,
            before.tests,
            after.tests,
            before.checks,
            after.checks,
        )
        report = await asyncio.to_thread(run_gates, candidate)
        return report.to_wire()

    async def _patch(self, attempt: Attempt, proposed: Work) -> bytes:
        """The patch as it will be approved, if it is what the trees say."""
        patch = await attempt.job.read_artifact(proposed.artifact_hash)
        workspace = await attempt.bench.ready()
        made = await workspace.diff(proposed.base_tree, proposed.final_tree)
        if patch is None or made != patch:
            raise HopelessError(f"The patch {proposed.artifact_hash} is not what the trees say.")
        return patch

    # The second opinion

    async def _fields(self, attempt: Attempt, gates: GateReport) -> dict[str, str]:
        proposed = attempt.assignment.work
        assert proposed is not None
        marker = nonce(attempt.job.record.id)
        change = await self.change(attempt, "patch")
        findings = json.dumps(gates.to_wire(), ensure_ascii=False, indent=1)
        return {
            "summary": data_block("summary", proposed.summary, marker),
            "gates": data_block("gates", shortened(visible(findings))[0], marker),
            "patch": data_block("patch", change, marker),
        }

    def _opinion(self, attempt: Attempt, ending: Ending) -> AutomatedReview:
        model = self.model_name(attempt.started.policy)
        if ending.outcome != "reviewed":
            summary = f"No opinion: {ending.summary}"
            return AutomatedReview(verdict="escalate", summary=visible(summary), model=model)
        said = ending.data
        return AutomatedReview(
            verdict=said["verdict"],
            summary=_VERDICTS[said["verdict"]],
            blocking=tuple(
                GateFinding(path=visible(one["path"]), line=one["line"], why=visible(one["why"]))
                for one in said["blocking"]
            ),
            test_gaps=tuple(visible(gap) for gap in said["test_gaps"]),
            model=model,
        )


async def _review(key: str, said: dict[str, Any]) -> ToolOutput:
    raise Ending("reviewed", data=said)


def _refusal(gates: GateReport) -> str:
    failed = [f"{one.gate}: {one.message}" for one in gates.results if one.verdict == "failed"]
    return visible("; ".join(failed))


def _result(outcome: str, summary: str, opinion: ReviewOpinion) -> JobResult:
    return JobResult(outcome=outcome, summary=summary, data=opinion.to_wire())
