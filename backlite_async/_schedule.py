"""When schedules are due: what their arguments mean, and which instants follow from that."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from ._recurring import Timing

__all__ = ["jitter", "last_of", "next_after", "occurrences", "preview", "timing", "words"]


def timing(
    *,
    now: int,
    cron: str | None = None,
    every: float | timedelta | None = None,
    rule: object = None,
    at: Iterable[datetime] | None = None,
    tz: str = "UTC",
    start: datetime | None = None,
    end: datetime | None = None,
) -> Timing:
    """Check what was said of a schedule, and return it as plain data.

    `now` becomes the anchor, from which intervals and rules without a start are counted. It is no part
    of what was said: two timings say the same if they are equal but for their anchors.
    """
    raise NotImplementedError


def next_after(timing: Timing, instant: int) -> int | None:
    """Return the first instant that is due strictly after `instant`; None: there is none."""
    raise NotImplementedError


def occurrences(timing: Timing, after: int, until: int, most: int) -> list[int]:
    """Return the first `most` instants that are due after `after`, up to and including `until`."""
    raise NotImplementedError


def last_of(timing: Timing, after: int, until: int) -> int | None:
    """Return the last instant that is due after `after`, up to and including `until`; None: there is none."""
    raise NotImplementedError


def preview(timing: Timing, after: int, n: int) -> list[datetime]:
    """Return the next `n` times that are due after an instant, in the schedule's time zone."""
    raise NotImplementedError


def words(timing: Timing) -> str:
    """Say in plain English when a schedule is due."""
    raise NotImplementedError


def jitter(job_id: str, most: int) -> int:
    """Return how many milliseconds later a run starts, from 0 to `most`: the same for a job on every machine."""
    raise NotImplementedError
