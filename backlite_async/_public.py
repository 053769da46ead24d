"""The public names. A new one gets its line here, twice: it is imported, and listed."""

from ._add import AddOperation
from ._checkup import HealthReport
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
    ScheduleNotFound,
    TaskNotFound,
    TransactionTimeout,
)
from ._events import Event, Events
from ._graph import StepRun, WorkflowId, WorkflowRun
from ._history import AttemptError, LogLine
from ._inspection import Finding
from ._job import Job, JobStatus, OwnerInfo, Queue, TaskInfo
from ._jobs import JobPage
from ._middleware import CallNext
from ._options import Added
from ._outcome import Discard, Retry, Snooze
from ._recurring import Schedule, ScheduleState
from ._rule import Rule
from ._schedules import ScheduleOperation
from ._stats import Count, Percentiles, QueueStats
from ._steps import Step
from ._task import Task
from ._workflow import Chain, Group, Workflow, chain, group

__all__ = [
    "AddOperation",
    "Added",
    "AlreadyExists",
    "AlreadyRegistered",
    "AttemptError",
    "BackliteError",
    "Backoff",
    "CallNext",
    "Chain",
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
    "Finding",
    "Group",
    "HealthReport",
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
    "Schedule",
    "ScheduleNotFound",
    "ScheduleOperation",
    "ScheduleState",
    "Snooze",
    "Step",
    "StepRun",
    "SystemClock",
    "Task",
    "TaskInfo",
    "TaskNotFound",
    "TransactionTimeout",
    "Workflow",
    "WorkflowId",
    "WorkflowRun",
    "chain",
    "current_client",
    "current_job",
    "group",
]
