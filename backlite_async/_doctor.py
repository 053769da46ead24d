"""What is wrong with a database, by what was seen of it, and what to do about it. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from ._inspection import Backlog, Finding, Inspection, QueueSeen
from ._job import OwnerInfo

__all__ = ["ENDED", "confirmed", "findings"]

ENDED = 1_000
"""Milliseconds after the end of a lease from which on its owner is held to be dead."""

UNITS = ((86_400_000, "days"), (3_600_000, "hours"), (60_000, "minutes"), (1_000, "seconds"))


def findings(seen: Inspection, *, now: int, late: int) -> list[Finding]:
    """Return what is not as it should be, the database first, then its jobs. Milliseconds."""
    found = [*_of_file(seen), *_of_schema(seen)]
    if seen.schema[0] == seen.schema[1]:
        found += [*_dead_leases(seen, now), *_unhandled(seen), *_unclaimed(seen, now, late)]
    return found


def confirmed(before: Inspection, seen: Inspection, *, now: int, late: int) -> list[Finding]:
    """Return what is found at a second look: of due jobs only what was found at the first one, too.

    They may have been about to be claimed then: when room has come, or a rate lets more start, there is a
    moment before somebody claims. Nor is it so where some have been taken since.
    """
    first = {found.subject for found in findings(before, now=now, late=late) if found.code == "due_unclaimed"}
    return [
        found
        for found in findings(seen, now=now, late=late)
        if found.code != "due_unclaimed"
        or (found.subject in first and not _taken(before, seen, found.subject))
    ]


def _taken(before: Inspection, seen: Inspection, queue: str | None) -> bool:
    """Return whether fewer jobs of a queue are late than before, or the first of a level is gone."""
    old, new = ([backlog for backlog in look.backlogs if backlog.queue == queue] for look in (before, seen))
    firsts = [{(backlog.task, backlog.due_at) for backlog in backlogs} for backlogs in (old, new)]
    return bool(firsts[0] - firsts[1]) or sum(one.late for one in new) < sum(one.late for one in old)


# -- the file ---------------------------------------------------------------------------------------


def _of_file(seen: Inspection) -> Iterator[Finding]:
    if seen.affected:
        yield Finding(
            code="sqlite_affected",
            message=f"SQLite {seen.sqlite} may corrupt a WAL database when two connections write and"
            " checkpoint at the same moment",
            remedy="Use a Python with SQLite 3.51.3, 3.50.7, 3.44.6 or newer. This library's own connections"
            " take turns; until then, let no other program write to the file.",
        )
    if seen.file_system:
        yield Finding(
            code="network_file_system",
            message=f"{seen.path} lies on a network file system ({seen.file_system}), where SQLite's log and"
            " locks do not work between hosts",
            remedy="Move the database to a local disk, and have all processes on that host.",
            subject=seen.path,
        )
    if seen.there and seen.schema[0] and seen.journal != "wal":
        yield Finding(
            code="not_wal",
            message=f"{seen.path} is in journal mode {seen.journal!r}, not in 'wal': who reads keeps others"
            " from writing",
            remedy="Start a client, which changes it, and find out which program has set it; or run PRAGMA"
            " journal_mode = WAL while nothing else has the file open.",
            subject=seen.path,
        )
    if seen.log_bytes > seen.log_limit:
        yield Finding(
            code="wal_grown",
            message=f"the write-ahead log of {seen.path} has {_bytes(seen.log_bytes)}, more than the"
            f" {_bytes(seen.log_limit)} that it is cut to: some connection has been reading for so long that"
            " it cannot be begun anew, or nothing was written since a transaction that was as large",
            remedy="Look again after the next write. If it is as large then, end the transaction that is open"
            " somewhere: most often a SELECT that was not read to its end, or a connection of your own. The"
            " log is cut at the next checkpoint after that.",
            subject=f"{seen.path}-wal",
        )


def _of_schema(seen: Inspection) -> Iterator[Finding]:
    found, newest = seen.schema
    if not seen.there or (seen.path is not None and found == 0):
        what = "has no Backlite schema" if seen.there else "does not exist"
        yield Finding(
            code="schema_missing",
            message=f"{seen.path} {what}",
            remedy="Run 'backlite migrate' or await client.install(); or check that this is the right path.",
            subject=seen.path,
        )
    elif found < newest:
        yield Finding(
            code="schema_older",
            message=f"{seen.path} has schema version {found}, this backlite_async needs {newest}",
            remedy="Stop the processes of the older version, then run 'backlite migrate' or await"
            " client.install().",
            subject=seen.path,
        )
    elif found > newest:
        yield Finding(
            code="schema_newer",
            message=f"{seen.path} has schema version {found}, this backlite_async knows {newest}",
            remedy="Upgrade backlite_async here; the file was written by a newer one.",
            subject=seen.path,
        )


# -- jobs -------------------------------------------------------------------------------------------


def _dead_leases(seen: Inspection, now: int) -> Iterator[Finding]:
    owners = {owner.id: owner for owner in seen.owners}
    for owner in dict.fromkeys(claims.owner for claims in seen.claims if claims.ended):
        lapsed = [claims for claims in seen.claims if claims.owner == owner and claims.ended]
        number, until = sum(claims.ended for claims in lapsed), min(claims.until for claims in lapsed)
        queues = ", ".join(sorted(repr(claims.queue) for claims in lapsed))
        known = owners.get(owner)
        lives = known is not None and known.alive
        state = "lives, but does not renew its leases" if lives else "is dead"
        yield Finding(
            code="lease_of_dead_owner",
            message=f"{_jobs(number)} of {queues} still belong{'s' if number == 1 else ''} to {owner}, which"
            f" {state}: the lease ended {_span(now - until)} ago",
            remedy="Start a process with workers and handlers for these queues, which takes them over; or"
            " release them: 'backlite jobs release', client.jobs.release(...)."
            + (" If it was stopped, let it go on or kill it." if lives else ""),
            subject=owner,
        )


def _unhandled(seen: Inspection) -> Iterator[Finding]:
    living = _living(seen)
    if not seen.all_owners or any(owner.handles is None for owner in living):
        return  # it cannot be told
    handled = {kind for owner in living for kind in owner.handles or ()}
    waiting: dict[str, list[Backlog]] = defaultdict(list)
    for backlog in seen.backlogs:
        if (backlog.queue, backlog.task) not in handled:
            waiting[backlog.queue].append(backlog)
    for queue, backlogs in waiting.items():
        number = sum(backlog.pending for backlog in backlogs)
        tasks = ", ".join(dict.fromkeys(backlog.task for backlog in backlogs))
        who = "no process with workers runs"
        if living:
            who = f"none of the {len(living)} running clients with workers has a handler for it"
            who += ", or it is paused there alone"  # which stops the telling of it, too
        yield Finding(
            code="queue_unhandled",
            message=f"queue {queue!r} has {_jobs(number)} pending ({tasks}), and {who}",
            remedy="Start a worker process whose code registers a handler for"
            f" {tasks}; after a rename, list the old name in the type's aliases; after pause(here=True),"
            " resume; or delete the jobs.",
            subject=queue,
        )


def _unclaimed(seen: Inspection, now: int, late: int) -> Iterator[Finding]:
    queues = {queue.name: queue for queue in seen.queues}
    load = Counter({owner.id: 0 for owner in seen.owners})
    for claims in seen.claims:
        load[claims.owner] += claims.running
    for name in dict.fromkeys(backlog.queue for backlog in seen.backlogs if backlog.late):
        queue = queues.get(name) or QueueSeen(name, paused=False)
        ripe = [
            backlog
            for backlog in seen.backlogs
            if backlog.queue == name and backlog.late and _free(seen, queue, backlog, load)
        ]
        if ripe:
            number, due_at = sum(backlog.late for backlog in ripe), min(backlog.due_at for backlog in ripe)
            are = "is" if number == 1 else "are"
            yield Finding(
                code="due_unclaimed",
                message=f"{_jobs(number)} of queue {name!r} {are} due for more than"
                f" {_span(late)}, the oldest for {_span(now - due_at)}, and nobody claims them, though there"
                " are a handler and room",
                remedy="Look for an event loop that is blocked and for errors in the log of the worker"
                " processes, and see that their clocks agree; restart one that does not answer.",
                subject=name,
            )


def _free(seen: Inspection, queue: QueueSeen, backlog: Backlog, load: Counter[str]) -> bool:
    """Return whether somebody who lives has a handler and room for jobs that its limits let run."""
    limits = queue.limits
    running = Counter({claims.owner: claims.running for claims in seen.claims if claims.queue == queue.name})
    in_all, here, rate = (limits.get(name) for name in ("global_concurrency", "concurrency", "rate"))
    if queue.paused or (in_all is not None and running.total() >= in_all):
        return False
    if rate is not None and queue.started >= rate["count"]:
        return False
    return any(
        (backlog.queue, backlog.task) in (owner.handles or ())
        and load[owner.id] < owner.workers
        and (here is None or running[owner.id] < here)
        and (queue.name not in owner.threaded or _in_threads(seen, owner) < owner.threads)
        for owner in _living(seen)
    )


def _in_threads(seen: Inspection, owner: OwnerInfo) -> int:
    """Return how many jobs of an owner may take one of its threads: of a queue it is not told which do."""
    return sum(
        claims.running
        for claims in seen.claims
        if claims.owner == owner.id and claims.queue in owner.threaded
    )


def _living(seen: Inspection) -> Sequence[OwnerInfo]:
    return [owner for owner in seen.owners if owner.alive and owner.workers]


# -- figures ----------------------------------------------------------------------------------------


def _jobs(number: int) -> str:
    return "1 job" if number == 1 else f"{number:,} jobs"


def _span(millis: int) -> str:
    """Return a time as people say it."""
    for size, unit in UNITS:
        if millis >= 2 * size:
            return f"{millis // size:,} {unit}"
    return f"{millis / 1000:.1f} seconds"


def _bytes(number: int) -> str:
    return f"{number / 1_048_576:,.1f} MiB"
