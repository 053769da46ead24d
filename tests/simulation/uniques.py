"""Whether unique jobs are the only ones, and whether an add that found one found the right one."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from backlite_async import JobStatus

from .history import Acknowledged, Claimed, Event, Found, Replaced, Revoked, Steered, Stored, Written

__all__ = ["check_uniques"]


class _Known(msgspec.Struct):
    """A job: whether it is pending or running, and until when it is kept once it has ended."""

    created_at: int
    live: bool = True
    claimed: bool = False
    kept: bool = False
    until: int | None = None


class _Uniques:
    def __init__(self) -> None:
        self.found: list[str] = []
        self.jobs: dict[str, _Known] = {}
        self.last: dict[tuple[str, str], Stored] = {}
        self.to_be_replaced: Found | None = None

    def fail(self, event: Event, text: str) -> None:
        self.found.append(f"unique: {text} (at {event.at:.6f} s)")

    def see(self, event: Event) -> None:
        expected, self.to_be_replaced = self.to_be_replaced, None
        if expected is not None and not (isinstance(event, Replaced) and event.job == expected.job):
            self.fail(expected, f"{expected.job} is pending, and was not replaced")
        match event:
            case Stored():
                self.see_stored(event)
            case Found():
                self.see_found(event)
            case Replaced():
                known = self.jobs.get(event.job)
                if expected is None or known is None or not known.live or known.claimed:
                    self.fail(event, f"{event.job} was replaced, though it is not pending, or not to be")
            case Claimed() if event.job in self.jobs:
                self.jobs[event.job].claimed = True
            case Written(accepted=True):
                self.ended(event)
            case Revoked(ended=True):
                self.ended(event)
            case Steered() if event.job in self.jobs:
                self.see_steered(event)
            case Acknowledged() if event.job not in self.jobs:
                self.fail(event, f"save() returned {event.job}, which was never there")
            case _:
                pass

    def ended(self, event: Written | Revoked) -> None:
        known = self.jobs.get(event.job)
        if known is None:
            return
        known.claimed = False
        if isinstance(event, Revoked) or event.status is not JobStatus.PENDING:
            known.live, known.kept, known.until = False, event.keep, event.until

    def see_steered(self, event: Steered) -> None:
        known = self.jobs[event.job]
        known.claimed = False
        known.live = event.how != "delete"
        if event.how == "delete":  # and what remembers it as the last one with its key
            known.kept = False
            self.last = {place: last for place, last in self.last.items() if last.job != event.job}

    def see_stored(self, event: Stored) -> None:
        if event.unique is not None:
            place = event.kind[0], event.unique
            last = self.last.get(place)
            if last is not None and self.keeps_out(last, event.within, event.now):
                which = "is there" if self.jobs[last.job].live else "was added so short a time ago"
                self.fail(event, f"{event.job} was stored, though {last.job}, with {event.unique!r}, {which}")
            self.last[place] = event
        self.jobs[event.job] = _Known(created_at=event.created_at)

    def keeps_out(self, last: Stored, within: int | None, now: int) -> bool:
        known = self.jobs[last.job]
        if known.live and known.created_at == last.created_at:  # else another has got its id
            return True
        lasts = last.created_at + (last.within or 0) > now
        return within is not None and last.created_at > now - within and lasts

    def see_found(self, event: Found) -> None:
        known = self.jobs.get(event.job)
        if known is None:
            self.fail(event, f"{event.job} was found, which was never there")
            return
        last = None if event.unique is None else self.last.get((event.kind[0], event.unique))
        by_key = last is not None and last.job == event.job and self.keeps_out(last, event.within, event.now)
        kept = known.kept and (known.until is None or known.until > event.now)
        if not (by_key or (event.own is not None and (known.live or kept))):
            self.fail(event, f"{event.job} was found to be in the way, and is not")
        if event.replace and known.live and not known.claimed:
            self.to_be_replaced = event


def check_uniques(events: Sequence[Event]) -> list[str]:
    """Return where two jobs were there of which each was to be the only one."""
    uniques = _Uniques()
    for event in events:
        uniques.see(event)
    return uniques.found
