"""What can be asked of a store about jobs, and done to them: plain data, decided elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ._job import Job, JobStatus

__all__ = [
    "BRIEF",
    "LOOKS",
    "LOOK_BYTES",
    "MOST_LISTED",
    "Action",
    "Delete",
    "Edit",
    "Found",
    "Postpone",
    "Release",
    "Rerun",
    "SortKey",
    "Wanted",
]

LOOKS = 5_000
"""Jobs that one question looks at, at most, to see whether they have what no index tells."""

LOOK_BYTES = 8_388_608
"""Bytes of payloads that one question looks through for a text, at most, but for those of its first job."""

BRIEF = 200
"""Bytes of payload and result, and characters of the error, that a brief list has of each job."""

MOST_LISTED = 1000
"""Jobs in one page of a list, at most."""

SortKey = tuple[int | str, ...]
"""Where a job stands in lists, see `Wanted`."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which jobs are wanted; what is None does not matter. Instants in milliseconds, both ends included.

    Jobs are sorted by these keys, least first; the first number is their section:

    - running: (0, started_at, seq)
    - pending, with a due time: (1, due_at, seq)
    - waiting for their turn: (2, queue, key, task, -priority, scheduled_at, seq)
    - waiting for other steps of their workflows: (3, queue, task, -priority, scheduled_at, seq)
    - completed: (4, -finished_at, -seq)

    `seq` is the order of adding; of completed jobs, that of their ends.

    With `workflow`: (8, step), the number of the step. With `tag` (and no workflow): (5, -number), its
    number growing with every job that gets a tag. With `parent` (and neither): live (6, -seq), completed
    (7, -seq). With `unique`, which needs a queue, there is one job at most, the one that was last added with
    that unique key, as above.

    Queue, task, state, the ranges of `due` (of pending jobs only, its public due time for those that wait)
    and `finished` (of completed ones only) are found by indexes; so is each of workflow, tag, parent and
    unique alone; and `owner`, which pending jobs have none, of those that run.
    What else is wanted is looked at, job by job. `text` is in the payload, the error, the id, the meta data
    or the key, whatever the case of its ASCII letters.
    """

    queue: str | None = None
    task: str | None = None
    states: frozenset[JobStatus] | None = None
    tag: str | None = None
    key: str | None = None
    unique: str | None = None
    parent: str | None = None
    owner: str | None = None
    workflow: str | None = None
    added: tuple[int | None, int | None] | None = None
    due: tuple[int | None, int | None] | None = None
    finished: tuple[int | None, int | None] | None = None
    text: str | None = None


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A page of jobs, in order. `places`: their sort keys.

    `limited`: `LOOKS` jobs were looked at before the page was full; `looked_to`: the sort key of the last
    one, behind which the next page begins. `more`: whether there is, or may be, a page behind this one; of a
    page before a sort key, one before it.
    """

    jobs: Sequence[Job]
    places: Sequence[SortKey]
    more: bool = False
    limited: bool = False
    looked_to: SortKey | None = None


class Rerun(msgspec.Struct, frozen=True, kw_only=True):
    """Run jobs again, due now: failed and cancelled ones that are kept with their payload, and pending ones.

    They get at least `attempts` more. Crashes are forgiven. A retry keeps its id and its history.
    """

    attempts: int = 1


class Postpone(msgspec.Struct, frozen=True, kw_only=True):
    """Let pending jobs be due at an instant; one that waits for its turn: now means that it waits on."""

    due_at: int
    waits_from: int | None = None


class Edit(msgspec.Struct, frozen=True, kw_only=True):
    """Give pending jobs of this queue and task another payload."""

    queue: str
    task: str
    payload: bytes


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """Take running jobs away from whoever holds them: pending and due now, the attempt uncounted.

    One that is to be cancelled ends as cancelled. What its owner says of it later is not accepted.
    """


class Delete(msgspec.Struct, frozen=True, kw_only=True):
    """Remove pending and completed jobs, and all that is kept of them. Running ones stay."""


Action = Rerun | Postpone | Edit | Release | Delete
"""What is done to jobs, those that it can be done to."""
