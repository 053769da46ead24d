"""Background jobs inside an asyncio application, kept in SQLite.

`Client` adds and runs jobs; a `Task` subclass with a `QueueConfig` declares them.
"""

from ._add import AddOperation
from ._client import Client
from ._clock import Clock, SystemClock
from ._config import Backoff, QueueConfig, Rate, Retention
from ._context import JobContext, current_client, current_job
from ._errors import (
    AlreadyExists,
    AlreadyRegistered,
    BackliteError,
    DatabaseBusy,
    DatabaseReplaced,
    DatabaseUnavailable,
    DatabaseUnusable,
    InvalidState,
    InvalidTask,
    InvalidType,
    InvalidValue,
    JobNotFound,
    LeaseLost,
    PayloadError,
    ResultNotFound,
    TransactionTimeout,
)
from ._events import Event, Events
from ._job import Job, JobStatus, Queue
from ._middleware import CallNext
from ._options import Added
from ._outcome import Discard, Retry, Snooze
from ._task import Task

__all__ = [
    "AddOperation",
    "Added",
    "AlreadyExists",
    "AlreadyRegistered",
    "BackliteError",
    "Backoff",
    "CallNext",
    "Client",
    "Clock",
    "DatabaseBusy",
    "DatabaseReplaced",
    "DatabaseUnavailable",
    "DatabaseUnusable",
    "Discard",
    "Event",
    "Events",
    "InvalidState",
    "InvalidTask",
    "InvalidType",
    "InvalidValue",
    "Job",
    "JobContext",
    "JobNotFound",
    "JobStatus",
    "LeaseLost",
    "PayloadError",
    "Queue",
    "QueueConfig",
    "Rate",
    "ResultNotFound",
    "Retention",
    "Retry",
    "Snooze",
    "SystemClock",
    "Task",
    "TransactionTimeout",
    "current_client",
    "current_job",
]


def __getattr__(name: str) -> str:
    if name == "__version__":  # looked up when asked for: it takes longer than all the rest
        from importlib.metadata import version

        return version("backlite_async")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
