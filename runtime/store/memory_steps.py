"""Steps of jobs in memory: job -> key -> (the agent that began it, the step)."""

from __future__ import annotations

from msgspec.structs import replace

from runtime.store.contract import Intent, Result, Step
from runtime.store.roster import Agent


class MemorySteps:
    def __init__(self) -> None:
        self._jobs: dict[str, dict[str, tuple[str, Step]]] = {}

    def facts(self, job: str, key: str) -> tuple[str, int, bool] | None:
        """See `rules.View.step`."""
        found = self._jobs.get(job, {}).get(key)
        return found and (found[0], found[1].epoch, found[1].result is not None)

    def of_job(self, job: str) -> list[Step]:
        return [step for _, step in self._jobs.get(job, {}).values()]

    def begin(self, agent: Agent, intent: Intent, now_ms: int) -> None:
        steps = self._jobs.setdefault(intent.job, {})
        if intent.key in steps:
            step = steps[intent.key][1]
            step = replace(step, epoch=agent.epoch, attempts=step.attempts + 1, at_ms=now_ms)
        else:
            step = Step(intent.key, intent.kind, intent.body, agent.epoch, 1, None, now_ms)
        steps[intent.key] = (agent.address, step)

    def end(self, result: Result, now_ms: int) -> None:
        address, step = self._jobs[result.job][result.key]
        step = replace(step, result=result.body, at_ms=now_ms)
        self._jobs[result.job][result.key] = (address, step)

    def of_jobs(self, jobs: list[str]) -> list[tuple[str, str]]:
        """(job, key) of all steps of these jobs."""
        return [(job, key) for job in jobs for key in self._jobs.get(job, ())]

    def of_agents(self, prefix: str) -> list[tuple[str, str]]:
        """(job, key) of all steps that agents began whose address begins so."""
        return [
            (job, key)
            for job, steps in self._jobs.items()
            for key, (agent, _) in steps.items()
            if agent.startswith(prefix)
        ]

    def drop(self, job: str, key: str) -> None:
        del self._jobs[job][key]
