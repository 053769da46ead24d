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
    JobNotFound,
    LeaseLost,
    PayloadError,
    ResultNotFound,
    TransactionTimeout,
)
from ._events import Event, Events
from ._history import AttemptError, LogLine
from ._job import Job, JobStatus, OwnerInfo, Queue, TaskInfo
from ._jobs import JobPage
from ._middleware import CallNext
from ._options import Added
from ._outcome import Discard, Retry, Snooze
from ._rule import Rule
from ._stats import Count, Percentiles, QueueStats
from ._task import Task

__all__ = [
    "AddOperation",
    "Added",
    "AlreadyExists",
    "AlreadyRegistered",
    "AttemptError",
    "BackliteError",
    "Backoff",
    "CallNext",
    "Client",
    "Clock",
    "Count",
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
    "JobPage",
    "JobStatus",
    "LeaseLost",
    "LogLine",
    "OwnerInfo",
    "PayloadError",
    "Percentiles",
    "Queue",
    "QueueConfig",
    "QueueStats",
    "Rate",
    "ResultNotFound",
    "Retention",
    "Retry",
    "Rule",
    "Snooze",
    "SystemClock",
    "Task",
    "TaskInfo",
    "TransactionTimeout",
    "current_client",
    "current_job",
]
