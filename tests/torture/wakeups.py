"""Counts what wakes an idle process, from what strace has seen of all its threads."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import inf

__all__ = ["STRACE", "Call", "Wakes", "calls", "wakes"]

EPOLLS = ("epoll_wait", "epoll_pwait", "epoll_pwait2")

STRACE = ["strace", "-f", "-ttt", "-T", "-e", f"raw={','.join(EPOLLS)}", "-o"]
"""The command, to be followed by the file that `calls` reads. Raw: a call's limit is seen before its end."""

BURST = 0.5
"""Seconds that one burst of activity may last: what goes on for longer counts again."""

STEP = 0.01
"""Seconds: threads that want the interpreter wait for each other in steps of half of that."""

_LINE = re.compile(r"(\d+)\s+(\d+\.\d+) (.*)")
_RESUMED = re.compile(r"<\.\.\. (\w+) resumed>(.*)")
_CALL = re.compile(r"(\w+)\((.*)")
_RESULT = re.compile(r"(.*)\) += (.*?)(?: <(\d+\.\d+)>)?$")
_SPAN = re.compile(r"tv_sec=(\d+), tv_([nu])sec=(\d+)")


@dataclass
class Call:
    """One system call of one thread: when it began and ended (never: infinity), in wall time."""

    thread: int
    name: str
    arguments: str
    began: float
    ended: float = inf
    result: str = ""

    def limit(self, monotonic: float) -> float:
        """Return the seconds that it may wait; infinity: for ever. `monotonic`: wall minus monotonic time."""
        if self.name in EPOLLS:
            millis = int(self.arguments.split(", ")[3].rstrip(")"), 16) & 0xFFFF_FFFF
            return inf if millis >> 31 else millis / 1000
        if self.name == "poll":
            millis = int(self.arguments.rsplit(", ", 1)[1])
            return inf if millis < 0 else millis / 1000
        waits = (
            "sleep" in self.name or "select" in self.name or self.name == "ppoll" or "_WAIT" in self.arguments
        )
        span = _SPAN.search(self.arguments) if waits else None
        if span is None:
            return inf
        seconds = int(span[1]) + int(span[3]) / (1e9 if span[2] == "n" else 1e6)
        if "_BITSET" in self.arguments or "TIMER_ABSTIME" in self.arguments:  # an instant
            seconds -= self.began - (0.0 if "CLOCK_REALTIME" in self.arguments else monotonic)
        return max(0.0, seconds)

    @property
    def expired(self) -> bool:
        """Whether it ended because its time was up, after having waited at all."""
        if self.name in EPOLLS:
            return self.result.split(" ")[0] == "0" and self.limit(0.0) > 0
        if self.name == "futex":
            return "ETIMEDOUT" in self.result
        if self.name in ("poll", "ppoll", "select", "pselect6"):
            return "Timeout" in self.result and self.limit(0.0) > 0
        return self.name in ("nanosleep", "clock_nanosleep")


def calls(lines: Iterable[str]) -> Iterator[Call]:
    """Yield the system calls that strace has written down."""
    open_calls: dict[int, Call] = {}
    for line in lines:
        found = _LINE.match(line)
        if found is None:
            continue
        thread, at, text = int(found[1]), float(found[2]), found[3]
        if resumed := _RESUMED.match(text):
            call = open_calls.pop(thread, None)
            if call is not None:
                call.ended = at
                result = _RESULT.match(resumed[2])
                call.result = result[2] if result else ""
                yield call
        elif began := _CALL.match(text):
            rest = began[2]
            result = _RESULT.match(rest)
            if result and not rest.endswith("<unfinished ...>"):
                ended = at + float(result[3] or 0.0)
                yield Call(thread, began[1], result[1], at, ended, result[2])
            else:
                arguments = re.sub(r",? *<(unfinished|detached) \.\.\.>$", "", rest)
                open_calls[thread] = Call(thread, began[1], arguments, at)
    yield from open_calls.values()


@dataclass
class Wakes:
    """What happened in a window, and what is bound to happen after it."""

    expiries: int  # timers that ran out, each waking one thread; without the interpreter's own
    bursts: int  # times at which the process was active, for whatever reason
    armed: list[float]  # the limits of the waits at the end of the window, without those for ever

    @property
    def count(self) -> int:
        """How often the process woke up."""
        return max(self.expiries, self.bursts)

    @property
    def per_minute(self) -> float:
        """How often the waits that are under way let it wake in a minute, should they go on like that."""
        return sum(60.0 / max(limit, 0.001) for limit in self.armed)


def wakes(found: Sequence[Call], begin: float, end: float, *, monotonic: float) -> Wakes:
    """Return what woke a process between two instants of wall time."""
    ended = [call for call in found if begin <= call.ended < end]
    instants = sorted({call.began for call in found if begin <= call.began < end} | {c.ended for c in ended})
    limits = [call.limit(monotonic) for call in found if call.began < end <= call.ended]
    return Wakes(
        expiries=sum(call.expired and call.ended - call.began > STEP for call in ended),
        bursts=_bursts(instants),
        armed=sorted(limit for limit in limits if limit < inf),
    )


def _bursts(instants: Sequence[float]) -> int:
    count, began = 0, -inf
    for at in instants:
        if at - began > BURST:
            count, began = count + 1, at
    return count
