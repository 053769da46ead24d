"""Whether jobs start as soon as they are due and a worker is free, and in their order."""

from __future__ import annotations

from collections.abc import Sequence

from .history import Claimed, Ended, Event, Jumped, Shifted, Started, Stored, Written

__all__ = ["NOTICE", "UNSURE", "check_order", "check_prompt"]

NOTICE = 45.0
"""Seconds within which a client notices that the wall clock was moved."""


UNSURE = 60.0
"""Seconds within which it cannot be told if a wait began before a step of the clock or after it."""


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


def check_prompt(events: Sequence[Event], *, workers: int, within: float) -> list[str]:
    """Return where a due job waited longer than `within` although a worker was free, and nothing started.

    For one client with all handlers, without faults. After a jump of the wall it may take a look
    around until that is noticed.
    """
    found: list[str] = []
    waiting: dict[str, _Wait] = {}
    running: set[str] = set()
    jumps: list[Jumped] = []
    moved_at = float("-inf")  # when a place became free, or a job took one: then all others wait anew
    for event in events:
        match event:
            case Stored():
                waiting[event.job] = _Wait(event, event.due_at, event.waits_from, jumps)
            case Jumped():
                jumps.append(event)
                for wait in waiting.values():
                    wait.jumped(event)
            case Started():
                wait = waiting.pop(event.job)
                waited = event.at - max(wait.meant + wait.late, wait.noticed, moved_at)
                if waited > within:
                    found.append(f"idle: {event.job} waited {waited:.6f} s (until {event.at:.6f} s)")
                running.add(event.job)
                moved_at = event.at
            case Ended():
                if len(running) >= workers:
                    moved_at = event.at
                running.discard(event.job)
            case Written() if event.due_at is not None:
                waiting[event.job] = _Wait(event, event.due_at, event.waits_from, jumps)
            case _:
                pass
    return found


def _instant(event: Event, wall: int) -> float:
    """Return a wall time as virtual time; right as long as the wall does not jump."""
    return event.at + (wall - event.wall) / 1000


def check_order(events: Sequence[Event]) -> list[str]:
    """Return where a job was claimed before one that had been due for longer.

    For one client with one worker, without faults.
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
            case Shifted():
                waiting[event.job] = (event.due_at, numbers[event.job])
            case Claimed():
                mine = waiting.pop(event.job)
                better = [job for job, order in waiting.items() if order < mine]
                if better:
                    found.append(f"order: {event.job} was claimed before {better} (at {event.at:.6f} s)")
            case _:
                pass
    return found
