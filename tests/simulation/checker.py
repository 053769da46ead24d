"""Whether a history keeps what the library promises. Knows nothing of the library's insides."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil

from backlite_async import JobStatus

from .history import (
    Acknowledged,
    Claimed,
    Died,
    Ended,
    Event,
    Fault,
    Final,
    Jumped,
    Misuse,
    Probed,
    Started,
    StopAsked,
    Stopped,
    Stored,
    Written,
)

__all__ = ["STOP_GRACE", "check", "check_order", "check_prompt"]

STOP_GRACE = 3.0 + 0.5
"""Seconds after its limit within which `stop` returns: for handlers, for outcomes, and for the close."""

TERMINAL = (JobStatus.SUCCEEDED, JobStatus.FAILED)


class _Run:
    """One execution of a job."""

    def __init__(self, event: Started) -> None:
        self.started = event
        self.ended: Ended | None = None


class _Job:
    """What is known of one job so far."""

    def __init__(self) -> None:
        self.stored: list[Stored] = []
        self.completed: list[Written] = []
        self.acknowledged = False
        self.due_at = 0
        self.attempt = self.crashes = 0
        self.claim: Claimed | None = None
        self.fences: set[int] = set()
        self.runs: dict[int, _Run] = {}
        self.running: dict[int, Started] = {}
        self.lapsed: set[int] = set()


class _Checker:
    def __init__(self) -> None:
        self.found: list[str] = []
        self.jobs: dict[str, _Job] = {}
        self.dead: set[str] = set()
        self.trouble: dict[str, float] = {}
        self.jumped_at = self.back_at = float("-inf")
        self.stopping: dict[tuple[str, int], float] = {}

    def fail(self, event: Event, kind: str, text: str) -> None:
        self.found.append(f"{kind}: {text} (at {event.at:.6f} s)")

    def job(self, name: str) -> _Job:
        return self.jobs.setdefault(name, _Job())

    def see(self, event: Event) -> None:  # noqa: PLR0912 - a case for each kind of event
        match event:
            case Stored():
                self.see_stored(event)
            case Acknowledged():
                self.job(event.job).acknowledged = True
            case Claimed():
                self.see_claimed(event)
            case Started():
                self.see_started(event)
            case Ended():
                self.see_ended(event)
            case Written():
                self.see_written(event)
            case Died():
                self.see_died(event)
            case Fault():
                self.trouble[event.client] = event.at
            case Jumped():
                self.jumped_at = event.at
                self.back_at = event.at if event.by < 0 else self.back_at
            case StopAsked():
                self.stopping.setdefault((event.client, event.life), event.at)
            case Stopped():
                self.see_stopped(event)
            case Probed():
                if event.met < event.expected:
                    self.fail(event, "pool", f"of {event.expected} workers only {event.met} ran at once")
            case Misuse():
                self.fail(event, "misuse", event.what)
            case Final():
                self.see_final(event)
            case _:
                pass

    def see_stored(self, event: Stored) -> None:
        job = self.job(event.job)
        if len(job.stored) > len(job.completed):
            self.fail(event, "added twice", f"{event.job} was stored again while it was there")
        job.stored.append(event)
        job.due_at, job.attempt, job.crashes = event.due_at, 0, 0

    def see_claimed(self, event: Claimed) -> None:
        job = self.job(event.job)
        if job.claim is not None:
            self.fail(event, "claimed twice", f"{event.job} is held by claim {job.claim.fence}")
        if len(job.completed) >= len(job.stored):
            self.fail(event, "ghost", f"{event.job} was claimed after its end")
        if event.fence <= max(job.fences, default=0):
            self.fail(event, "fence", f"claim {event.fence} of {event.job} is not newer than the last")
        if event.now < job.due_at:
            self.fail(event, "early", f"{event.job} was claimed {job.due_at - event.now} ms early")
        if event.attempt != job.attempt + 1:
            self.fail(event, "attempts", f"{event.job} came as attempt {event.attempt} after {job.attempt}")
        if event.crashes != job.crashes or (job.stored and event.crashes >= job.stored[-1].max_crashes):
            self.fail(event, "crashes", f"{event.job} was claimed with {event.crashes} crashes")
        job.claim = event
        job.fences.add(event.fence)

    def see_started(self, event: Started) -> None:
        if event.client in self.dead:
            return
        job = self.job(event.job)
        claim = job.claim
        held = claim is not None and claim.fence == event.fence and claim.client == event.client
        if not held and event.fence not in job.lapsed:
            self.fail(event, "unclaimed", f"{event.job} runs under claim {event.fence}, which it has not")
        if event.fence in job.runs:
            self.fail(event, "extra", f"{event.job} was started twice under claim {event.fence}")
        for fence, other in job.running.items():
            if other.client == event.client:
                self.fail(event, "overlap", f"{event.job} runs beside itself in {event.client}")
            elif fence not in job.lapsed:
                self.fail(event, "overlap", f"{event.job} runs in {event.client} beside {other.client}")
        went_back = claim is not None and self.back_at >= claim.at - 1
        if held and event.wall < job.due_at and not went_back:
            self.fail(event, "early", f"{event.job} started {job.due_at - event.wall} ms early")
        if job.stored and event.attempt > job.stored[-1].max_attempts:
            self.fail(event, "attempts", f"{event.job} runs for the {event.attempt}th time")
        job.runs[event.fence] = _Run(event)
        job.running[event.fence] = event
        beside = sum(
            run.client == event.client and run.life == event.life
            for other_job in self.jobs.values()
            for run in other_job.running.values()
        )
        if beside > event.workers:
            self.fail(event, "crowd", f"{beside} jobs run at once in {event.client}")

    def see_ended(self, event: Ended) -> None:
        if event.client in self.dead:
            return
        job = self.job(event.job)
        run = job.runs.get(event.fence)
        if run is None or run.ended is not None:
            self.fail(event, "extra", f"{event.job} ended under claim {event.fence}, but had not begun")
            return
        run.ended = event
        job.running.pop(event.fence, None)

    def see_died(self, event: Died) -> None:
        self.dead.add(event.client)
        for job in self.jobs.values():
            job.running = {f: run for f, run in job.running.items() if run.client != event.client}

    def see_written(self, event: Written) -> None:
        if not event.accepted:
            return
        job = self.job(event.job)
        claim, job.claim = job.claim, None
        if claim is None or claim.fence != event.fence:
            self.fail(event, "stale", f"an outcome of {event.job} under claim {event.fence} was accepted")
            job.claim = claim
            if event.status is JobStatus.PENDING:
                return
        elif event.lapse:
            self.lapsed(event, job, claim)
        else:
            self.concluded(event, job, claim)
        job.attempt, job.crashes = event.attempt, event.crashes
        if event.status is JobStatus.PENDING:
            assert event.due_at is not None
            job.due_at = event.due_at
            return
        job.completed.append(event)
        if len(job.completed) > len(job.stored):
            self.fail(event, "completed twice", f"{event.job} was completed {len(job.completed)} times")

    def lapsed(self, event: Written, job: _Job, claim: Claimed) -> None:
        """A claim was ended because its lease had: that needs a cause, and counts as a crash."""
        owner = claim.client
        caused = (
            owner in self.dead
            or any(client == owner for client, _ in self.stopping)
            or self.jumped_at >= claim.at - 1  # a claim takes a while, and its lease begins before it
            or self.trouble.get(owner, float("-inf")) >= claim.at
        )
        if not caused:
            self.fail(event, "extra", f"claim {claim.fence} of {event.job} by {owner} lapsed without a cause")
        job.lapsed.add(claim.fence)
        if event.crashes != claim.crashes + 1 or event.attempt != claim.attempt - 1:
            self.fail(event, "crashes", f"{event.job}: a crash was counted as {event.crashes}")
        most = job.stored[-1].max_crashes if job.stored else event.crashes
        if (event.crashes >= most) is not (event.status is JobStatus.FAILED):
            self.fail(event, "crashes", f"{event.job} is {event.status} after {event.crashes} crashes")

    def concluded(self, event: Written, job: _Job, claim: Claimed) -> None:
        """An outcome of the claim's own client: it must be what follows from how the handler ended."""
        if event.client != claim.client:
            self.fail(event, "stale", f"{event.client} wrote an outcome for {claim.client}'s {event.job}")
        run = job.runs.get(claim.fence)
        if run is None:
            given_back = event.status is JobStatus.PENDING and event.attempt == claim.attempt - 1
            refused = event.status is JobStatus.FAILED and claim.attempt > job.stored[-1].max_attempts
            if not (given_back or refused):
                self.fail(event, "lost", f"{event.job} became {event.status} without having run")
            return
        if run.ended is None:
            self.fail(event, "outcome", f"{event.job} became {event.status} while it ran")
            return
        stopping = (claim.client, run.started.life) in self.stopping
        if not _follows(event, run.ended, job.stored[-1].max_attempts, claim, stopping=stopping):
            self.fail(
                event,
                "outcome",
                f"{event.job} {run.ended.how} in attempt {claim.attempt}, became {event.status}"
                f" with attempt {event.attempt}",
            )

    def see_stopped(self, event: Stopped) -> None:
        if event.client in self.dead:
            return
        if event.limit is not None and event.at - event.asked_at > event.limit + STOP_GRACE:
            self.fail(event, "slow stop", f"stop({event.limit}) took {event.at - event.asked_at:.3f} s")
        running = {
            name: any(run.life == event.life for run in job.running.values() if run.client == event.client)
            for name, job in self.jobs.items()
            if any(run.client == event.client for run in job.running.values())
        }
        left = [name for name in event.claims if name not in running]
        if event.at == event.asked_at:
            return  # it had stopped before
        if event.clean and any(running.values()):
            self.fail(event, "untrue stop", f"stop() said True, but {len(running)} handlers run")
        if event.clean and left:
            self.fail(event, "untrue stop", f"stop() said True, but {left} are still claimed")
        asked_at = self.stopping.get((event.client, event.life), event.asked_at)
        if left and self.trouble.get(event.client, float("-inf")) < asked_at:
            self.fail(event, "kept claims", f"stop() left {left} claimed, though the store worked")

    def see_final(self, event: Final) -> None:
        job = self.job(event.job)
        if not job.completed or len(job.stored) > 1:
            return  # `finish` says so; a job without a record can be added again, by a repeated save
        last = job.completed[-1]
        gone = not last.keep or (last.until is not None and last.until <= event.wall)
        if last.until is not None and self.jumped_at > last.at:
            return  # it may have expired before the wall went back
        expected = JobStatus.NOT_FOUND if gone else last.status
        if event.status is not expected:
            self.fail(event, "retention", f"{event.job} ended {last.status}, is shown as {event.status}")

    def finish(self) -> None:
        for name, job in self.jobs.items():
            if job.acknowledged and not job.stored:
                self.found.append(f"lost: {name} was acknowledged, but never stored")
            if len(job.completed) < len(job.stored):
                self.found.append(f"lost: {name} never ended")
            if job.running:
                self.found.append(f"endless: {name} is still running")


