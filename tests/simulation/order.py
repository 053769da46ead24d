"""Whether jobs start as soon as they are due and a worker is free, and in their order."""

from __future__ import annotations

from collections.abc import Sequence

from .history import (
    Claimed,
    Ended,
    Event,
    Jumped,
    Paused,
    Replaced,
    Resumed,
    Revoked,
    Ruled,
    Shifted,
    Started,
    Steered,
    Stored,
    Turned,
    Written,
)

__all__ = ["MARGIN", "NOTICE", "UNSURE", "check_order", "check_priority", "check_prompt"]

NOTICE = 45.0
"""Seconds within which a client notices that the wall clock was moved."""


UNSURE = 60.0
"""Seconds within which it cannot be told if a wait began before a step of the clock or after it."""


MARGIN = 0.02
"""Seconds by which the windows of a rate are longer than asked."""

RESUMING = 1.0
"""Seconds after which a queue that was resumed is claimed like any other."""


class _Wait:
    """A job that waits: since when, until when by the wall, and whether for a while or for an instant.

    `late`: seconds by which it may end late, as it cannot be told whether it began before a step.
    """

    def __init__(self, event: Event, due_at: int, waits_from: int | None, jumps: list[Jumped]) -> None:
        self.began = event.at
        self.due_at = due_at
        self.relative = waits_from is not None
        self.meant = max(event.at, _instant(event, due_at))
        self.noticed = self.late = 0.0
        for jump in jumps:
            if event.at - jump.at < NOTICE:
                self.doubt(jump)

    def jumped(self, event: Jumped) -> None:
        """A wait for a while is over when it was meant to be; one for an instant when the wall shows it."""
        self.doubt(event)
        if not self.relative:
            self.meant = max(event.at, _instant(event, self.due_at))

    def doubt(self, jump: Jumped) -> None:
        """Make allowance for a jump, just before the wait or in it."""
        self.noticed = jump.at + NOTICE
        if self.relative and -NOTICE - 1 <= jump.at - self.began - abs(jump.by) <= UNSURE:
            self.late += abs(jump.by)


def is_limited(rule: Ruled) -> bool:
    """Return whether anything but a pause keeps jobs of a queue from running."""
    return any(limit is not None for limit in (rule.here, rule.in_all, rule.per_key, rule.rate))


class _Prompt:
    """Which jobs wait, and since when each of them could have started."""

    def __init__(self, workers: int, within: float) -> None:
        self.found: list[str] = []
        self.workers = workers
        self.within = within
        self.rules: dict[str, Ruled] = {}
        self.queues: dict[str, str] = {}
        self.waiting: dict[str, _Wait] = {}
        self.running: set[str] = set()
        self.jumps: list[Jumped] = []
        self.starts: dict[str, list[float]] = {}
        # When a place became free, or a job took one: then all others wait anew. The same for each queue.
        self.moved_at = float("-inf")
        self.queue_moved_at: dict[str, float] = {}

    def see(self, event: Event) -> None:  # noqa: PLR0912 - a case for each kind of event
        match event:
            case Ruled():
                self.rules[event.queue] = event
            case Stored(blocked=True):
                self.queues[event.job] = event.kind[0]
            case Turned(flow=True, due_at=None):
                self.waiting.pop(event.job, None)
            case Turned(flow=True):
                self.wait(event, event.due_at or 0, event.waits_from)
            case Stored() | Replaced():
                self.queues[event.job] = event.kind[0]
                self.wait(event, event.due_at, event.waits_from)
            case Jumped():
                self.jumps.append(event)
                for wait in self.waiting.values():
                    wait.jumped(event)
            case Started():
                self.see_started(event)
            case Ended():
                if len(self.running) >= self.workers:
                    self.moved_at = event.at
                self.running.discard(event.job)
                self.queue_moved(event)
            case Steered():
                self.see_steered(event)
            case Written() | Revoked(ended=True):
                self.queue_moved(event)
                self.waiting.pop(event.job, None)
                if isinstance(event, Written) and event.due_at is not None:
                    self.wait(event, event.due_at, event.waits_from)
            case Resumed():
                self.queue_moved_at[event.queue] = event.at
            case _:
                pass

    def see_steered(self, event: Steered) -> None:
        self.queue_moved(event)
        if event.how == "delete":
            self.waiting.pop(event.job, None)
        elif event.job not in self.waiting or (event.how != "edit" and event.due_at is not None):
            self.wait(event, event.now if event.due_at is None else event.due_at, event.waits_from)

    def queue_moved(self, event: Ended | Written | Revoked | Steered) -> None:
        """Where a queue is limited, the end of a job may have made room for another."""
        rule = self.rules.get(self.queues[event.job])
        if rule is not None and is_limited(rule):
            self.queue_moved_at[rule.queue] = event.at

    def wait(self, event: Event, due_at: int, waits_from: int | None) -> None:
        assert isinstance(event, (Stored, Replaced, Turned, Written, Steered))
        self.waiting[event.job] = _Wait(event, due_at, waits_from, self.jumps)

    def see_started(self, event: Started) -> None:
        queue = self.queues[event.job]
        wait = self.waiting.pop(event.job, None)
        if wait is None:  # a step whose turn it was not when it was unblocked
            wait = _Wait(event, event.wall, None, [])
        since = max(wait.meant + wait.late, wait.noticed, self.moved_at, self.queue_since(queue))
        if event.at - since > self.within:
            self.found.append(f"idle: {event.job} waited {event.at - since:.6f} s (until {event.at:.6f} s)")
        self.running.add(event.job)
        self.moved_at = event.at
        self.starts.setdefault(queue, []).append(event.at)

    def queue_since(self, queue: str) -> float:
        """Return since when its queue has room for a job, as far as that can be told."""
        since = self.queue_moved_at.get(queue, float("-inf"))
        rule = self.rules.get(queue)
        if rule is None or rule.rate is None:
            return since
        if self.jumps:
            return float("inf")
        starts = self.starts.get(queue, [])
        count, per = rule.rate
        return since if len(starts) < count else max(since, starts[-count] + per + MARGIN)


