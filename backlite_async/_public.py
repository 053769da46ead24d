"""The public names. A new one gets its line here, twice: it is imported, and listed."""

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
    LeaseLost,
    PayloadError,
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
    "JobStatus",
    "LeaseLost",
    "PayloadError",
    "Queue",
    "QueueConfig",
    "Rate",
    "Retention",
    "Retry",
    "Snooze",
    "SystemClock",
    "Task",
    "TransactionTimeout",
    "current_client",
    "current_job",
]
