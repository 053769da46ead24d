"""What can be asked of jobs, and done to them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Unpack, overload

import msgspec

from ._bulk import Change, batches, changing, walk
from ._carry import joined
from ._clock import after as later
from ._clock import aware, from_millis, seconds, to_millis, whole_millis
from ._codec import encode
from ._config import Duration
from ._context import check_outside_block
from ._errors import InvalidState, InvalidTask, InvalidType, InvalidValue, JobNotFound
from ._filters import Filters, checked_id, checked_number, cursor, neighbour, place, walks, wanted
from ._job import Job, JobStatus, More, NewJob
from ._options import checked_attempts
from ._query import Action, Delete, Edit, Found, Postpone, Release, Rerun, SortKey, Wanted
from ._stats import Count
from ._task import TaskType, task_type

if TYPE_CHECKING:
    from ._client import Client

__all__ = ["JobPage", "Jobs"]


class JobPage(list[Job]):
    """A page of a list of jobs: a list that knows how to go on.

    `next` and `previous`: what to give as `after=` and `before=`, with the same filters, for the pages behind
    and before this one; None: there is none. `limited`: 5,000 jobs were looked at before the page was full,
    so that it may have fewer than there are, even none, though `next` (or `previous`) finds more.
    """

    next: str | None = None
    previous: str | None = None
    limited: bool = False


class Jobs:
    """The jobs of a client's database: `client.jobs`.

    Filters, of which all that are given must match:

    - `queue`: its name; `task`: a name, or a task type, which means its queue too.
    - `state`: a `JobStatus`, its text, or several of them.
    - `tag`, `key`, `parent` (the id of the job whose handler added it); `unique`, with `queue`: the job that
      was last added with this unique key.
    - `owner`: the id of a client, as `client.owners` has it: jobs that it runs, and completed ones whose last
      attempt was its; `workflow`: the id of one, of whose steps they are.
    - `added_after`, `added_before`, `due_after`, `due_before` (of pending ones), `finished_after`,
      `finished_before` (of completed ones): aware datetimes, both included.
    - `text`: in the payload, the error, the id, the meta data or the key, whatever the case of ASCII letters.

    Actions take either ids or such filters, and return to how many jobs they were done. Ids that are unknown,
    or of jobs in a state for which the action is not, are passed over. Everything at all must be asked for:
    `all=True`. With filters an action goes in batches of 500, each a transaction, through the jobs that were
    added before it began; those that others change meanwhile it may miss.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    # -- asking ------------------------------------------------------------------------------------

    async def get(self, job_id: str, *, cut: int | None = None) -> Job | None:
        """Return a job's whole record with its history; None if there is none, or none any more.

        With `cut`, payload and result end after so many bytes and one more, by which you see that there was
        more: `len(job.payload) > cut`. The rest of a large one is not read from the database.
        """
        if cut is None:
            return await self._client.get(job_id)
        most = checked_number("cut", cut, 1_000_000_000) + 1
        store, now = self._client.open_store(), self._client.clock.now()
        return await store.get(checked_id("get", job_id), now=now, cut=most)

    async def list(
        self,
        *,
        limit: int = 50,
        after: str | None = None,
        before: str | None = None,
        brief: bool = False,
        **filters: Unpack[Filters],
    ) -> JobPage:
        """Return the first jobs that match, or those after or before a cursor of another page.

        At most `limit`, up to 1,000. Running ones first, then pending ones by the time they are due, those
        that wait for the turn of their key, and completed ones, the last one first; with `tag` or `parent`
        the one that was added last comes first, with `workflow` they come in the order of the steps. Its cost
        does not grow with the number of jobs: it looks at 5,000 at most (for `text`, at 8 MB of payloads),
        and says so if that was not enough: see `JobPage.limited`.

        With `brief`, payloads and results end after 200 bytes, errors after 200 characters, and the rest of
        large ones is not read from the database.
        """
        if not isinstance(brief, bool):
            raise InvalidType(f"brief={brief!r} must be True or False")
        meant = wanted(filters)
        number = checked_number("limit", limit)
        if after is not None and before is not None:
            raise InvalidValue("after= and before= are the two directions; give one of them")
        behind = None if after is None else place("after", after, meant)
        ahead = None if before is None else place("before", before, meant)
        found = await self._client.open_store().find(
            meant, limit=number, after=behind, before=ahead, now=self._client.clock.now(), brief=brief
        )
        return _page(found, behind, ahead)

    async def count(self, *, most: int = 100_000, **filters: Unpack[Filters]) -> Count:
        """Return how many jobs match: an int, `capped` where there are more than were counted.

        It counts up to `most`, or, where jobs have to be looked at one by one, until it has looked at 5,000.
        """
        meant = wanted(filters)
        number = checked_number("most", most, 1_000_000_000)
        return await self._client.open_store().count(meant, most=number, now=self._client.clock.now())

    # -- steering ----------------------------------------------------------------------------------

    async def retry(
        self, *job_ids: str, attempts: int = 1, all: bool = False, **filters: Unpack[Filters]
    ) -> int:
        """Run jobs again, now: failed and cancelled ones that are kept with their payload, and pending ones.

        They get as many more attempts as they need to have `attempts` left, keep their ids and their history,
        and their crashes are forgiven. With filters, pending ones that are due already are left as they are.
        """
        action = Rerun(attempts=checked_attempts(attempts))
        return await self._act("retry", action, job_ids, all, filters)

    async def run_now(self, *job_ids: str, all: bool = False, **filters: Unpack[Filters]) -> int:
        """Let pending jobs be due now; with filters, those that are not due yet.

        One that waits for the turn of its key goes on waiting.
        """
        now = self._client.clock.now()
        action = Postpone(due_at=now, waits_from=now)
        return await self._act("run_now", action, job_ids, all, filters, start=now)

    async def reschedule(
        self,
        *job_ids: str,
        at: datetime | None = None,
        wait: Duration | None = None,
        all: bool = False,
        **filters: Unpack[Filters],
    ) -> int:
        """Let pending jobs be due at an instant, an aware datetime, or after a duration from now on."""
        now = self._client.clock.now()
        if (at is None) == (wait is None):
            raise InvalidValue("reschedule() takes one of at=, an instant, and wait=, a duration")
        if at is not None:
            action = Postpone(due_at=to_millis(aware("at", at)))
        else:
            action = Postpone(due_at=later(now, seconds("wait", wait)), waits_from=now)
        return await self._act("reschedule", action, job_ids, all, filters, start=now)

    async def edit(self, job_id: str, task: msgspec.Struct) -> int:
        """Give a pending job another payload: a task of its type.

        Raises `JobNotFound`, `InvalidState` if it is not pending (any more), `InvalidType` if the task is of
        another type than the job's, and `PayloadError` as `save()` does.
        """
        kind = self._kind(task)
        job = await self._found("edit", job_id)
        if job.queue != kind.config.name or job.task not in kind.names:
            raise InvalidType(
                f"job {job_id} is a {job.task} of queue {job.queue!r}, not a {kind.name} of"
                f" {kind.config.name!r}; cancel it, and add another"
            )
        payload = encode(kind, task, self._client.max_payload)
        if job.status is JobStatus.PENDING:
            done = await self._act_on("edit", Edit(queue=job.queue, task=job.task, payload=payload), [job_id])
            if done:
                return done
            job = await self._found("edit", job_id)
        raise InvalidState(
            f"job {job_id} is {job.status.value}, and only a pending one can be edited; copy(id, task) adds"
            " another one"
        )

    @overload
    async def copy(self, job_id: str, /, task: msgspec.Struct | None = None) -> str: ...
    @overload
    async def copy(self, *, all: bool = False, **filters: Unpack[Filters]) -> int: ...
    async def copy(  # type: ignore[misc]
        self, job_id: str | None = None, /, task: Any = None, *, all: bool = False, **filters: Any
    ) -> str | int:
        """Add a copy of a job, due now, and return its id; with filters, of many, and return their number.

        It has the same queue, task, priority, attempts, timeout, key, meta data and tags, and no parent; with
        a `task`, that one instead, in its own queue. Its trace is that of who copies. Raises `JobNotFound`,
        and `InvalidState` where the payload is no longer kept; with filters, such jobs are passed over.
        """
        if job_id is not None:
            if filters or all:
                raise InvalidValue("copy() takes the id of a job, or filters, not both")
            return await self._copy_one(job_id, task)
        start = self._client.clock.now()

        async def add(jobs: Sequence[Job]) -> Sequence[str]:
            created_at = max(self._client.clock.now(), start + 1)  # else it would meet them, too
            return await self._add([self._copied(job, created_at) for job in jobs if job.payload is not None])

        given = filters if task is None else {**filters, "task": task}
        return await self._walk("copy", self._meant("copy", all, given), start, add)

    async def release(self, *job_ids: str, all: bool = False, **filters: Unpack[Filters]) -> int:
        """Take running jobs away from a process that does not give them up: they are pending, due now.

        The attempt does not count. The handler is not stopped, if it still runs: whatever comes of it is
        not accepted, so that its effects in this database are not, but those elsewhere may happen twice.
        """
        return await self._act("release", Release(), job_ids, all, filters)

    async def cancel(self, *job_ids: str, all: bool = False, **filters: Unpack[Filters]) -> int:
        """Cancel jobs as `client.cancel` does; return how many have ended by it, or were asked to."""
        ids = self._ids("cancel", job_ids, all, filters)
        client = self._client
        check_outside_block(self._client)
        with changing("cancel") as change:
            for batch in batches(ids):
                change.count += await client.cancel(*batch)
            if ids:
                return change.count

            async def cancel(jobs: Sequence[Job]) -> None:
                change.count += await client.cancel(*(job.id for job in jobs if job.cancelled_at is None))

            await self._until_nothing("cancel", self._meant("cancel", all, filters), change, cancel)
        return change.count

    async def delete(self, *job_ids: str, all: bool = False, **filters: Unpack[Filters]) -> int:
        """Remove pending and completed jobs, and all that is kept of them; running ones stay."""
        if job_ids:
            return await self._act("delete", Delete(), job_ids, all, filters)
        with changing("delete") as change:

            async def delete(jobs: Sequence[Job]) -> None:
                change.done(await self._acted(Delete(), [job.id for job in jobs]))

            await self._until_nothing("delete", self._meant("delete", all, filters), change, delete)
        return change.count

    # -- how ---------------------------------------------------------------------------------------

    async def _act(
        self,
        name: str,
        action: Action,
        job_ids: Sequence[str],
        all_: bool,
        filters: Filters,
        *,
        start: int | None = None,
    ) -> int:
        """Do something to jobs by ids or filters."""
        ids = self._ids(name, job_ids, all_, filters)
        if ids:
            return await self._act_on(name, action, ids)
        begun = self._client.clock.now() if start is None else start
        now = begun if isinstance(action, Rerun) else None  # so that all leave the range that is walked

        async def act(jobs: Sequence[Job]) -> Sequence[str]:
            return await self._acted(action, [job.id for job in jobs], now)

        due_at = action.due_at if isinstance(action, Postpone) else None
        return await self._walk(name, self._meant(name, all_, filters), begun, act, due_at)

    async def _act_on(self, name: str, action: Action, job_ids: Sequence[str]) -> int:
        with changing(name) as change:
            for batch in batches(job_ids):
                change.done(await self._acted(action, batch))
        return change.count

    async def _acted(self, action: Action, job_ids: Sequence[str], now: int | None = None) -> Sequence[str]:
        """Do something to jobs, in one transaction; return the ids of those that it was done to."""
        client = self._client
        check_outside_block(self._client)
        await client.declare_queues()  # which says how cancelled ones are kept
        now = client.clock.now() if now is None else now
        done = await client.open_store().act(action, job_ids, now=now)
        client.rung()
        return done

    async def _walk(
        self,
        name: str,
        meant: Wanted,
        start: int,
        do: Callable[[Sequence[Job]], Awaitable[Sequence[str]]],
        due_at: int | None = None,
    ) -> int:
        begun = from_millis(start)
        with changing(name) as change:

            async def note(jobs: Sequence[Job]) -> None:
                old = [job for job in jobs if job.started_at is None or job.started_at <= begun]
                if old:  # what has started since was something else when this began
                    change.done(await do(old))

            for way in walks(name, meant, start, due_at):
                await walk(self._client, way, note)
        return change.count

    async def _until_nothing(
        self, name: str, meant: Wanted, change: Change, do: Callable[[Sequence[Job]], Awaitable[None]]
    ) -> None:
        """Walk until a walk changes nothing: jobs that start or end go to where the walk was before."""
        start, before = self._client.clock.now(), -1
        while before != change.count:
            before = change.count
            for way in walks(name, meant, start):
                await walk(self._client, way, do)

    # -- copies ------------------------------------------------------------------------------------

    async def _copy_one(self, job_id: str, task: Any) -> str:
        kind = None if task is None else self._kind(task)
        job = await self._found("copy", job_id)
        if task is None and job.payload is None:
            raise InvalidState(
                f"job {job_id} is {job.status.value}, and its payload is not kept; give the task, too:"
                " copy(id, task)"
            )
        copied = self._copied(job, self._client.clock.now(), kind, task)
        with changing("copy") as change:
            change.done(await self._add([copied]))
        return copied.id

    def _copied(self, job: Job, created_at: int, kind: TaskType | None = None, task: Any = None) -> NewJob:
        client = self._client
        queue = job.queue if kind is None else kind.config.name
        payload = job.payload if kind is None else encode(kind, task, client.max_payload)
        assert payload is not None
        config = client.registry.queues.get(queue)
        now, carry = client.clock.now(), client.telemetry.here()
        meta = msgspec.json.encode(job.meta).decode() if job.meta else None
        more = More(
            key=job.key,
            turns=None if job.key is None or config is None else config.concurrency_per_key,
            timeout=None if job.timeout is None else whole_millis(job.timeout),
            meta=meta if carry is None else joined(meta, carry(queue)),
            tags=msgspec.json.encode(job.tags).decode() if job.tags else None,
        )
        return NewJob(
            id=client.ids.next(),
            queue=queue,
            task=job.task if kind is None else kind.name,
            payload=payload,
            max_attempts=job.max_attempts,
            created_at=created_at,
            due_at=now,
            waits_from=now,
            priority=job.priority,
            more=None if more == More() else more,
        )

    async def _add(self, jobs: Sequence[NewJob]) -> Sequence[str]:
        if not jobs:
            return ()
        client, new = self._client, [*jobs]
        check_outside_block(self._client)
        await client.declare_queues()
        client.adding(new)
        await client.open_store().add(new)
        client.added(new)
        return [job.id for job in new]

    # -- what was given ----------------------------------------------------------------------------

    def _ids(self, name: str, job_ids: Sequence[str], all_: bool, filters: Filters) -> Sequence[str]:
        ids = [checked_id(name, job_id) for job_id in job_ids]
        if ids and (filters or all_):
            raise InvalidValue(f"{name}() takes ids of jobs, or filters, not both")
        return ids

    def _meant(self, name: str, all_: bool, filters: Any) -> Wanted:
        """Return which jobs filters mean; all of them must be asked for."""
        if not isinstance(all_, bool):
            raise InvalidType(f"all={all_!r} must be True or False")
        meant = wanted(filters)
        anything = meant == Wanted()
        if anything and not all_:
            raise InvalidValue(
                f"{name}() was given no id and no filter; for every job, write {name}(all=True)"
            )
        if all_ and not anything:
            raise InvalidValue(f"{name}(all=True) means every job; leave it out, or the filters")
        return meant

    def _kind(self, task: object) -> TaskType:
        if isinstance(task, type):
            raise InvalidTask(f"{task.__qualname__} is a class; give an instance of it")
        kind = task_type(type(task))
        self._client.registry.meet(kind)
        return kind

    async def _found(self, name: str, job_id: str) -> Job:
        job = await self._client.get(checked_id(name, job_id))
        if job is None:
            raise JobNotFound(job_id)
        return job


def _page(found: Found, behind: SortKey | None, ahead: SortKey | None) -> JobPage:
    """Return a page of what was found behind or ahead of a place; where nothing was, it leads back there."""
    page = JobPage(found.jobs)
    page.limited = found.limited
    first = found.places[0] if found.places else None
    last = found.places[-1] if found.places else None
    if ahead is not None:
        on = (found.looked_to if found.limited else first) if found.more else None
        page.previous = None if on is None else cursor(on)
        page.next = cursor(last or neighbour(ahead, -1))
    else:
        on = (found.looked_to if found.limited else last) if found.more else None
        page.next = None if on is None else cursor(on)
        if behind is not None:
            page.previous = cursor(first or neighbour(behind, 1))
    return page
