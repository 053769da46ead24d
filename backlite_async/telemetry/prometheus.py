"""Metrics of a client for Prometheus: `pip install "backlite_async[prometheus]"`. No server of our own.

Counters and histograms are of what this client has done since they were made. What is told of queues is of
the whole database, as it was when `refresh()` asked for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import platform
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import backlite_async
from backlite_async import BackliteError, Event, InvalidType, Queue

try:
    from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
except ImportError as error:
    raise ImportError(
        'metrics for Prometheus need prometheus-client: pip install "backlite_async[prometheus]"'
    ) from error

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from backlite_async import Client

__all__ = ["RUN_BUCKETS", "WAIT_BUCKETS", "Prometheus"]

RUN_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
"""Seconds that attempts run."""

WAIT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 21600.0)
"""Seconds for which jobs have been due when they start."""

PATIENCE = 5.0
"""Seconds that the database has to answer."""

STATES = ("pending", "scheduled", "waiting", "running", "succeeded", "failed", "cancelled")
"""Values of the label `state` of `backlite_jobs`. What is scheduled or waiting is not counted as pending."""


FINISHED = ("succeeded", "failed", "cancelled")
ATTEMPTS = ("succeeded", "retried", "failed", "cancelled", "snoozed", "crashed", "lost")
"""Values of the label `outcome`: of jobs, and of attempts."""


class Histogram:
    """How often a value was up to each of some bounds, and the sum of all, by queue."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(sorted({float(bound) for bound in bounds}))
        self._names = [*map(_bound, self._bounds), "+Inf"]
        self._counts: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}

    def observe(self, queue: str, value: float) -> None:
        """Count a value."""
        counts = self._counts.get(queue)
        if counts is None:
            counts = self._counts[queue] = [0] * len(self._names)
        counts[bisect_left(self._bounds, value)] += 1
        self._sums[queue] = self._sums.get(queue, 0.0) + value

    def collect(self, name: str, what: str) -> Metric:
        """Return what was counted, for Prometheus."""
        family = HistogramMetricFamily(name, what, labels=["queue"])
        for queue, counts in self._counts.copy().items():
            buckets, total = [], 0
            for bound, count in zip(self._names, counts, strict=True):
                total += count
                buckets.append((bound, float(total)))
            family.add_metric([queue], buckets, self._sums[queue])
        return family