def check_prompt(events: Sequence[Event], *, workers: int, within: float) -> list[str]:
    """Return where a due job waited longer than `within` although a worker was free, and nothing started.

    For one client with all handlers, without faults. After a jump of the wall it may take a look
    around until that is noticed. Where a queue is limited, a job may also wait until one of that queue
    has ended, its rate permits it, or it is resumed.
    """
    prompt = _Prompt(workers, within)
    for event in events:
        prompt.see(event)
    return prompt.found


def _instant(event: Event, wall: int) -> float:
    """Return a wall time as virtual time; right as long as the wall does not jump."""
    return event.at + (wall - event.wall) / 1000


class _Waiting:
    """The jobs that can be claimed once they are due, by kind, each with its place in the order."""

    def __init__(self) -> None:
        self.of_kind: dict[tuple[str, str], dict[str, tuple[int, int, int]]] = {}
        self._kinds: dict[str, tuple[str, str]] = {}
        self._priorities: dict[str, int] = {}
        self._numbers: dict[str, int] = {}

    def see(self, number: int, event: Event) -> None:
        """Take note of whatever changes who waits, but claims."""
        match event:
            case Stored():
                self._numbers[event.job], self._priorities[event.job] = number, event.priority
                self._kinds[event.job] = event.kind
                if not event.blocked:
                    self._put(event.job, event.kind, event.due_at)
            case Replaced():
                self.take(event.job)
                self._put(event.job, event.kind, event.due_at)
            case Turned(due_at=None):
                self.take(event.job)
            case Shifted() | Turned():
                assert event.due_at is not None
                self._put(event.job, self._kinds[event.job], event.due_at)
            case Written() if event.accepted and event.due_at is not None:
                self._put(event.job, self._kinds[event.job], event.due_at)
            case Steered(how="edit"):
                pass
            case Steered():
                self._steered(number, event)
            case Revoked(ended=True):
                self.take(event.job)
            case _:
                pass

    def _steered(self, number: int, event: Steered) -> None:
        self.take(event.job)
        if event.was == "completed":
            self._numbers[event.job] = number
        if event.due_at is not None:
            self._put(event.job, self._kinds[event.job], event.due_at)

    def _put(self, job: str, kind: tuple[str, str], due_at: int) -> None:
        self._kinds[job] = kind
        self.of_kind.setdefault(kind, {})[job] = -self._priorities[job], due_at, self._numbers[job]

    def take(self, job: str) -> tuple[int, int, int] | None:
        """Return the place of a job that waits no longer."""
        return self.of_kind.get(self._kinds.get(job, ("", "")), {}).pop(job, None)

    def kind(self, job: str) -> tuple[str, str]:
        """Return the kind of a job."""
        return self._kinds.get(job, ("", ""))


def _fail(event: Claimed, better: list[str]) -> str:
    return f"order: {event.job} was claimed before {better} (at {event.at:.6f} s)"


def check_priority(events: Sequence[Event]) -> list[str]:
    """Return where a job was claimed before a better one of its kind: what keeps one, keeps the other.

    Better is a higher priority, then to be due for longer, then to have been added before.
    """
    found: list[str] = []
    waiting = _Waiting()
    for number, event in enumerate(events):
        if not isinstance(event, Claimed):
            waiting.see(number, event)
            continue
        mine = waiting.take(event.job)
        others = waiting.of_kind.get(waiting.kind(event.job), {})
        if mine is not None and others:
            better = [job for job, place in others.items() if place < mine and place[1] <= event.now]
            if better:
                found.append(_fail(event, better))
    return found


def check_order(events: Sequence[Event]) -> list[str]:
    """Return where a job was claimed before a better one of another kind, which nothing kept.

    For one client, without faults, and for jobs of queues without limits that are not paused.
    """
    found: list[str] = []
    waiting = _Waiting()
    limited: set[str] = set()
    resumed: dict[str, float] = {}
    for number, event in enumerate(events):
        waiting.see(number, event)
        match event:
            case Ruled() if is_limited(event):
                limited.add(event.queue)
            case Paused():
                resumed[event.queue] = float("inf")
            case Resumed():
                resumed[event.queue] = event.at
            case Claimed():
                mine = waiting.take(event.job)
                kept = limited | {queue for queue, at in resumed.items() if at > event.at - RESUMING}
                better = [
                    job
                    for kind, others in waiting.of_kind.items()
                    if kind[0] not in kept
                    for job, place in others.items()
                    if mine is not None and place < mine and place[1] <= event.now
                ]
                if better:
                    found.append(_fail(event, better))
            case _:
                pass
    return found
