"""Which jobs are meant by the fields of a form or a URL, and the same in words. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from .. import JobStatus
from ._forms import BadRequest, Fields
from ._times import full

__all__ = ["FIELDS", "STATES", "Asked", "asked", "moment", "wait_of"]

STATES = ("running", "pending", "succeeded", "failed", "cancelled")
"""The states of a job, in the order of a list."""

ENDED = frozenset({"succeeded", "failed", "cancelled"})
"""The states of jobs that have ended."""

SCHEDULED = "scheduled"
"""Not a state: those pending that are not due yet."""

_MOMENT = timedelta(milliseconds=1)

NAMES = ("queue", "task", "tag", "key", "parent", "owner", "workflow")
TIMES = ("added_after", "added_before", "due_after", "due_before", "finished_after", "finished_before")
FIELDS = ("state", *NAMES, *TIMES, "text")
"""The fields that say which jobs are meant."""

LOOKED_AT = ("tag", "key", "parent", "owner", "workflow", "text", "added_after", "added_before")
"""What no index tells, or none that tells states, too."""

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}
_PART = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s*(ms|min|s|m|h|d|w)\s*")
_SPAN = re.compile(rf"([+-]?)\s*((?:{_PART.pattern})+)")


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Which jobs are meant: `filters` for `client.jobs`, `fields` as they were sent."""

    filters: dict[str, Any]
    fields: dict[str, Any]

    @property
    def states(self) -> frozenset[str]:
        """The states that are meant."""
        return frozenset(self.filters.get("state", STATES))

    @property
    def is_looked_for(self) -> bool:
        """Whether jobs must be looked at one by one to find those that are meant."""
        return any(name in self.filters for name in LOOKED_AT)

    def narrowed(self, states: frozenset[str]) -> Asked:
        """Return what means only those in these states, maybe none."""
        return Asked(filters=self.filters | {"state": sorted(self.states & states)}, fields=self.fields)

    def frozen(self) -> list[tuple[str, str]]:
        """Return fields that mean the same jobs later on: no time is relative to now."""
        pairs = [("state", state) for state in self.filters.get("state", ())]
        for name, value in self.filters.items():
            if name != "state":
                pairs.append((name, value.isoformat() if isinstance(value, datetime) else value))
        return pairs

    def until(self, now: datetime) -> list[Asked]:
        """Return what means none that begin to match after now: that end after it, or are added after it.

        Several, where jobs that have ended are meant and others, as one that runs may end.
        """
        parts = []
        for states, name in ((ENDED, "finished_before"), (frozenset(STATES) - ENDED, "added_before")):
            if self.states & states:
                part = self.narrowed(states) if self.states - states else self
                until = min(now, self.filters.get(name, now))
                parts.append(Asked(filters=part.filters | {name: until}, fields=part.fields))
        return parts

    def words(self) -> list[str]:
        """Return what is said of the jobs, each a few words, without their states."""
        said = []
        for name in (*NAMES, *TIMES, "text"):
            value = self.filters.get(name)
            if isinstance(value, datetime):
                said.append(f"{name.replace('_', ' ')} {full(value)}")
            elif value is not None:
                said.append(f"text “{value}”" if name == "text" else f"{name} {value}")
        return said


def asked(fields: Fields, now: datetime) -> Asked:
    """Return which jobs are meant; times may be durations such as "2h", from now.

    Those of what has been are back from now, that of what is due ahead, if no sign says otherwise.
    """
    sent: dict[str, Any] = {}
    filters: dict[str, Any] = {}
    states = fields.all("state")
    if states == [SCHEDULED]:
        sent["state"], filters["state"], filters["due_after"] = states, [JobStatus.PENDING], now + _MOMENT
    elif states:
        for state in states:
            if state not in STATES:
                raise BadRequest(
                    f"state={state[:40]!r} is none of: {', '.join(STATES)}; or {SCHEDULED} alone"
                )
        sent["state"], filters["state"] = states, [JobStatus(state) for state in states]
    for name in (*NAMES, "text"):
        if value := fields.raw(name):
            sent[name] = filters[name] = value
    for name in TIMES:
        if value := fields.get(name):
            sent[name], instant = value, moment(name, value, now, back=not name.startswith("due"))
            filters[name] = max(instant, filters.get(name, instant))
    return Asked(filters=filters, fields=sent)


def moment(name: str, text: str, now: datetime, *, back: bool = False) -> datetime:
    """Return the instant that is meant by "2h", back from now or ahead, or by "2026-03-01 14:00" in UTC."""
    try:
        if (length := span_of(text)) is not None:
            sign = text.lstrip()[:1]
            return now - length if sign == "-" or (back and sign != "+") else now + length
        instant = datetime.fromisoformat(text[:40])
        aware = instant if instant.tzinfo is not None else instant.replace(tzinfo=UTC)
        return aware.astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadRequest(
            f"{name}={text[:40]!r} is no time; write one as 2026-03-01 14:00, in UTC, or how far from now:"
            " 30m, 2h, 7d"
        ) from None


def span_of(text: str) -> timedelta | None:
    """Return the length of "2h" or "1h 30m", without its sign; None where it is none."""
    found = _SPAN.fullmatch(text.strip().lower()) if len(text) <= 60 else None
    if found is None:
        return None
    return timedelta(seconds=sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(found[2])))


def wait_of(fields: Fields, now: datetime) -> dict[str, Any]:
    """Return what to reschedule jobs to: `wait`, or `at`, an instant; raises where nothing is said."""
    text = fields.get("at") or fields.get("wait")
    if not text:
        raise BadRequest(
            "say when: after a wait such as 10m or 2h, or at a time such as 2026-03-01 14:00, in UTC"
        )
    try:
        if (length := span_of(text)) is not None and not text.startswith("-"):
            return {"wait": length}
    except OverflowError:
        pass
    if text.startswith("-"):
        raise BadRequest(f"wait={text[:40]!r} is no wait; “run now” lets a job be due at once")
    return {"at": moment("wait", text, now)}
