"""Whether dead letters, statistics, history, waits and edited payloads are as they are promised."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import msgspec

from backlite_async import JobStatus

from .hearing import Hearing
from .history import (
    Claimed,
    Died,
    Ended,
    Event,
    Fault,
    FlowActed,
    FlowEnded,
    Kept,
    Replaced,
    Revoked,
    Ruled,
    Said,
    Started,
    Steered,
    Stored,
    Tallied,
    WaitBegan,
    WaitEnded,
    Woven,
    Written,
)

__all__ = ["check_service"]

LONGEST_LOOK = 30.0
"""Seconds after which whoever waits looks for itself."""

RECOVERS = 6.0
"""Seconds after a fault of the store in which nobody may look."""

WAITING_WAYS = 8
"""Ways to the store and back more than it takes to heed an order, until a wait has seen the end of a job."""


class _Known:
    """What is known of a job."""

    def __init__(self, event: Stored) -> None:
        self.queue = event.kind[0]
        self.flow = event.flow
        self.number = event.number
        self.claim: Claimed | None = None
        self.how: dict[int, Ended] = {}
        self.said: dict[int, Said] = {}
        self.heard: list[Said] = []
        self.errors = self.maybe = 0
        self.times = 0
        self.ended: tuple[Event, JobStatus] | None = None
        self.ends: set[JobStatus] = set()
        self.gone = False
        self.until: int | None = None


class _Service:
    def __init__(self, latency: float) -> None:
        self.found: list[str] = []
        self.latency = latency
        self.hearing = Hearing(latency)
        self.rules: dict[str, Ruled] = {}
        self.jobs: dict[str, _Known] = {}
        self.tallies: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.failures: defaultdict[str, list[tuple[str, int, int]]] = defaultdict(list)
        self.letters: defaultdict[str, list[list[int]]] = defaultdict(list)
        self.waits: dict[int, WaitBegan] = {}
        self.trouble: dict[str, float] = {}

    def fail(self, event: Event, kind: str, text: str) -> None:
        self.found.append(f"{kind}: {text} (at {event.at:.6f} s)")

    def see(self, event: Event) -> None:  # noqa: PLR0912 - a case for each kind of event
        self.hearing.see(event)
        job = getattr(event, "job", None)
        if job is not None and job not in self.jobs and not isinstance(event, (Stored, WaitBegan)):
            return  # others say so
        if isinstance(event, (Woven, FlowActed, FlowEnded)):
            self.see_flow(event)
        match event:
            case Ruled():
                self.rules[event.queue] = event
            case Stored():
                self.see_stored(event)
            case Replaced():
                self.jobs[event.job].queue, self.jobs[event.job].number = event.kind[0], event.number
            case Claimed():
                self.jobs[event.job].claim = event
            case Started():
                self.see_started(event)
            case Said():
                self.jobs[event.job].said[event.fence] = event
            case Ended():
                self.jobs[event.job].how[event.fence] = event
            case Written(accepted=True):
                self.see_written(event)
            case Revoked(ended=True):
                self.end(event, JobStatus.CANCELLED)
            case Steered():
                self.see_steered(event)
            case Fault():
                self.trouble[event.client] = event.at
            case WaitBegan():
                self.waits[event.number] = event
            case WaitEnded():
                self.see_waited(event)
            case Died():
                self.waits = {n: wait for n, wait in self.waits.items() if wait.client != event.client}
            case Kept():
                self.see_kept(event)
            case Tallied():
                self.see_tallied(event)
            case _:
                pass
        if self.waits:
            self.see_waits(event)

    # -- jobs --------------------------------------------------------------------------------------

    def see_stored(self, event: Stored) -> None:
        known = self.jobs.get(event.job)
        times = 0 if known is None else known.times
        known = self.jobs[event.job] = _Known(event)
        known.times = times + 1
        if event.about is not None:
            told = event.about
            self.letters[told["job_id"]].append([told["attempts"], told["crashes"]])

    def see_flow(self, event: Woven | FlowActed | FlowEnded) -> None:
        """A workflow, which is waited for like a job."""
        if isinstance(event, Woven):
            if event.callbacks is not None:
                whole = Stored(job=event.flow, kind=("", ""), due_at=0, max_attempts=1, max_crashes=1)
                self.jobs[event.flow] = _Known(msgspec.structs.replace(whole, flow=event.flow))
            return
        known = self.jobs[event.flow]
        if isinstance(event, FlowEnded):
            known.ended = event, JobStatus(event.status)
            known.ends.add(JobStatus(event.status))
        elif event.how == "rerun":
            known.ended = None

    def see_started(self, event: Started) -> None:
        known = self.jobs[event.job]
        held = known.claim is not None and known.claim.fence == event.fence
        if held and event.number is not None and event.number != known.number:
            self.fail(event, "payload", f"{event.job} runs as {event.number}, and is {known.number}")

    def see_written(self, event: Written) -> None:
        known = self.jobs[event.job]
        claim, known.claim = known.claim, None
        if claim is None or claim.fence != event.fence:
            return  # which others have found
        if event.owner == claim.owner and event.fence in known.said:
            known.heard.append(known.said[event.fence])
        what = self.what(event, claim, known.how.get(event.fence))
        if what in ("retried", "crashed", "failed"):
            known.errors += 1
        elif what == "cancelled":  # what its handler raised then is an error, or it was cut off
            known.maybe += 1
        if event.status is JobStatus.PENDING:
            self.tallies[known.queue][what] += 1
            return
        if event.status is JobStatus.FAILED:
            self.failures[event.job].append((known.queue, event.attempt, event.crashes))
            rule = self.rules.get(known.queue)
            if rule is not None and not rule.keeps:  # it is there as somebody waits, or ran again
                known.errors, known.maybe = known.errors - 1, known.maybe + 1
        self.end(event, event.status)

    @staticmethod
    def what(event: Written, claim: Claimed, ended: Ended | None) -> str:
        """Return what an attempt counts as; "": as nothing."""
        if event.status is not JobStatus.PENDING:
            return event.status.value
        if event.crashes > claim.crashes:
            return "crashed"
        if event.attempt == claim.attempt:
            return "retried"
        return "snoozed" if ended is not None and ended.how == "snoozed" else ""

    def end(self, event: Written | Revoked, status: JobStatus) -> None:
        known = self.jobs[event.job]
        self.tallies[known.queue][status.value] += 1
        known.ended, known.gone, known.until = (event, status), not event.keep, event.until
        known.ends.add(status)

    def see_steered(self, event: Steered) -> None:
        known = self.jobs[event.job]
        if event.how == "delete":
            known.ended, known.gone = (event, JobStatus.NOT_FOUND), True
            return
        if event.how == "release":
            known.claim = None
        known.ended = None
        known.number = event.number

    # -- waits -------------------------------------------------------------------------------------

    def see_waits(self, event: Event) -> None:
        """Whoever waits for a job that has ended hears of it in time."""
        for number, wait in list(self.waits.items()):
            known = self.jobs.get(wait.job)
            if known is None or known.ended is None:
                continue
            ended = known.ended[0]
            told = isinstance(ended, (Written, Revoked, Steered)) and ended.told
            since = max(ended.at, wait.at)
            more = WAITING_WAYS * self.latency
            calm = since - self.trouble.get(wait.client, float("-inf")) > RECOVERS
            late = event.at - since > LONGEST_LOOK + RECOVERS + more and calm
            late |= told and self.hearing.heeds(wait.client, since, event.at, more=more)
            if late and self.hearing.hears(wait.client):
                del self.waits[number]
                text = f"{wait.client} waits for {wait.job}, which ended {event.at - ended.at:.3f} s ago"
                self.fail(event, "waits on", text)

    def see_waited(self, event: WaitEnded) -> None:
        wait = self.waits.pop(event.number, None)
        if wait is None:
            return
        known = self.jobs.get(wait.job)
        if event.gave_up or known is None:
            return
        expired = known.ended is not None and known.until is not None and known.until <= event.wall
        if event.status is None and not (known.gone or expired or known.times > 1 or known.flow):
            self.fail(event, "wait", f"{wait.client} was told that {wait.job} is gone")
        if event.status is not None and known.times == 1 and event.status not in known.ends:
            self.fail(event, "wait", f"{wait.job} has never been {event.status}")

    # -- what is kept and counted ------------------------------------------------------------------

    def see_kept(self, event: Kept) -> None:
        known = self.jobs[event.job]
        if known.times > 1:
            return  # another has had its id
        if len(set(event.lines)) < len(event.lines):
            self.fail(event, "history", f"{event.job} has said something twice: {event.lines}")
        for said in known.heard:
            theirs = [line for line in event.lines if line in said.lines]
            if theirs != said.lines:
                self.fail(event, "history", f"{event.job} has said {said.lines}, and {theirs} is kept")
        if known.heard and event.progress is None:
            self.fail(event, "history", f"{event.job} has said how far it is, and nothing is kept")
        if not known.errors <= event.errors <= known.errors + known.maybe:
            self.fail(event, "history", f"{event.job} has {event.errors} errors, of {known.errors}")

    def see_tallied(self, event: Tallied) -> None:
        for queue in sorted({*self.tallies, *event.counts}):
            if queue == "probe":
                continue
            expected = {what: number for what, number in self.tallies[queue].items() if number and what}
            counts = event.counts.get(queue, {})
            counted = {what: number for what, number in counts.items() if what not in ("run", "wait")}
            if counted != expected:
                self.fail(event, "statistics", f"of {queue!r} {counted} were counted, and {expected} were")
        for job in self.jobs:
            failures = sorted(how for queue, *how in self.failures[job] if queue in event.letters)
            if (letters := sorted(self.letters[job])) != failures:
                self.fail(
                    event, "dead letter", f"{job} failed as {failures}, its dead letters tell {letters}"
                )


def check_service(events: Sequence[Event], *, latency: float = 0.0) -> list[str]:
    """Return where what is kept, counted, told or redirected is not what has happened."""
    service = _Service(latency)
    for event in events:
        service.see(event)
    return service.found
