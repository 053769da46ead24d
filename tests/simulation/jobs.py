"""What a checker knows of a job, and what may follow from how its handler ended."""

from __future__ import annotations

from math import ceil

from backlite_async import JobStatus

from .history import Claimed, Ended, Event, Marked, Revoked, Started, Steered, Stored, Written

__all__ = ["JobState", "Run", "follows", "follows_cancelled", "virtual"]


class Run:
    """One execution of a job."""

    def __init__(self, event: Started) -> None:
        self.started = event
        self.ended: Ended | None = None
        self.last_chance = False


class JobState:
    """What is known of one job so far."""

    def __init__(self) -> None:
        self.stored: list[Stored] = []
        self.completed: list[Written | Revoked | Steered] = []
        self.kind = ("", "")
        self.flow: str | None = None
        self.awaited: set[str] = set()
        self.max_crashes: float = float("inf")
        self.waits_for_turn = self.had_turn = False
        self.revoked: Revoked | None = None
        self.told_at = float("inf")
        self.acknowledged = False
        self.due_at = self.meant = 0
        self.waits_from: int | None = None
        self.ends: list[float] = []
        self.shifts = self.jumps_before = 0
        self.began = 0.0
        self.attempt = self.crashes = 0
        self.claim: Claimed | None = None
        self.fences: set[int] = set()
        self.runs: dict[int, Run] = {}
        self.running: dict[int, Started] = {}
        self.marks: dict[int, Marked] = {}
        self.lapsed: set[int] = set()
        self.over: set[int] = set()

    def wait(self, due_at: int, waits_from: int | None, *ends: float) -> None:
        """Wait anew; `ends` are the times at which it would be due, before and after each jump."""
        self.due_at, self.waits_from, self.ends = due_at, waits_from, list(ends)


def virtual(event: Event, wall: int) -> float:
    """Return when the wall shows an instant, if it does not jump."""
    return event.at + (wall - event.wall) / 1000


def follows(event: Written, ended: Ended, max_attempts: int, claim: Claimed, *, stopping: bool) -> bool:
    """Return whether an outcome follows from how the handler ended, of a job that nobody has cancelled."""
    again = event.status is JobStatus.PENDING
    counted = event.attempt == claim.attempt
    given_back = again and event.attempt == claim.attempt - 1
    failed = event.status is JobStatus.FAILED and counted
    if event.crashes != claim.crashes:
        return False
    match ended.how:
        case "returned":
            return event.status is JobStatus.SUCCEEDED and counted
        case "snoozed":
            return given_back and late_enough(event, ended)
        case "discarded":
            return failed
        case _:
            if stopping and given_back:
                return True
            if claim.attempt >= max_attempts:
                return failed
            return again and counted and late_enough(event, ended)


def follows_cancelled(
    event: Written, ended: Ended, max_attempts: int, claim: Claimed, *, heeded: bool, stopping: bool
) -> bool:
    """Return whether an outcome follows from how the handler ended, of a job that was to be cancelled.

    It has ended as cancelled unless it returned, or failed for good before that was `heeded`.
    """
    match event.status:
        case JobStatus.SUCCEEDED:
            return ended.how == "returned" and event.attempt == claim.attempt
        case JobStatus.CANCELLED:
            return ended.how != "returned" and event.attempt in (claim.attempt, claim.attempt - 1)
        case JobStatus.FAILED:
            return not heeded and follows(event, ended, max_attempts, claim, stopping=stopping)
        case _:
            return False


def late_enough(event: Written, ended: Ended) -> bool:
    if event.due_at is None or ended.wait is None:
        return True
    return event.due_at >= ended.wall + ceil(round(ended.wait * 1000, 6))
