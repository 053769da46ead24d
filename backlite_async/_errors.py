"""Everything the library raises. One root, one class per thing a caller does differently."""

from __future__ import annotations

__all__ = [
    "AlreadyExists",
    "AlreadyRegistered",
    "BackliteError",
    "DatabaseBusy",
    "DatabaseReplaced",
    "DatabaseUnavailable",
    "DatabaseUnusable",
    "InvalidState",
    "InvalidTask",
    "InvalidType",
    "InvalidValue",
    "JobNotFound",
    "LeaseLost",
    "PayloadError",
    "ResultNotFound",
    "ScheduleNotFound",
    "TaskNotFound",
    "TransactionTimeout",
]


class BackliteError(Exception):
    """The root of every error of this library."""


class InvalidValue(BackliteError, ValueError):
    """An argument has a value that cannot work."""


class InvalidType(BackliteError, TypeError):
    """An argument is of the wrong type."""


class InvalidTask(InvalidType):
    """A class cannot be used as a task type, or an object is no task."""


class InvalidState(BackliteError, RuntimeError):
    """A call came at a time when it cannot be served."""


class AlreadyRegistered(BackliteError, ValueError):
    """A task type has a handler already, or a queue's name is taken by another configuration."""


class AlreadyExists(BackliteError, ValueError):
    """A job was not added, because one of the same unique key or id is there; `job_id` names it."""

    def __init__(self, job_id: str, what: str) -> None:
        super().__init__(job_id, what)
        self.job_id = job_id
        self.what = what

    def __str__(self) -> str:
        return (
            f'job {self.job_id} has the same {self.what}, and nothing was added; on_conflict="keep"'
            " returns its id instead"
        )


class JobNotFound(BackliteError, LookupError):
    """There is no such job, or none any more; `job_id` names it, `reason` says what may have become of it."""

    def __init__(self, job_id: str, reason: str = "there is none, or it is no longer kept") -> None:
        super().__init__(job_id, reason)
        self.job_id = job_id
        self.reason = reason

    def __str__(self) -> str:
        return f"job {self.job_id}: {self.reason}"


class ResultNotFound(BackliteError, LookupError):
    """There is no result of a job: `job_id` names it, `reason` says why."""

    def __init__(self, job_id: str, reason: str) -> None:
        super().__init__(job_id, reason)
        self.job_id = job_id
        self.reason = reason

    def __str__(self) -> str:
        return f"job {self.job_id} has no result: {self.reason}"


class ScheduleNotFound(BackliteError, LookupError):
    """There is no schedule of this `name`."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"there is no schedule {self.name!r}; client.schedules.list() tells which there are"


class TaskNotFound(InvalidValue, LookupError):
    """No task type of this `name` is known, here or to the database; `reason` says which there are."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"no task type {self.name!r} is known{self.reason}"


class PayloadError(BackliteError, ValueError):
    """A task cannot be encoded, would not decode, or is too large.

    `task` is the task type's name, `reason` says what is wrong and names the field.
    """

    def __init__(self, task: str, reason: str) -> None:
        super().__init__(task, reason)
        self.task = task
        self.reason = reason

    def __str__(self) -> str:
        return f"task {self.task}: {self.reason}"


class DatabaseUnusable(BackliteError):
    """The database cannot be opened, or not by this version of the library."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"database {self.path!r}: {self.reason}"


class DatabaseReplaced(DatabaseUnusable):
    """The database file was deleted or replaced while it was open; nothing more is written to it.

    The dispatcher stops. Put the right file in its place and `start()` again.
    """


class DatabaseUnavailable(BackliteError):
    """The database cannot serve at the moment: locked, disk full, or an I/O error.

    Whether the operation took effect is unknown after an I/O error. The same operation can be
    saved again: its ids stay the same, so nothing is added twice while the jobs have not run.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class DatabaseBusy(DatabaseUnavailable):
    """The database stayed locked for longer than the busy timeout; nothing was written."""


class LeaseLost(BackliteError):
    """The lease on a job ran out before its outcome was recorded.

    The outcome is dropped: whoever holds the lease now decides. Raised at the end of a
    `job.transaction()`, of which then nothing stays; otherwise logged.
    """

    def __init__(self, job_id: str, fence: int) -> None:
        super().__init__(job_id, fence)
        self.job_id = job_id
        self.fence = fence

    def __str__(self) -> str:
        return f"job {self.job_id}: claim {self.fence} has lost its lease"


class TransactionTimeout(BackliteError, TimeoutError):
    """A `job.transaction()` stayed open for too long and was rolled back.

    It keeps everybody else from writing, and so leases from being renewed.
    """

    def __init__(self, job_id: str, limit: float) -> None:
        super().__init__(job_id, limit)
        self.job_id = job_id
        self.limit = limit

    def __str__(self) -> str:
        return (
            f"job {self.job_id}: the transaction was open for more than {self.limit} s, which keeps all"
            " others from writing, so it was rolled back; do what takes time before it"
        )
