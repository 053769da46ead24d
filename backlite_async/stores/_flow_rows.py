"""What stores keep of workflows, and how `_flows` gets at it: the protocol."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

import msgspec

from .._graph import CONTINUE
from .._job import NewJob

__all__ = ["CANCELLED", "FAILED", "SKIPPED", "SUCCEEDED", "End", "Flow", "FlowRows", "Step"]

SUCCEEDED, FAILED, CANCELLED, SKIPPED = "succeeded", "failed", "cancelled", "skipped"
"""How a step has ended; skipped: cancelled because one before it ended without success."""


class Step(msgspec.Struct, array_like=True, gc=False):
    """A node of a workflow as a store keeps it; `status` None: it has not ended.

    `blocked`: by how many steps; `strip`: its payload is kept as long as it may run again while the
    workflow lives, but no longer.
    """

    number: int
    kind: str
    job_id: str | None
    name: str | None
    status: str | None
    blocked: int
    if_failed: str
    next: tuple[int, ...]
    fallback: NewJob | None = None
    strip: bool | int = False

    @property
    def frees(self) -> bool:
        """Whether what comes after it may run, as far as this one is concerned: it has had its chance."""
        tolerated = self.if_failed == CONTINUE and self.status in (FAILED, CANCELLED)
        return self.status == SUCCEEDED or tolerated

    @property
    def bars(self) -> bool:
        """Whether what comes after it cannot run."""
        return self.status is not None and not self.frees


class Flow(msgspec.Struct, kw_only=True):
    """A workflow as a store keeps it. Instants in milliseconds.

    `status` None: not all of its steps have ended; `left`: how many of its nodes have not, with callbacks;
    `size`: how many there are; `ends`: how often it has ended; `keep_for`: the longest retention among its
    steps.
    """

    id: str
    name: str | None
    created_at: int
    left: int
    size: int
    status: str | None = None
    finished_at: int | None = None
    cancelled_at: int | None = None
    expires_at: int | None = None
    ends: int = 0
    keep_for: int = 0
    on_success: NewJob | None = None
    on_failure: NewJob | None = None
    on_complete: NewJob | None = None


class End(NamedTuple):
    """The end of a step's job: how, when, for how long its queue keeps it, and whether its payload too."""

    workflow: str
    step: int
    status: str
    at: int
    fence: int | None
    keep_for: int
    keeps_payload: bool


class FlowRows(Protocol):
    """What a store keeps of workflows, inside a transaction. Steps come in the order of their numbers."""

    def flow(self, workflow: str) -> Flow | None:
        """Return a workflow; None: there is none (any more)."""
        ...

    def put(self, flow: Flow) -> None:
        """Write a workflow back, if it is still there."""
        ...

    def steps(self, workflow: str, numbers: Iterable[int]) -> list[Step]:
        """Return some of its nodes."""
        ...

    def waiting(self, workflow: str, numbers: Iterable[int]) -> list[Step]:
        """Return those of some nodes that wait for others, maybe without what comes after them."""
        ...

    def live_steps(self, workflow: str) -> list[Step]:
        """Return all of its nodes that have not ended."""
        ...

    def put_steps(self, workflow: str, steps: Sequence[Step]) -> None:
        """Write nodes back: status, blocked, strip."""
        ...

    def put_next(self, workflow: str, steps: Sequence[Step]) -> None:
        """Write back what comes after nodes."""
        ...

    def succeed(self, workflow: str, numbers: Sequence[int]) -> tuple[int, Counter[int]]:
        """Write that some of its nodes have succeeded, those that have not ended yet.

        Returns how many these are, and after how many of them each other node comes.
        """
        ...

    def add_steps(self, workflow: str, steps: Sequence[tuple[Step, tuple[int, ...]]]) -> None:
        """Add nodes, each with the numbers of what it comes after."""
        ...

    def outcomes(self, workflow: str) -> set[tuple[str, str | None, str]]:
        """Return the different (kind, status, if_failed) of its nodes."""
        ...

    def named(self, workflow: str, name: str) -> bool:
        """Return whether it has a node of this name."""
        ...

    def add_jobs(self, jobs: Sequence[NewJob]) -> None:
        """Add jobs, those whose ids are not there."""
        ...

    def release(self, job_ids: Sequence[str], at: int) -> None:
        """Let blocked jobs run, from `at` on or when they are scheduled."""
        ...

    def skip(self, jobs: Sequence[tuple[str, str]], at: int) -> int:
        """End blocked jobs as cancelled, each with a reason as its error; they are kept, and counted.

        Returns the longest retention of their queues, as declared.
        """
        ...

    def cancel(self, job_ids: Sequence[str], at: int) -> tuple[set[str], int]:
        """End pending jobs as cancelled, kept; ask for the end of running ones.

        Returns the ids of those that have ended, and the longest retention of their queues.
        """
        ...

    def block(self, job_ids: Sequence[str]) -> set[str]:
        """Make completed and pending jobs blocked ones; return the ids of those that can run.

        Of completed ones nothing stays of what they have left, nor an error.
        """
        ...

    def reopen(self, workflow: str) -> None:
        """Keep its completed jobs for as long as it takes."""
        ...

    def close(self, workflow: str, expires_at: int | None) -> None:
        """Keep its completed jobs until then (None: for ever).

        Those with `strip` without their payloads, and those that were cancelled too if their queue says so.
        """
        ...

    def remove(self, workflow: str) -> None:
        """Remove it, its nodes, and their completed and pending jobs with all that is kept beside them."""
        ...

    def runs(self, workflow: str) -> bool:
        """Return whether a job of its nodes runs."""
        ...

    def watched(self, workflow: str) -> bool:
        """Return whether anybody waits for it, or for one of its steps."""
        ...
