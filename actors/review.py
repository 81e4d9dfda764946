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
import re
from functools import partial
from typing import Any, Final

from actors.assignment import ReviewOpinion, Work
from actors.endings import Ending
from actors.gates import SuiteVerdict, run_gates
from actors.gates.trees import make_candidate
from actors.records import AutomatedReview, GateFinding, GateReport
from actors.services import HopelessError
from actors.tools import ToolOutput
from actors.tools.text import shortened, visible
from actors.untrusted import data_block, nonce
from actors.working import Attempt, WorkingAgent
from actors.workspace import Workspace
from runtime.job import JobResult, StepContext

KILLED: Final = 137
"""Exit code of a test run that did not come to its end."""
_TESTING: Final = {
    "base": (5, "Running the tests without the change"),
    "final": (10, "Running the tests with the change"),
}
_VERDICTS: Final = {
    "approve": "The reviewer would merge it.",
    "request_changes": "The reviewer asks for changes.",
    "escalate": "The reviewer wants a person to decide.",
}
_COUNTS = re.compile(r"(\d+) passed, (\d+) failed, (\d+) errors")


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
        before = await self._tests(attempt, "base", proposed.base_tree)
        after = await self._tests(attempt, "final", proposed.final_tree)
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

    async def _tests(self, attempt: Attempt, name: str, tree: str) -> SuiteVerdict | None:
        if attempt.started.policy.commands.test is None:
            return None
        said = await attempt.job.step(
            f"tests-{name}",
            partial(self._run_tests, attempt, name, tree),
            kind="workspace",
            request={"tree": tree},
        )
        return SuiteVerdict(said["exitCode"], said["passed"], said["failed"])

    async def _run_tests(
        self, attempt: Attempt, name: str, tree: str, context: StepContext
    ) -> dict[str, Any]:
        """Run the policy's test command on a tree; whatever it leaves behind is put back."""
        percent, words = _TESTING[name]
        await attempt.job.progress(percent, words, words)
        workspace = await attempt.bench.ready()
        try:
            await workspace.restore(tree)
            return await self._judge_tests(attempt, workspace)
        finally:
            await attempt.bench.put_back()

    async def _judge_tests(self, attempt: Attempt, workspace: Workspace) -> dict[str, Any]:
        tests = self.toolset(attempt, ("run_tests",), read_only=False)
        try:
            output = await tests.run("run_tests", {}, workspace)
        finally:
            await tests.close()
        exit_code = output.data.get("exitCode")
        counts = _COUNTS.search(str(output.data.get("summary", "")))
        passed, failed, errors = map(int, counts.groups()) if counts else (None, None, 0)
        return {
            "exitCode": None if exit_code == KILLED else exit_code,
            "passed": passed,
            "failed": None if failed is None else failed + errors,
            "output": output.text,
        }

    async def _gates(
        self,
        attempt: Attempt,
        proposed: Work,
        before: SuiteVerdict | None,
        after: SuiteVerdict | None,
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
            before,
            after,
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
