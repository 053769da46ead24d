"""Whether a history keeps what the library promises. Knows nothing of the library's insides."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from backlite_async import JobStatus

from .flows import check_flows
from .hearing import THREADED, Hearing
from .history import (
    WATCHED_FOR,
    Acknowledged,
    Claimed,
    Died,
    Ended,
    Event,
    Fault,
    Final,
    Jumped,
    Known,
    Logged,
    Marked,
    Misuse,
    Probed,
    Replaced,
    Revoked,
    Ruled,
    Shifted,
    Started,
    Steered,
    StopAsked,
    Stopped,
    Stored,
    Turned,
    WaitBegan,
    Written,
)
from .jobs import JobState, Run, follows, follows_cancelled, virtual
from .limits import check_limits
from .order import NOTICE, UNSURE, check_priority
from .owners import Members, Wall
from .recovery import check_alone, check_recovery
from .service import check_service
from .uniques import check_uniques

__all__ = ["STOP_GRACE", "check"]

STOP_GRACE = 3.0 + 0.5
"""Seconds after its limit within which `stop` returns: for handlers, for outcomes, and for the close."""

OVERTIME = 0.2
"""Seconds after its timeout within which a handler ends that does not resist."""

AGREEING = 1.2
"""Seconds by which two clocks may differ that agree; and a decision come before it is written."""

STEADY = 0.75
"""Parts of a beat: for no longer may nobody have been able to write, when a living owner's claim is taken."""