def _follows(event: Written, ended: Ended, max_attempts: int, claim: Claimed, *, stopping: bool) -> bool:
    """Return whether an outcome follows from how the handler ended."""
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
            return given_back and _late_enough(event, ended)
        case "discarded":
            return failed
        case _:
            if stopping and given_back:
                return True
            if claim.attempt >= max_attempts:
                return failed
            return again and counted and _late_enough(event, ended)


def _late_enough(event: Written, ended: Ended) -> bool:
    if event.due_at is None or ended.wait is None:
        return True
    return event.due_at >= ended.wall + ceil(round(ended.wait * 1000, 6))


def check(events: Iterable[Event]) -> list[str]:
    """Return what is wrong with a history that has come to its end; nothing if it is as promised."""
    checker = _Checker()
    for event in events:
        checker.see(event)
    checker.finish()
    return checker.found


def check_prompt(events: Iterable[Event], *, workers: int, within: float) -> list[str]:
    """Return where a due job waited longer than `within` although a worker was free, and nothing started.

    For one client with all handlers, without faults and jumps.
    """
    found: list[str] = []
    due: dict[str, float] = {}
    running: set[str] = set()
    moved_at = float("-inf")  # when a place became free, or a job took one: then all others wait anew
    for event in events:
        match event:
            case Stored():
                due[event.job] = max(event.at, _instant(event, event.due_at))
            case Started():
                waited = event.at - max(due.pop(event.job), moved_at)
                if waited > within:
                    found.append(f"idle: {event.job} waited {waited:.6f} s (until {event.at:.6f} s)")
                running.add(event.job)
                moved_at = event.at
            case Ended():
                if len(running) >= workers:
                    moved_at = event.at
                running.discard(event.job)
            case Written() if event.due_at is not None:
                due[event.job] = max(event.at, _instant(event, event.due_at))
            case _:
                pass
    return found


def _instant(event: Event, wall: int) -> float:
    """Return a wall time as virtual time; right as long as the wall does not jump."""
    return event.at + (wall - event.wall) / 1000


def check_order(events: Iterable[Event]) -> list[str]:
    """Return where a job was claimed before one that had been due for longer.

    For one client with one worker, without faults and jumps.
    """
    found: list[str] = []
    waiting: dict[str, tuple[int, int]] = {}
    numbers: dict[str, int] = {}
    for number, event in enumerate(events):
        match event:
            case Stored():
                numbers[event.job] = number
                waiting[event.job] = (event.due_at, number)
            case Written() if event.due_at is not None:
                waiting[event.job] = (event.due_at, numbers[event.job])
            case Claimed():
                mine = waiting.pop(event.job)
                better = [job for job, order in waiting.items() if order < mine]
                if better:
                    found.append(f"order: {event.job} was claimed before {better} (at {event.at:.6f} s)")
            case _:
                pass
    return found
