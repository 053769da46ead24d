"""What can be asked of workflows, and done to them as a whole."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import TYPE_CHECKING

from ._bulk import Change, changing
from ._config import Duration
from ._context import check_outside_block
from ._errors import InvalidValue, JobNotFound
from ._filters import checked_id, checked_number, checked_states
from ._graph import WorkflowRun
from ._job import JobStatus
from ._options import checked_attempts
from ._query import Action, Delete, Rerun
from ._results import wait_for

if TYPE_CHECKING:
    from ._client import Client

__all__ = ["Workflows"]


class Workflows:
    """The workflows of a client's database: `client.workflows`.

    Actions take ids of workflows, and return to how many it was done; those that are unknown, or in a state
    for which the action is not, are passed over. Each workflow is changed in a transaction of its own.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    async def get(self, workflow_id: str) -> WorkflowRun | None:
        """Return a workflow with its steps; None if there is none, or none any more."""
        client = self._client
        checked = checked_id("workflow", workflow_id, "workflow")
        return await client.open_store().workflow(checked, now=client.clock.now())

    async def list(
        self,
        *,
        state: JobStatus | str | Collection[JobStatus | str] | None = None,
        limit: int = 50,
        before: str | None = None,
    ) -> Sequence[WorkflowRun]:
        """Return workflows without their steps, the last one that was made first.

        `state`: a `JobStatus`, its text, or several of them. At most `limit`, up to 1,000; `before`: the id
        of the last one of another page, which this page goes on from.
        """
        states = None if state is None else checked_states(state)
        most = checked_number("limit", limit)
        behind = None if before is None else checked_id("before", before, "workflow")
        return await self._client.open_store().workflows(
            states=states, limit=most, before=behind, now=self._client.clock.now()
        )

    async def wait(self, workflow_id: str, timeout: Duration | None = None) -> WorkflowRun:
        """Return a workflow as soon as it has ended; see `Client.wait`."""
        found = await wait_for(self._client, workflow_id, timeout)
        if not isinstance(found, WorkflowRun):
            raise JobNotFound(workflow_id, "this is a job, and no workflow")
        return found

    async def cancel(self, *workflow_ids: str) -> int:
        """Cancel all steps that have not ended, as `client.cancel` does; return how many workflows had such.

        A workflow whose steps had all ended stays what it is, though its callbacks are cancelled.
        """

        async def cancel(workflow_id: str) -> bool:
            return await self._client.cancel(workflow_id) > 0

        return await self._each("cancel", workflow_ids, cancel)

    async def delete(self, *workflow_ids: str) -> int:
        """Remove workflows with all their jobs, and all that is kept of them; if none of its jobs runs."""

        async def delete(workflow_id: str) -> bool:
            return await self._act(Delete(), workflow_id)

        return await self._each("delete", workflow_ids, delete)

    async def retry(self, *workflow_ids: str, attempts: int = 1) -> int:
        """Run the failed and cancelled steps of workflows again, now, as `client.jobs.retry` does.

        What was cancelled because it comes after them waits for them again; the workflow is running again,
        and ends another time. So its callbacks are added another time, too.
        """
        action = Rerun(attempts=checked_attempts(attempts))

        async def retry(workflow_id: str) -> bool:
            return await self._act(action, workflow_id)

        return await self._each("retry", workflow_ids, retry)

    async def _act(self, action: Action, workflow_id: str) -> bool:
        client = self._client
        await client.declare_queues()  # which says how cancelled jobs are kept
        done = await client.open_store().act(action, [workflow_id], now=client.clock.now())
        client.rung()
        return bool(done)

    async def _each(
        self, name: str, workflow_ids: Sequence[str], do: Callable[[str], Awaitable[bool]]
    ) -> int:
        """Do something to workflows, one after the other; ids of jobs are none of theirs."""
        ids = [checked_id(name, workflow_id, "workflow") for workflow_id in workflow_ids]
        if not ids:
            raise InvalidValue(f"workflows.{name}() was given no id")
        check_outside_block(self._client)
        with changing(f"{name} workflow") as change:
            for workflow_id in dict.fromkeys(ids):
                await self._do(workflow_id, do, change)
        return change.count

    async def _do(self, workflow_id: str, do: Callable[[str], Awaitable[bool]], change: Change) -> None:
        if await self.get(workflow_id) is not None and await do(workflow_id):
            change.done([workflow_id])
