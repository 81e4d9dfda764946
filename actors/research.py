"""The ResearchAgent: finds out what an issue is about, and reports. It changes nothing."""

from __future__ import annotations

from functools import partial
from typing import Any

from actors.endings import Ending
from actors.tools import ToolOutput
from actors.tools.text import visible
from actors.working import Attempt, WorkingAgent
from runtime.job import Artifact, JobResult, StepContext


class ResearchAgent(WorkingAgent):
    """One for each job: `research:<job id>`."""

    kind = "research"
    role = "research"
    capabilities = ("investigate", "root_cause")
    agent = "research"
    tools = (
        "read",
        "glob",
        "grep",
        "bash",
        "git_log",
        "git_blame",
        "artifact_read",
        "report",
    )

    async def work(self, attempt: Attempt) -> JobResult:
        if (hindered := await self.hindered(attempt)) is not None:
            return hindered
        ending = await self.converse(attempt, {"facts": self.facts(attempt)}, {"report": _report})
        if ending.outcome != "reported":
            return JobResult(outcome=ending.outcome, summary=ending.summary)
        text = report_text(attempt.assignment.issue.title, ending.data)
        kept = await attempt.job.step("result", partial(_keep, attempt, text))
        return JobResult(
            outcome="reported",
            summary=visible(ending.data["root_cause"]),
            artifacts=(Artifact.from_wire(kept),),
            recommendations=tuple(visible(option) for option in ending.data["options"]),
            data={"confidence": ending.data["confidence"]},
        )


async def _report(key: str, said: dict[str, Any]) -> ToolOutput:
    raise Ending("reported", data=said)


async def _keep(attempt: Attempt, text: str, context: StepContext) -> dict[str, Any]:
    artifact = await attempt.job.artifact(
        "analysis", f"{attempt.assignment.issue.id}.md", text.encode(), "text/markdown"
    )
    return artifact.to_wire()


def report_text(title: str, said: dict[str, Any]) -> str:
    """The report as Markdown."""
    evidence = [f"- `{place['path']}:{place['line']}`" for place in said["evidence"]]
    options = [f"{number}. {option}" for number, option in enumerate(said["options"], 1)]
    parts = [
        f"# {title}",
        said["root_cause"],
        "## Evidence",
        "\n".join(evidence) or "none",
        "## Options",
        "\n".join(options) or "none",
        f"Confidence: {said['confidence']}",
    ]
    return visible("\n\n".join(parts)) + "\n"
