"""Workflows as plain data: on their way into the store, and as a store tells of them."""

from __future__ import annotations

from datetime import datetime
from hashlib import blake2b
from typing import Literal, NewType

import msgspec

from ._job import JobStatus, NewJob
from ._mermaid import Drawn, drawn

__all__ = [
    "CANCEL",
    "CONTINUE",
    "FOR_EVER",
    "Kind",
    "NewStep",
    "NewWorkflow",
    "StepResult",
    "StepRun",
    "WorkflowId",
    "WorkflowRun",
    "follow_up_id",
]

WorkflowId = NewType("WorkflowId", str)
"""The id of a workflow: a str that type checkers tell from a job's."""

CANCEL, CONTINUE = "cancel", "continue"
"""What becomes of what depends on a step that ends without success: it is cancelled, or runs all the same."""

FOR_EVER = 1 << 60
"""Milliseconds that stand for a retention without end."""

Kind = Literal["step", "join", "fallback", "callback"]
"""What a node of a workflow is: a task of its own; what many steps are joined by, without a job; a task that
runs because a step has failed; one that runs because the whole has ended."""


class NewStep(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """A node on its way into a workflow. `job` None: a join.

    `after`: the numbers of what it comes after. In a new workflow a step's number is its place, and all
    before it have smaller ones; `next` are the numbers of what comes after it. Where a running workflow is
    extended, numbers of steps that are there are as they are, `-1 - n` is the place n in the extension, and
    `next` is empty. `fallback`: what to add if it fails; its id and times are made then.
    """

    job: NewJob | None
    name: str | None = None
    after: tuple[int, ...] = ()
    next: tuple[int, ...] = ()
    if_failed: str = CANCEL
    fallback: NewJob | None = None


class NewWorkflow(msgspec.Struct, frozen=True, kw_only=True):
    """A workflow on its way into the store.

    The jobs of its steps carry `More.workflow` and `More.step`; those that come after others `More.blocked`.
    Callbacks get their ids and times when they are added: `on_success` or `on_failure`, then `on_complete`.
    """

    id: str
    name: str | None
    created_at: int
    steps: tuple[NewStep, ...]
    on_success: NewJob | None = None
    on_failure: NewJob | None = None
    on_complete: NewJob | None = None

    @property
    def jobs(self) -> list[NewJob]:
        """The jobs of its steps."""
        return [step.job for step in self.steps if step.job is not None]


class StepRun(msgspec.Struct, frozen=True, kw_only=True):
    """A node of a workflow as it is now.

    `kind`: "step", "join" (which has no job), "fallback" or "callback". `status` is PENDING also while it
    waits for others; a step is CANCELLED too if it was `skipped`, because one before it ended without
    success. `after`: the numbers of the nodes that it comes after. `error`, `attempt` and the rest are the
    job's.
    """

    number: int
    kind: Kind
    id: str | None
    name: str | None
    queue: str | None
    task: str | None
    status: JobStatus
    skipped: bool
    after: tuple[int, ...]
    if_failed: str
    attempt: int
    max_attempts: int
    due_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    progress: float | None
    error: str | None

    @property
    def state(self) -> JobStatus:
        """The same as `status`."""
        return self.status


class WorkflowRun(msgspec.Struct, frozen=True, kw_only=True):
    """A workflow as it is now.

    `status`: PENDING until a first step has started, RUNNING until all of its steps and fallbacks have
    ended; then FAILED if a step has failed, CANCELLED if one was cancelled and none has failed (steps of
    `if_failed="continue"` do not count, unless the whole was cancelled), else SUCCEEDED. Callbacks come
    after that. `steps`: all nodes, in the order of their numbers; in lists there are none. `size`: how many
    nodes there are, `left`: how many of them have not ended.
    """

    id: WorkflowId
    name: str | None
    status: JobStatus
    created_at: datetime
    finished_at: datetime | None
    cancelled_at: datetime | None
    expires_at: datetime | None
    size: int
    left: int
    steps: tuple[StepRun, ...] = ()

    @property
    def progress(self) -> float:
        """The part of its nodes that have ended, from 0 to 1; 1 once the whole has, whatever callbacks do."""
        return 1.0 if self.finished_at is not None else (self.size - self.left) / self.size

    def step(self, key: str) -> StepRun:
        """Return the node of this name or id; a `LookupError` says which there are."""
        for found in (step.name for step in self.steps), (step.id for step in self.steps):
            for step, its in zip(self.steps, found, strict=True):
                if its == key:
                    return step
        names = ", ".join(repr(step.name) for step in self.steps if step.name is not None) or "none"
        raise LookupError(f"workflow {self.id} has no step {key!r}; the names of its steps: {names}")

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """Which node comes after which: pairs of numbers, the one before first."""
        return tuple((before, step.number) for step in self.steps for before in step.after)

    @property
    def state(self) -> JobStatus:
        """The same as `status`."""
        return self.status

    def mermaid(self) -> str:
        """Return the graph as Mermaid text, which many viewers of Markdown show, coloured by states."""
        return drawn(
            Drawn(step.number, step.kind, step.task, step.name, step.status, step.after)
            for step in self.steps
        )


class StepResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a step has left. `result`: JSON; None: it returned nothing, b"": it is not kept."""

    number: int
    id: str
    name: str | None
    status: JobStatus
    result: bytes | None


def follow_up_id(*parts: object) -> str:
    """Return an id that follows from others, in the form of a UUID, version 8 (RFC 9562)."""
    text = "\0".join(str(part) for part in parts)
    digest = int.from_bytes(blake2b(text.encode(), digest_size=16).digest(), "big")
    value = digest & ~(0xF << 76) & ~(0b11 << 62) | 0x8 << 76 | 0b10 << 62
    hexes = f"{value:032x}"
    return f"{hexes[:8]}-{hexes[8:12]}-{hexes[12:16]}-{hexes[16:20]}-{hexes[20:]}"
