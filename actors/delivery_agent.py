"""The DeliveryAgent: carries approved work to its owner, in one step that can be repeated.

It never meets a model and takes nothing from one but the fields of the approved
work.  The step looks for an earlier delivery first, so a delivery that was cut
off is finished, not done twice.  What may be delivered is `delivery`'s business:
exactly what was approved.
"""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

from actors.assignment import Assignment, Work
from actors.bench import Bench, Delta
from actors.delivery import Delivered, DeliveryError, DeliveryOrder, deliver, find
from actors.mirror import RepositorySource
from actors.records import Review
from actors.services import HopelessError, Services
from runtime.agent import BaseAgent
from runtime.ids import AgentId
from runtime.job import Job, JobResult, StepContext


class DeliveryAgent(BaseAgent):
    """One for each job: `delivery:<job id>`."""

    kind = "delivery"
    role = "delivery"
    capabilities = ("deliver",)

    def __init__(self, agent_id: AgentId, services: Services) -> None:
        super().__init__(agent_id)
        self.services = services

    async def process_task(self, job: Job) -> JobResult:
        assignment = Assignment.model_validate(job.record.payload)
        work, review = assignment.work, assignment.review
        assert work is not None, "a delivery is asked for with the work"
        assert review is not None, "a delivery is asked for with its review"
        deliver_once = partial(self._deliver, job, assignment, work, review)
        request = {"artifactHash": review.artifact_hash, "review": review.id}
        said = await job.step("deliver", deliver_once, kind="external", request=request)
        delivered = Delivered.model_validate(said)
        where = f"on branch {delivered.branch}" if delivered.branch else "as a patch"
        return JobResult(outcome="delivered", summary=f"Delivered {where}.", data=said)

    async def _deliver(
        self, job: Job, assignment: Assignment, work: Work, review: Review, context: StepContext
    ) -> dict[str, Any]:
        await job.progress(20, "Delivering", "Delivering")
        settings = self.services.settings
        if not await asyncio.to_thread(settings.allows_repository, work.repository):
            raise HopelessError(f"The operator does not allow this repository: {work.repository}")
        source = RepositorySource(work.repository)
        bench = Bench(job, self.services.workspaces, source, None, work.base_commit)
        bench.established(work.base_commit, work.base_tree)
        bench.advanced(Delta(work.base_tree, work.final_tree, None, work.delta))
        try:
            with self.services.troubles():
                order = await self._order(job, assignment, work, review, bench)
                delivered = await find(order) or await deliver(order)
        except DeliveryError as error:
            raise HopelessError(str(error)) from error
        finally:
            await bench.close()
        return delivered.to_wire()

    async def _order(
        self, job: Job, assignment: Assignment, work: Work, review: Review, bench: Bench
    ) -> DeliveryOrder:
        patch = await job.read_artifact(review.artifact_hash)
        if patch is None:
            raise HopelessError(f"The approved patch is gone: {review.artifact_hash}")
        workspace = await bench.ready()
        source = RepositorySource(work.repository)
        local = Path(source.location) if source.transport == "file" else None
        return DeliveryOrder(
            issue=assignment.issue,
            review=review,
            patch=patch,
            base_commit=work.base_commit,
            tree=work.final_tree,
            git=workspace.git,
            directory=self.services.settings.data_dir / "deliveries",
            repository=local,
            model=work.model,
        )