class _Checker:
    def __init__(self, latency: float) -> None:
        self.found: list[str] = []
        self.hearing = Hearing(latency)
        self.asking = 2000 * latency  # milliseconds in which what is asked for may expire
        self.rules: dict[str, Ruled] = {}
        self.jobs: dict[str, JobState] = {}
        self.members = Members()
        self.wall = Wall()
        self.known: dict[tuple[str, tuple[str, str]], float] = {}
        self.dead: set[str] = set()
        self.trouble: dict[str, float] = {}
        self.jumped_at = self.back_at = float("-inf")
        self.jumps: list[Jumped] = []
        self.unshifted_at = float("-inf")
        self.stopping: dict[tuple[str, int], float] = {}

    def fail(self, event: Event, kind: str, text: str) -> None:
        self.found.append(f"{kind}: {text} (at {event.at:.6f} s)")

    def job(self, name: str) -> JobState:
        return self.jobs.setdefault(name, JobState())

    def see(self, event: Event) -> None:  # noqa: PLR0912 - a case for each kind of event
        self.members.see(event)
        self.wall.see(event)
        self.hearing.see(event)
        match event:
            case Ruled():
                self.rules[event.queue] = event
            case Stored():
                self.see_stored(event)
            case Replaced():
                self.see_replaced(event)
            case Turned():
                self.see_turned(event)
            case Revoked():
                self.see_revoked(event)
            case Steered():
                self.see_steered(event)
            case Acknowledged():
                self.job(event.job).acknowledged = True
            case Claimed():
                self.see_claimed(event)
            case Marked():
                self.see_marked(event)
            case Started():
                self.see_started(event)
            case Ended():
                self.see_ended(event)
            case Written():
                self.see_written(event)
            case Died():
                self.see_died(event)
            case Shifted():
                self.see_shifted(event)
            case Known():
                for kind in event.kinds:
                    self.known.setdefault((event.client, kind), event.at)
            case Fault():
                self.trouble[event.client] = event.at
                if event.operation == "shift_waits":
                    self.unshifted_at = event.at
            case Jumped():
                self.see_jumped(event)
            case StopAsked():
                self.stopping.setdefault((event.client, event.life), event.at)
            case Stopped():
                self.see_stopped(event)
            case Probed():
                if event.met < event.expected:
                    self.fail(event, "pool", f"of {event.expected} workers only {event.met} ran at once")
            case WaitBegan() if event.job in self.jobs:
                self.job(event.job).awaited.add(event.client)
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
        job.kind, job.max_crashes = event.kind, event.max_crashes
        self.waits(event, job)
        job.attempt, job.crashes = 0, 0
        job.waits_for_turn, job.had_turn = event.blocked, False
        job.flow = event.flow
        job.revoked, job.told_at = None, float("inf")

    def see_replaced(self, event: Replaced) -> None:
        job = self.job(event.job)
        job.kind, job.max_crashes = event.kind, event.max_crashes
        job.waits_for_turn = False
        self.waits(event, job)

    def see_turned(self, event: Turned) -> None:
        """A job of a key waits for its turn, or is let in, due now: that is no wait that was asked for."""
        job = self.job(event.job)
        if job.claim is not None or len(job.completed) >= len(job.stored):
            self.fail(event, "turn", f"{event.job}, which is not pending")
        early = event.due_at is None and event.wall < job.due_at and not event.flow
        if early and self.back_at == float("-inf"):
            self.fail(event, "turn", f"{event.job} waits for its turn before it is due")
        job.waits_for_turn = event.due_at is None
        if event.due_at is not None:
            job.had_turn = True
            self.waits(event, job)

    def see_revoked(self, event: Revoked) -> None:
        job = self.job(event.job)
        if len(job.completed) >= len(job.stored):
            self.fail(event, "cancelled", f"{event.job} was cancelled after its end")
        elif event.ended and job.claim is not None:
            self.fail(event, "cancelled", f"{event.job} has ended while it ran")
        elif not event.ended and job.claim is None:
            self.fail(event, "cancelled", f"{event.job} was only asked to end, and nobody runs it")
        if event.told:
            job.told_at = min(job.told_at, event.at)
        if event.ended:
            self.kept_as_cancelled(event, job, event.now)
            job.completed.append(event)
        elif job.revoked is None:
            job.revoked = event

    def see_steered(self, event: Steered) -> None:
        """Somebody did something to a job, which must have been in a state for it."""
        job = self.job(event.job)
        live, running = len(job.completed) < len(job.stored), job.claim is not None
        was = "running" if running else "pending" if live else "completed"
        right = {"release": ("running",), "edit": ("pending",), "postpone": ("pending",)}
        if was not in right.get(event.how, ("pending", "completed")) or event.was != was:
            self.fail(event, "steered", f"{event.job}, which is {was}, saw a {event.how}")
        if not live and event.how == "rerun":
            self.see_rerun(event, job)
        elif event.how == "rerun":
            job.crashes = 0
        elif event.how == "release" and job.claim is not None:
            job.lapsed.add(job.claim.fence)
            job.attempt, job.claim = job.claim.attempt - 1, None
        elif event.how == "delete":
            if not live:
                job.completed.pop()
            job.completed.append(event)
            return
        if event.how == "edit":
            return
        job.stored[-1] = msgspec.structs.replace(job.stored[-1], max_attempts=event.max_attempts)
        job.waits_for_turn = event.due_at is None
        if event.due_at is not None:
            self.waits(event, job)

    def see_rerun(self, event: Steered, job: JobState) -> None:
        """A job that has ended runs again: only one that is kept, and has not succeeded."""
        last = job.completed.pop()
        ended = last.status if isinstance(last, Written) else JobStatus.CANCELLED
        kept = job.flow is not None or (last.keep and (last.until is None or last.until > event.now))
        if isinstance(last, Steered) or ended is JobStatus.SUCCEEDED or not kept:
            self.fail(event, "steered", f"{event.job}, which ended {ended} and is kept: {kept}, runs again")
        if event.max_attempts <= job.attempt:
            self.fail(event, "steered", f"{event.job} runs again, with no attempts left")
        job.crashes, job.revoked, job.told_at = 0, None, float("inf")
        job.had_turn = False

    def kept_as_cancelled(self, event: Revoked | Written, job: JobState, now: int) -> None:
        rule = self.rules.get(job.kind[0])
        if rule is None or job.flow is not None:  # a step is kept for as long as its workflow is
            return
        until = None if rule.keep_for is None else now + rule.keep_for
        if event.watched and not (rule.keeps and until is None):
            until = max(until or 0 if rule.keeps else 0, now + WATCHED_FOR)
        if event.keep is not (rule.keeps or event.watched) or (event.keep and event.until != until):
            self.fail(event, "retention", f"{event.job}, cancelled, is kept until {event.until}, not {until}")

    def waits(self, event: Stored | Replaced | Turned | Written | Steered, job: JobState) -> None:
        """A wait was asked for a while ago, and the wall may have been moved since then."""
        assert event.due_at is not None
        if not isinstance(event, Turned):
            job.meant = event.due_at
        ends, began = [virtual(event, event.due_at)], event.at
        if event.waits_from is not None:
            began = self.wall.shown(event.waits_from, event.at)
            ends.append(began + (event.due_at - event.waits_from) / 1000)
        since = [jump for jump in self.jumps if jump.at > began]
        job.wait(event.due_at, event.waits_from, *ends, *(virtual(jump, event.due_at) for jump in since))
        job.shifts, job.began, job.jumps_before = 0, began, len(self.jumps) - len(since)

    def see_jumped(self, event: Jumped) -> None:
        self.jumped_at = event.at
        self.jumps.append(event)
        self.back_at = event.at if event.by < 0 else self.back_at
        for job in self.jobs.values():
            job.ends.append(virtual(event, job.due_at))

    def see_shifted(self, event: Shifted) -> None:
        """A wait that is moved ends at a time at which it would have ended before the jumps.

        Where nobody knows of them it begins anew.
        """
        job = self.job(event.job)
        if job.claim is not None or len(job.completed) >= len(job.stored):
            self.fail(event, "shifted", f"{event.job}, which does not wait")
        elif job.waits_from is None:
            self.fail(event, "shifted", f"{event.job}, which is due at an instant that was given")
        elif event.by == 0 and job.waits_from <= event.waits_from:
            self.fail(event, "shifted", f"{event.job}, whose wait had begun")
        elif event.by == 0 and event.due_at - event.waits_from != job.due_at - job.waits_from:
            self.fail(event, "shifted", f"{event.job} waits for another time than before")
        elif event.by and event.at - self.unshifted_at > UNSURE:
            end = virtual(event, event.due_at)
            over = min(job.ends) <= event.at  # the wall jumped while it was decided: it may start in any case
            overtaken = sum(jump.by for jump in self.jumps if jump.by > 0 and event.at - jump.at < AGREEING)
            early = not over and end < min(job.ends) - AGREEING - self.unnoticed(job) - overtaken
            if early or end > max(job.ends) + max(event.by, 0) / 1000 + AGREEING:
                text = f"{event.job} was to start at {min(job.ends):.3f} to {max(job.ends):.3f} s"
                self.fail(event, "shifted", f"{text}, now at {end:.3f}")
            job.shifts += 1
            if job.shifts > sum(jump.at > job.began - NOTICE for jump in self.jumps):
                self.fail(event, "shifted", f"{event.job} was shifted more often than the clock")
        job.wait(event.due_at, event.waits_from, virtual(event, event.due_at))

    def unnoticed(self, job: JobState) -> float:
        """Return the seconds of steps back that may be noticed together with one in this wait.

        They came just before it began, and cannot be told from the other.
        """
        before = [jump.by for jump in self.jumps[: job.jumps_before] if job.began - jump.at < NOTICE]
        return -sum(by for by in before if by < 0) if len(self.jumps) > job.jumps_before else 0.0

    def see_claimed(self, event: Claimed) -> None:
        job = self.job(event.job)
        if job.claim is not None:
            self.fail(event, "claimed twice", f"{event.job} is held by claim {job.claim.fence}")
        if len(job.completed) >= len(job.stored):
            self.fail(event, "ghost", f"{event.job} was claimed after its end")
        if job.revoked is not None:
            self.fail(event, "cancelled", f"{event.job} was claimed after it was cancelled")
        if job.waits_for_turn:
            self.fail(event, "turn", f"{event.job} was claimed while it waited for its turn")
        if event.fence <= max(job.fences, default=0):
            self.fail(event, "fence", f"claim {event.fence} of {event.job} is not newer than the last")
        if event.now < job.due_at:
            self.fail(event, "early", f"{event.job} was claimed {job.due_at - event.now} ms early")
        if event.attempt != job.attempt + 1:
            self.fail(event, "attempts", f"{event.job} came as attempt {event.attempt} after {job.attempt}")
        if event.crashes != job.crashes:
            self.fail(event, "crashes", f"{event.job} was claimed with {event.crashes} crashes")
        job.claim = event
        job.fences.add(event.fence)

    def see_marked(self, event: Marked) -> None:
        if self.members.dead(event.owner):
            return
        job = self.job(event.job)
        claim = job.claim
        held = claim is not None and claim.fence == event.fence and claim.owner == event.owner
        if not held and event.fence not in job.lapsed:
            self.fail(event, "mark", f"{event.job} is put down under claim {event.fence}, which it has not")
        job.marks[event.fence] = event

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
        mark = job.marks.get(event.fence)
        if mark is None or mark.at != event.at:
            self.fail(event, "mark", f"{event.job} starts under claim {event.fence} and was not put down")
        for fence, other in job.running.items():
            if other.client == event.client:
                self.fail(event, "overlap", f"{event.job} runs beside itself in {event.client}")
            elif fence not in job.lapsed | job.over:
                self.fail(event, "overlap", f"{event.job} runs in {event.client} beside {other.client}")
        went_back = claim is not None and self.back_at >= claim.at - 1
        if held and event.wall < job.due_at and not went_back:
            self.fail(event, "early", f"{event.job} started {job.due_at - event.wall} ms early")
        if self.heeded(job, event.client, event.at - (0.0 if event.willing else THREADED)):
            self.fail(event, "cancelled", f"{event.job} started long after it was cancelled")
        if job.stored and event.attempt > job.stored[-1].max_attempts:
            self.fail(event, "attempts", f"{event.job} runs for the {event.attempt}th time")
        if claim is not None and claim.crashes >= job.max_crashes:
            self.fail(event, "crashes", f"{event.job} runs after {claim.crashes} crashes")
        run = job.runs[event.fence] = Run(event)
        run.last_chance = claim is not None and 0 < claim.crashes >= job.max_crashes - 1
        job.running[event.fence] = event
        self.beside(event, run)

    def heeded(self, job: JobState, client: str, at: float, *, since: float = 0.0) -> bool:
        """Return whether a client must have heeded by now that a job is to be cancelled."""
        return job.revoked is not None and self.hearing.heeds(client, max(job.told_at, since), at)

    def beside(self, event: Started, run: Run) -> None:
        """Count what runs in the same client and process; a job with its last chance runs alone.

        One that has outlived its client's stop holds up the next life of that client no more.
        """
        others = [
            other_job.runs[fence]
            for other_job in self.jobs.values()
            for fence, other in other_job.running.items()
            if other.client == event.client and other is not event
        ]
        at_once = 1 + sum(other.started.life == event.life for other in others)
        if at_once > event.workers:
            self.fail(event, "crowd", f"{at_once} jobs run at once in {event.client}")
        for other in others:
            if run.last_chance or (other.last_chance and other.started.life == event.life):
                which = "which has" if run.last_chance else "beside one that has"
                text = f"{event.job}, {which} its last chance, starts beside {other.started.job}"
                self.fail(event, "beside", text)

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
        began = run.started.at
        claimed = job.claim is not None and job.claim.fence == event.fence
        if run.started.willing and claimed and self.heeded(job, event.client, event.at, since=began):
            self.fail(event, "cancelled", f"{event.job} ran on for {event.at - job.told_at:.3f} s and more")
        limit = self.timeout(job)
        if run.started.willing and claimed and limit is not None and event.at - began > limit + OVERTIME:
            self.fail(event, "timeout", f"{event.job} ran for {event.at - began:.3f} s, not {limit:g}")

    def timeout(self, job: JobState) -> float | None:
        """Return the seconds that an attempt of a job may take."""
        rule, own = self.rules.get(job.kind[0]), job.stored[-1].timeout if job.stored else None
        return own if own is not None or rule is None else rule.timeout

    def cut_off(self, job: JobState, run: Run, ended: Ended) -> bool:
        """Return whether it can only have been the cancellation of its job that ended a handler."""
        limit = self.timeout(job)
        in_time = limit is None or ended.at - run.started.at < limit - 1e-3
        return run.started.willing and ended.how == "cancelled" and in_time

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
        elif claim.owner == event.owner:
            self.concluded(event, job, claim)
        elif event.lapse:
            self.lapsed(event, job, claim)
        else:
            self.taken_over(event, job, claim)
        job.attempt, job.crashes = event.attempt, event.crashes
        if event.within:
            job.over.add(event.fence)  # its handler may go on while an id of its own is used again
        if event.status is JobStatus.PENDING:
            assert event.due_at is not None
            self.waits(event, job)
            return
        rule = self.rules.get(job.kind[0])
        keeps = rule is not None and (rule.keeps or event.watched)
        as_ruled = rule is None or job.flow is not None or event.keep is keeps
        as_ruled |= event.keep and event.client in job.awaited  # it has only not yet said so to the store
        if event.status is JobStatus.CANCELLED and not as_ruled:
            self.fail(event, "retention", f"{event.job}, cancelled, is kept: {event.keep}")
        job.completed.append(event)
        if len(job.completed) > len(job.stored):
            self.fail(event, "completed twice", f"{event.job} was completed {len(job.completed)} times")

    def taken_over(self, event: Written, job: JobState, claim: Claimed) -> None:
        """The claim's owner has died, and another releases it: a crash counts if the job had started."""
        if not self.members.dead(claim.owner):
            self.fail(event, "stale", f"{event.client} wrote an outcome for {claim.client}'s {event.job}")
        self.released(event, job, claim, crashed=self.had_started(event, job, claim))

    def lapsed(self, event: Written, job: JobState, claim: Claimed) -> None:
        """A claim was ended because its lease had: its owner is dead, or could not renew it."""
        dead, seen = self.members.dead(claim.owner), self.members.seen(claim.owner)
        if not dead:
            self.lost_by_the_living(event, claim)
            job.lapsed.add(claim.fence)
        crashed = not (dead and seen) or self.had_started(event, job, claim)
        self.released(event, job, claim, crashed=crashed)

    def lost_by_the_living(self, event: Written, claim: Claimed) -> None:
        """The owner must have had trouble; and, where others see that it lives, a beat to renew in.

        Within one process it is known what it holds: there the end of the lease is enough.
        """
        owner = claim.client
        seen = self.members.seen(claim.owner) and event.client != owner
        beat = self.members.beat(claim.owner)
        troubled = self.trouble.get(owner, float("-inf")) >= claim.at
        if not seen:
            troubled |= self.jumped_at >= claim.at - 1  # a lease begins before its claim
        if not troubled:
            self.fail(event, "extra", f"claim {claim.fence} of {event.job} by {owner} lapsed without a cause")
        if not seen:
            return
        since = self.wall.passed(event.lease_end, event.at)
        if self.back_at > event.at - 2 * beat:  # nobody may have looked until the wall showed it once more
            since = min(since, self.wall.first_shown(event.lease_end, claim.at))
        if event.at - since < beat - 1e-6:
            waited = f"{event.at - since:.3f} s after its lease, not {beat:.3f}"
            self.fail(event, "hasty", f"{event.job} was taken from {owner} {waited}")
        if self.wall.longest_outage(event.at - beat, event.at) > STEADY * beat + 1.0:
            self.fail(event, "hasty", f"{event.job} was taken from {owner}, when nobody could write")

    def had_started(self, event: Written, job: JobState, claim: Claimed) -> bool:
        """Return whether the job's handler had started under this claim, as was put down."""
        mark = job.marks.get(claim.fence)
        if mark is None:
            return False
        if claim.fence not in job.runs and self.members.ended_at(claim.owner) > mark.at:
            self.fail(event, "mark", f"{event.job} was put down under claim {claim.fence}, and did not start")
        return True

    def released(self, event: Written, job: JobState, claim: Claimed, *, crashed: bool) -> None:
        """The attempt was given back, and a crash counted or not; at the limit the job has failed."""
        if event.crashes != claim.crashes + crashed or event.attempt != claim.attempt - 1:
            how = "had" if crashed else "had not"
            self.fail(event, "crashes", f"{event.job} {how} started, {event.crashes} crashes were counted")
        last = crashed and event.crashes >= job.max_crashes
        failed = event.status is JobStatus.FAILED
        if failed is not last and not (last and self.may_not_know(event, job)):
            self.fail(event, "crashes", f"{event.job} is {event.status} after {event.crashes} crashes")
        expected = JobStatus.PENDING if job.revoked is None else JobStatus.CANCELLED
        if not failed and event.status is not expected:
            self.fail(event, "cancelled", f"{event.job} was released, and is {event.status}")
        moved = job.had_turn and self.back_at > job.stored[-1].at  # what waits for its turn is not shifted
        place = max(job.due_at, job.meant) if job.had_turn else job.due_at
        if event.due_at is not None and event.due_at > place and not moved:
            self.fail(event, "place", f"{event.job} was released, and lost its place")

    def may_not_know(self, event: Written, job: JobState) -> bool:
        """Return whether who wrote it had no handler when it was decided, and so no limit."""
        since = self.known.get((event.client, job.kind), float("inf"))
        return event.at - since < AGREEING

    def concluded(self, event: Written, job: JobState, claim: Claimed) -> None:
        """An outcome of the claim's own owner: it must be what follows from how the handler ended."""
        run = job.runs.get(claim.fence)
        if event.lapse:
            self.fail(event, "stale", f"{event.client} took {event.job} from itself")
        if event.status is JobStatus.CANCELLED and job.revoked is None:
            self.fail(event, "cancelled", f"{event.job} became cancelled, and nobody asked for that")
        if event.status is JobStatus.PENDING and job.revoked is not None:
            self.fail(event, "cancelled", f"{event.job} is to run again after it was cancelled")
        if run is None:
            given_back = event.status is JobStatus.PENDING and event.attempt == claim.attempt - 1
            if event.status is JobStatus.CANCELLED:
                given_back = event.attempt in (claim.attempt - 1, claim.attempt)
            too_many = claim.attempt > job.stored[-1].max_attempts or claim.crashes >= job.max_crashes
            if not (given_back or (event.status is JobStatus.FAILED and too_many)):
                self.fail(event, "lost", f"{event.job} became {event.status} without having run")
            if event.crashes != claim.crashes:
                self.fail(event, "crashes", f"{event.job}: {event.crashes} crashes without having run")
            return
        if event.within and event.status is JobStatus.SUCCEEDED and run.ended is None:
            return
        if run.ended is None:
            self.fail(event, "outcome", f"{event.job} became {event.status} while it ran")
            return
        stopping = (claim.client, run.started.life) in self.stopping
        attempts = job.stored[-1].max_attempts
        if job.revoked is None:
            right = follows(event, run.ended, attempts, claim, stopping=stopping)
        else:
            heeded = self.heeded(job, claim.client, run.ended.at, since=run.started.at)
            heeded |= not stopping and self.cut_off(job, run, run.ended)
            right = follows_cancelled(event, run.ended, attempts, claim, heeded=heeded, stopping=stopping)
        if not right:
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
        if not job.completed or len(job.stored) > 1 or job.flow is not None:
            return  # `finish` says so; a job without a record can be added again, by a repeated save
        last = job.completed[-1]
        ended = last.status if isinstance(last, Written) else JobStatus.CANCELLED
        gone = not last.keep or (last.until is not None and last.until <= event.wall)
        if last.until is not None and (
            self.jumped_at > last.at or abs(last.until - event.wall) < self.asking
        ):
            return  # it may have expired before the wall went back
        expected = JobStatus.NOT_FOUND if gone else ended
        if event.status is not expected:
            self.fail(event, "retention", f"{event.job} ended {ended}, is shown as {event.status}")

    def finish(self) -> None:
        for name, job in self.jobs.items():
            if job.acknowledged and not job.stored:
                self.found.append(f"lost: {name} was acknowledged, but never stored")
            if len(job.completed) < len(job.stored):
                self.found.append(f"lost: {name} never ended")
            if job.running:
                self.found.append(f"endless: {name} is still running")


def check(events: Sequence[Event], *, latency: float = 0.0) -> list[str]:
    """Return what is wrong with a history that has come to its end; nothing if it is as promised.

    `latency`: seconds that a way to or from the store may take.
    """
    events = [event for event in events if not isinstance(event, Logged)]
    checker = _Checker(latency)
    for event in events:
        checker.see(event)
    checker.finish()
    return [
        *checker.found,
        *check_recovery(events, latency=latency),
        *check_alone(events, latency=latency),
        *check_limits(events, latency=latency),
        *check_uniques(events),
        *check_priority(events),
        *check_service(events, latency=latency),
        *check_flows(events),
    ]
