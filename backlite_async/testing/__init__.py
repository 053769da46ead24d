"""For tests of applications: a clock that stands still, clients to try things with, and what they did.

`client()` makes a client for a test; `replaced()` lets an application's own client run on another
database. With either, `run_until_idle` runs what there is to run, at once, also what is scheduled for later;
`run_handler` runs one job; `added`, `assert_added` and `refute_added` tell what was added.
"""

from ._adds import added, assert_added, refute_added
from ._clients import client, replaced
from ._clock import ManualClock
from ._recording import Ran
from ._running import JobFailed, run_handler, run_until_idle

__all__ = [
    "JobFailed",
    "ManualClock",
    "Ran",
    "added",
    "assert_added",
    "client",
    "refute_added",
    "replaced",
    "run_handler",
    "run_until_idle",
]