class Prometheus:
    """Counts what a client does, and tells a registry of `prometheus_client`, or a `/metrics` route.

    `registry`: your own, where there is one, which then has these metrics, too; None: one of its own. A
    registry takes one client. Counted is what happens from now on, also before the client is started. Labels
    are queues, outcomes and states, never ids.
    """

    def __init__(
        self,
        client: Client,
        registry: CollectorRegistry | None = None,
        *,
        run_buckets: Sequence[float] = RUN_BUCKETS,
        wait_buckets: Sequence[float] = WAIT_BUCKETS,
    ) -> None:
        if not isinstance(client, backlite_async.Client):
            raise InvalidType(f"Prometheus() takes a Client, not {client!r}")
        self._client = client
        self._added: Counter[str] = Counter()
        self._finished: Counter[tuple[str, str]] = Counter()
        self._attempts: Counter[tuple[str, str]] = Counter()
        self._run = Histogram(run_buckets)
        self._wait = Histogram(wait_buckets)
        self._queues: Sequence[Queue] | None = None
        self.registry = CollectorRegistry() if registry is None else registry
        self.registry.register(self)
        bus = client.bus
        self._ends: list[Callable[[], None]] = [
            bus.count_added(self._on_added),
            bus.observe(self._on_started, "started"),
            bus.observe(self._on_ended, "succeeded", "retried", "failed", "cancelled", "snoozed", "lost"),
        ]

    def close(self) -> None:
        """Count nothing more, and leave the registry."""
        while self._ends:
            self._ends.pop()()
            if not self._ends:
                self.registry.unregister(self)

    async def refresh(self) -> None:
        """Ask the database how its queues are doing, for the next time that somebody collects.

        Raises what `client.queues.list()` raises; then nothing is told of queues until the next refresh.
        """
        self._queues = None
        self._queues = await self._client.queues.list()

    async def render(self) -> tuple[bytes, str]:
        """Refresh, and return all metrics of the registry and their content type: what `/metrics` answers.

        Where the database does not answer within 5 seconds, what is told of queues is left out: whoever
        scrapes waits for 10, and gives up all of it.
        """
        asked = asyncio.ensure_future(self.refresh())
        try:
            await asyncio.wait([asked], timeout=PATIENCE)
        finally:
            asked.cancel()  # if it has not ended
        if asked.done() and not asked.cancelled():
            with contextlib.suppress(BackliteError):
                asked.result()
        else:
            asked.add_done_callback(lambda late: late.cancelled() or late.exception())
        return generate_latest(self.registry), CONTENT_TYPE_LATEST

    # -- what the client tells ---------------------------------------------------------------------

    def _on_added(self, queue: str, number: int) -> None:
        self._added[queue] += number

    def _on_started(self, event: Event) -> None:
        if event.waited is not None:
            self._wait.observe(event.queue, event.waited.total_seconds())

    def _on_ended(self, event: Event) -> None:
        """Count an attempt, and the end of a job; one that was cancelled before it ran had no attempt."""
        queue, kind = event.queue, event.kind
        if kind in FINISHED:
            self._finished[queue, kind] += 1
        if event.duration is not None:
            self._run.observe(queue, event.duration.total_seconds())
        if kind != "cancelled" or event.duration is not None:
            self._attempts[queue, "crashed" if event.crashed else kind] += 1

    # -- what Prometheus asks ----------------------------------------------------------------------

    def describe(self) -> Iterable[Metric]:
        """Return the metrics without their values, by which a registry knows their names."""
        return [*_empty(self._counted()), *_empty(self._measured()), *_empty(self._seen(()))]

    def collect(self) -> Iterable[Metric]:
        """Return the metrics with their values; called by the registry."""
        yield from self._counted()
        yield from self._measured()
        if self._queues is not None:
            yield from self._seen(self._queues)

    def _counted(self) -> list[Metric]:
        """Return the counters. They begin with 0, or nobody would notice the first crash as an increase."""
        by = ["queue", "outcome"]
        added = CounterMetricFamily("backlite_jobs_added", "Jobs added by this client.", labels=["queue"])
        finished = CounterMetricFamily("backlite_jobs_finished", "Jobs that have ended here.", labels=by)
        attempts = CounterMetricFamily("backlite_job_attempts", "Attempts that have ended here.", labels=by)
        queues = {*list(self._client.registry.queues), *self._added.copy()}
        queues |= {queue for queue, _ in (*self._finished.copy(), *self._attempts.copy())}
        for queue in sorted(queues):
            added.add_metric([queue], self._added[queue])
            for outcome in FINISHED:
                finished.add_metric([queue, outcome], self._finished[queue, outcome])
            for outcome in ATTEMPTS:
                attempts.add_metric([queue, outcome], self._attempts[queue, outcome])
        return [added, finished, attempts]

    def _measured(self) -> list[Metric]:
        client = self._client
        workers = GaugeMetricFamily("backlite_workers", "Workers of this client.", labels=["state"])
        workers.add_metric(["busy"], client.busy)
        workers.add_metric(["idle"], max(0, client.workers - client.busy) if client.dispatches else 0)
        build = GaugeMetricFamily(
            "backlite_build_info", "Always 1; its labels tell versions.", labels=["version", "python"]
        )
        build.add_metric([backlite_async.__version__, platform.python_version()], 1)
        return [
            self._run.collect("backlite_job_run_seconds", "How long attempts ran."),
            self._wait.collect("backlite_job_wait_seconds", "How long jobs had been due when they started."),
            workers,
            build,
        ]

    def _seen(self, queues: Sequence[Queue]) -> list[Metric]:
        jobs = GaugeMetricFamily(
            "backlite_jobs", "Jobs in the database, up to 10,000 of a state.", labels=["queue", "state"]
        )
        oldest = GaugeMetricFamily(
            "backlite_oldest_due_job_age_seconds",
            "For how long the oldest job has been due.",
            labels=["queue"],
        )
        for queue in queues:
            for state in STATES:
                number = queue.due if state == "pending" else getattr(queue, state)
                jobs.add_metric([queue.name, state], number)
            due = queue.oldest_due
            oldest.add_metric([queue.name], 0.0 if due is None else due.total_seconds())
        return [jobs, oldest]


def _empty(families: Iterable[Metric]) -> Iterable[Metric]:
    for family in families:
        family.samples.clear()
        yield family


def _bound(bound: float) -> str:
    """Return a bound as Prometheus writes it."""
    return repr(bound)
