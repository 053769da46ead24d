"""What has become of a job: waited for, and the result that it has left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import msgspec

from ._clock import seconds
from ._config import Duration
from ._context import running_job
from ._errors import InvalidState, InvalidType, JobNotFound, PayloadError, ResultNotFound
from ._graph import WorkflowRun
from ._job import Job, JobStatus
from ._waits import DONE

if TYPE_CHECKING:
    from ._client import Client

__all__ = ["result_of", "wait_for"]

GONE = (
    "there is no such job or workflow, or it has ended and nothing is kept of it: too late to wait for it;"
    " give its queue a retention"
)


async def wait_for(client: Client, job_id: str, timeout: Duration | None) -> Job | WorkflowRun:
    """Return a job or workflow once it has ended; see `Client.wait`."""
    limit = None if timeout is None else seconds("timeout", timeout)
    store = client.open_store()
    _check(job_id)
    begun = anyio.current_time()
    with client.waits.waiting(job_id) as watch:  # before anybody looks: it may end at any moment
        job = await store.get(job_id, now=client.clock.now())
        status = await store.status(job_id, now=client.clock.now()) if job is None else job.status
        if status in DONE:
            found = job or await store.workflow(job_id, now=client.clock.now())
            if found is not None:
                return found
        if status is JobStatus.NOT_FOUND or status in DONE:
            raise JobNotFound(job_id, GONE)
        _check_outside(job_id)
        rest = None if limit is None else limit - (anyio.current_time() - begun)
        with anyio.move_on_after(rest):
            return await client.waits.end_of(job_id, watch)
    what = "workflow" if job is None else "job"
    raise TimeoutError(f"{what} {job_id} has not ended within {limit:g} s; it goes on")


def _check(job_id: object) -> None:
    """Refuse to wait where that can have no end."""
    if not isinstance(job_id, str):
        raise InvalidType(f"wait() takes the id of a job or workflow, which is a str, not {job_id!r}")
    inside = running_job.get(None)
    if inside is not None and inside.id == job_id:
        raise InvalidState(f"job {job_id}: a handler that waits for its own job waits for ever")
    if inside is not None and inside.open_block is not None:
        raise InvalidState(
            "inside job.transaction() nothing can be waited for: it keeps all others from writing"
        )


def _check_outside(workflow_id: str) -> None:
    """Refuse to let a step wait for what cannot end before it."""
    inside = running_job.get(None)
    if inside is not None and inside.workflow == workflow_id:
        raise InvalidState(
            f"job {inside.id}: a step that waits for its own workflow {workflow_id} waits for ever"
        )


async def result_of(client: Client, job_id: str, kind: Any) -> Any:
    """Return what the handler of a job returned; see `Client.result`."""
    job = await client.open_store().get(job_id, now=client.clock.now())
    if job is None:
        if await client.open_store().workflow(job_id, now=client.clock.now()) is not None:
            raise ResultNotFound(
                job_id, "it is a workflow, and its steps have results: client.result(step.id)"
            )
        raise JobNotFound(job_id, "there is no such job, or it has ended and nothing is kept of it")
    if job.status not in DONE:
        raise ResultNotFound(job_id, f"it is {job.status}; await client.wait(id) first")
    if job.status is not JobStatus.SUCCEEDED:
        how = "it was cancelled" if job.status is JobStatus.CANCELLED else f"it has failed: {job.error}"
        raise ResultNotFound(job_id, how)
    if job.result == b"":
        raise ResultNotFound(job_id, "what its handler returned is not kept")
    encoded = b"null" if job.result is None else job.result
    try:
        return msgspec.json.decode(encoded, type=Any if kind is None else kind)
    except TypeError as error:
        raise InvalidType(f"result() decodes to a type such as int or a Struct, not to {kind!r}") from error
    except msgspec.ValidationError as error:
        raise PayloadError(job.task, f"its result is of another type: {error}") from error
