"""What must be true of workflows and schedules after a life whose writes or syncs have failed."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

from backlite_async._graph import follow_up_id

from .t01_flows import astray, entangled, flows_in

__all__ = ["Beat", "Schedules", "halved", "mistimed", "schedules_in", "unready", "unwoven", "woven"]

TOGETHER = ({"a1", "b1", "beside a"}, {"d1", "beside d"})
"""What is saved by one operation: its first steps, and the job beside them."""

OLD = {"old"}
"""Schedules that no code declares any more."""

Event = dict[str, Any]


class Beat(NamedTuple):
    """A schedule that runs at intervals, as it is stored."""

    name: str
    created_at: int
    anchor: int
    every: int
    max_runs: int | None
    runs: int
    is_due: int
    is_removed: int = 0


class Schedules(NamedTuple):
    """What a database holds: schedules, and the jobs of each."""

    beats: Sequence[Beat]
    jobs: dict[str, set[str]]


def woven(connection: sqlite3.Connection, events: Sequence[Event]) -> list[str]:
    """Return what is wrong with the workflows and schedules of a database in which nothing is left to do."""
    flows = flows_in(connection)
    return [
        *entangled(flows),
        *astray(flows, [event for event in events if event["what"] != "mistold"]),
        *(f"{event['name']} was told of {event['told']}" for event in events if event["what"] == "mistold"),
        *unready(events),
        *unwoven(events),
        *halved(events),
        *mistimed(schedules_in(connection), events),
    ]


def unready(events: Iterable[Event]) -> list[str]:
    """Return steps that have started before one that they wait for had ended."""
    ended: dict[str, set[str]] = defaultdict(set)
    wrong = []
    for event in events:
        if event["what"] == "end" and event.get("flow"):
            ended[event["flow"]].add(event["name"])
        elif event["what"] == "start" and event.get("flow"):
            early = set(event["after"]) - ended[event["flow"]]
            wrong += [f"{event['name']} started before the end of {name}" for name in sorted(early)]
    return wrong


def unwoven(events: Iterable[Event]) -> list[str]:
    """Return what has never run of workflows that were promised, and what of any is there twice."""
    ended: dict[str, set[str]] = defaultdict(set)
    jobs: dict[tuple[str, str], set[str]] = defaultdict(set)
    promised: dict[str, Event] = {}
    for event in events:
        if event["what"] == "flow":
            promised[event["flow"]] = event
        elif event["what"] in ("start", "end") and event.get("flow"):
            jobs[event["flow"], event["name"]].add(event["job"])
            if event["what"] == "end":
                ended[event["flow"]].add(event["name"])
    wrong = [
        f"of workflow {flow['name']} ran {sorted(ended[flow_id])}, not {sorted(flow['names'])}"
        for flow_id, flow in promised.items()
        if ended[flow_id] != set(flow["names"])
    ]
    return wrong + [f"{name} is {len(ids)} jobs" for (_, name), ids in jobs.items() if len(ids) > 1]


def halved(events: Iterable[Event], together: Iterable[Collection[str]] = TOGETHER) -> list[str]:
    """Return operations of which only a part was there to run."""
    names = {event["name"] for event in events if event["what"] == "start"}
    parts = [(sorted(names & set(every)), len(every)) for every in together]
    return [f"of {size} that were saved at once ran {ran}" for ran, size in parts if 0 < len(ran) < size]


def schedules_in(connection: sqlite3.Connection) -> Schedules:
    """Read the schedules, and the ids of their jobs."""
    times = ", ".join(f"json_extract(timing, '$.{name}')" for name in ("anchor", "every"))
    columns = f"name, created_at, {times}, max_runs, runs, next_at IS NOT NULL, removed"
    beats = [Beat._make(row) for row in connection.execute(f"SELECT {columns} FROM backlite_schedules")]
    jobs: dict[str, set[str]] = defaultdict(set)
    for table in ("jobs", "completed"):
        query = f"SELECT id, payload FROM backlite_{table} WHERE task = 'Recurring'"
        for job_id, payload in connection.execute(query):
            jobs[json.loads(payload)["name"]].add(job_id)
    return Schedules(beats, jobs)


def mistimed(found: Schedules, events: Iterable[Event]) -> list[str]:
    """Return schedules that are lost, instants without their job, and jobs of no instant."""
    told = [(event["what"], event.get("schedule")) for event in events]
    there = {beat.name for beat in found.beats}
    wrong = [
        f"{name} was made, and is not there"
        for what, name in told
        if what == "scheduled" and name not in there and ("unscheduling", name) not in told
    ]
    wrong += [
        f"{name} was deleted, and is there" for what, name in told if what == "unscheduled" and name in there
    ]
    for beat in found.beats:
        due = range(beat.anchor + beat.every, beat.anchor + beat.every * (beat.max_runs or 0) + 1, beat.every)
        ids = {follow_up_id("schedule", beat.name, beat.created_at, at) for at in due}
        jobs = found.jobs.get(beat.name, set())
        if (beat.name in OLD) != beat.is_removed:
            wrong.append(f"{beat.name} is removed: {beat.is_removed}")
        if ids - jobs and not beat.is_removed:
            wrong.append(f"{beat.name} has no job for {len(ids - jobs)} instants of {len(ids)}")
        if jobs - ids:
            wrong.append(f"{beat.name} has jobs of no instant: {sorted(jobs - ids)}")
        if beat.runs != len(jobs) or beat.is_due:
            wrong.append(f"{beat.name} has counted {beat.runs} runs of {len(jobs)}, due again: {beat.is_due}")
    for name in found.jobs.keys() - there:  # it is deleted
        if len(found.jobs[name]) > told.count(("now", name)):
            wrong.append(f"{name} has run {len(found.jobs[name])} times, asked {told.count(('now', name))}")
    return wrong
