"""What a handler sees of its job, and of the client that runs it."""

from __future__ import annotations

from contextvars import ContextVar
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ._clock import from_millis
from ._job import ClaimedJob
from ._log import logger

if TYPE_CHECKING:
    from ._client import Client

__all__ = ["JobContext", "current_client", "current_job", "running_client", "running_job"]

running_client: ContextVar[Client] = ContextVar("backlite_async.client")
running_job: ContextVar[JobContext] = ContextVar("backlite_async.job")


class JobContext:
    """The running job, as its handler sees it.

    `attempt` counts from 1; `fence` is the number of this claim, greater than that of every claim
    before; `deadline` is when the attempt times out (an aware datetime, None: never).
    """

    __slots__ = (
        "attempt",
        "client",
        "created_at",
        "deadline",
        "fence",
        "id",
        "max_attempts",
        "queue",
    )

    def __init__(self, job: ClaimedJob, client: Client, deadline: datetime | None) -> None:
        self.id = job.id
        self.queue = job.queue
        self.attempt = job.attempt
        self.max_attempts = job.max_attempts
        self.fence = job.fence
        self.created_at = from_millis(job.created_at)
        self.deadline = deadline
        self.client = client

    @property
    def log(self) -> Any:
        """A structlog logger that names this job on every line."""
        return logger(job_id=self.id, queue=self.queue, attempt=self.attempt)

    def __repr__(self) -> str:
        return f"<job {self.id} of queue {self.queue!r}, attempt {self.attempt} of {self.max_attempts}>"


def current_client() -> Client:
    """Return the client whose handler is running; `LookupError` outside of handlers."""
    try:
        return running_client.get()
    except LookupError:
        raise LookupError("current_client() works inside a handler only") from None


def current_job() -> JobContext:
    """Return the job whose handler is running; `LookupError` outside of handlers."""
    try:
        return running_job.get()
    except LookupError:
        raise LookupError("current_job() works inside a handler only") from None
