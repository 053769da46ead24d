"""The pool of workers: each runs one job at a time, and survives whatever its handler does."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import re
from collections.abc import Callable
from contextvars import Context
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import msgspec

from . import _log as log
from ._clock import Clock
from ._codec import decode, encode_result
from ._context import JobContext, running_job
from ._deadlines import Deadlines
from ._errors import InvalidState, PayloadError
from ._failure import describe, short_traceback
from ._job import ClaimedJob
from ._middleware import Around, through
from ._notes import Notes, Said
from ._outcome import CANCELLED, Result, Steer
from ._registry import Handler
from ._reports import naming
from ._telemetry import Attended
from ._threads import InThread, ThreadCall
from ._transaction import JobTransaction

if TYPE_CHECKING:
    from ._client import Client

__all__ = ["Attempt", "WorkerPool"]

UNRESPONSIVE_AFTER = 5.0
"""Seconds after its cancellation at which a handler that has not ended is logged."""

LEFT_OPEN = "the {} has returned without leaving its job.transaction(); use async with"


class Attempt:
    """One claimed job in the hands of one worker."""

    __slots__ = (
        "attended", "began", "begun", "call", "cancelled", "completed", "context", "handler", "job", "result",
        "scope", "started", "started_at", "stopping", "timeout", "watch"
    )  # fmt: skip

    def __init__(self, job: ClaimedJob, handler: Handler, scope: anyio.CancelScope) -> None:
        self.job = job
        self.handler = handler
        self.scope = scope
        self.timeout = handler.config.timeout if job.timeout is None else job.timeout / 1000
        self.context: JobContext | None = None
        self.started = self.stopping = self.cancelled = False
        self.started_at: int | None = None
        self.began = 0.0
        self.begun: int | None = None
        self.call: ThreadCall | None = None
        self.result: Result | None = None
        self.completed = False
        self.watch: asyncio.TimerHandle | None = None
        self.attended: Attended | None = None


class WorkerPool:
    """Runs attempts, at most `size` at once and at most `threads` of them in threads.

    Each job gets a worker: a task of its own in a fresh context. A worker never waits for
    anything but its handler, and a place is free again when its worker has ended, however it
    ended; so no handler can make the pool smaller.
    """

    def __init__(
        self,
        client: Client,
        *,
        size: int,
        threads: int,
        clock: Clock,
        context: Context,
        started: Callable[[str, int], None],
        counted: Callable[[ClaimedJob, int], None],
        transaction: Callable[[Attempt, JobContext], JobTransaction],
        ended: Callable[[Attempt, Result], None],
        interrupted: Callable[[], bool],
        notes: Notes,
    ) -> None:
        self._notes = notes
        self._client = client
        self._bus = client.bus
        self._layers = client.layers
        self._telemetry = client.telemetry
        self.size = size
        self._threads = threads
        self._limiter = anyio.CapacityLimiter(threads)
        self._clock = clock
        self._context = context
        self._started = started
        self._counted = counted
        self._transaction = transaction
        self._ended = ended
        self._interrupted = interrupted
        self._loop = asyncio.get_running_loop()
        self._make_scope = type(anyio.CancelScope())  # looking up anyio's backend costs more than a scope
        self._deadlines = Deadlines(self._overdue)
        self._in_threads = 0
        self._ids: set[str] = set()
        self._waiters: list[asyncio.Future[None]] = []
        self.running: dict[asyncio.Task[None], Attempt] = {}

    @property
    def free(self) -> int:
        """How many jobs can be started."""
        return self.size - len(self.running)

    @property
    def threads_free(self) -> int:
        """How many of them in threads."""
        return self._threads - self._in_threads

    def in_thread(self, job_id: str) -> bool:
        """Return whether a thread runs this job, which it does whatever becomes of the event loop."""
        return any(
            attempt.job.id == job_id and attempt.call is not None and attempt.call.running
            for attempt in list(self.running.values())
        )

    def runs(self, job_id: str) -> bool:
        """Return whether a worker has this job in hand."""
        return job_id in self._ids

    def start(self, job: ClaimedJob, handler: Handler) -> None:
        """Give a job to a worker. Synchronous, so that nothing can come between claim and start."""
        attempt = Attempt(job, handler, self._make_scope())
        work = self._work(attempt)
        try:
            name = f"backlite {job.queue} {job.id}"
            task = self._loop.create_task(work, name=name, context=self._context.copy())
        except BaseException:  # an application's task factory
            work.close()
            raise
        self.running[task] = attempt
        self._in_threads += handler.threaded
        self._ids.add(job.id)
        task.add_done_callback(self._worker_ended)

    def close(self) -> None:
        """Cut off nothing more."""
        self._deadlines.close()

    def cancel(self) -> None:
        """Cancel every running handler, because the client stops."""
        for attempt in self.running.values():
            attempt.stopping = True
            attempt.scope.cancel()

    def cancel_job(self, job_id: str, fence: int) -> bool:
        """Cancel a running handler, because somebody asked to; return whether it runs here."""
        for attempt in self.running.values():
            if attempt.job.id == job_id and attempt.job.fence == fence:
                if not attempt.cancelled:
                    attempt.cancelled = True
                    if attempt.context is not None:
                        attempt.context.cancel_asked = True
                    self._cut_off(attempt)
                return True
        return False

    def queue_runs(self, queue: str) -> bool:
        """Return whether a job of a queue runs."""
        return any(attempt.job.queue == queue for attempt in self.running.values())

    def idle(self) -> asyncio.Future[None]:
        """Return a future that is done once no worker runs and every end has been reported."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.running:
            self._waiters.append(future)
        else:
            future.set_result(None)
        return future

    def _worker_ended(self, task: asyncio.Task[None]) -> None:
        attempt = self.running.pop(task)
        context, attempt.context = attempt.context, None  # leads back here: no work for the collector
        handler = attempt.handler
        self._in_threads -= handler.threaded
        self._ids.discard(attempt.job.id)
        if attempt.timeout is not None:
            self._deadlines.end(attempt, attempt.timeout)
        if attempt.watch is not None:
            attempt.watch.cancel()
        error = None if task.cancelled() else task.exception()  # seen: the loop need not report it
        result = attempt.result
        if result is None and error is not None:  # a bug of ours
            result = self._failed(attempt, error)
        elif result is None:  # cut off before its handler could end, by a closing loop
            result = self._failed(attempt, asyncio.CancelledError(), stopped=self._interrupted())
        if context is not None:
            if context.said is not None:
                result = _with_last_words(context.said, result)
                context.said.close()
            context.notes = None  # nothing more of what it says is kept
            context.over = True
        self._ended(attempt, result)
        if not self.running:
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_result(None)
            self._waiters.clear()

    async def _work(self, attempt: Attempt) -> None:
        job, handler = attempt.job, attempt.handler
        attempt.attended = self._telemetry.attend(job)
        try:
            task = decode(handler.kind, job.payload)
        except PayloadError as error:
            text = re.sub(
                r"""(['"]).*\1""", "'...'", str(error), flags=re.DOTALL
            )  # a value, not to be logged
            attempt.result = Result(
                finished_at=self._clock.now(), error=text, final=True, type="PayloadError"
            )
            return
        try:
            context = self._begin(attempt)
            value: Any = _CUT_OFF
            with attempt.scope:
                if self._layers.all and (layers := self._layers.of(job.queue)):
                    value = await self._handle_within(attempt, layers, context, task)
                else:
                    value = await self._handle(attempt, context, task)
            if value is _CUT_OFF:
                raise _Cut
            attempt.result = self._returned(attempt, value)
        except InThread as carried:
            attempt.result = self._raised(attempt, carried.error)
        except KeyboardInterrupt as error:  # the user's Ctrl-C, or its own: it ends the process in any case
            attempt.result = self._failed(attempt, error, ends_process=True)
            raise
        except BaseException as error:  # whatever a handler raises ends its attempt, nothing else
            attempt.result = self._raised(attempt, error)

    def _begin(self, attempt: Attempt) -> JobContext:
        """Start the clocks of an attempt; its timeout counts from here."""
        job, timeout = attempt.job, attempt.timeout
        attempt.started_at, attempt.began = self._clock.now(), self._clock.monotonic()
        if timeout is not None:
            self._deadlines.begin(attempt, timeout)
        transaction = partial(self._transaction, attempt)
        context = attempt.context = JobContext(
            job, self._client, attempt.started_at, timeout, transaction, notes=self._notes
        )
        context.cancel_asked = attempt.cancelled
        if attempt.attended is not None:
            context.names = attempt.attended.names
        running_job.set(context)
        if not attempt.handler.threaded:
            self._started(job.id, job.fence)
            if attempt.handler.config.rate is not None:
                attempt.begun = self._clock.now()
                self._counted(job, attempt.begun)
        if log.heard(log.JOB_STARTED):
            log.emit(log.JOB_STARTED, job_id=job.id, queue=job.queue, task=job.task, attempt=job.attempt)
        if self._bus.heard:
            waited = timedelta(milliseconds=max(0, attempt.started_at - job.scheduled_at))
            self._bus.tell("started", **naming(job), waited=waited)
        return context

    async def _handle(self, attempt: Attempt, context: JobContext, task: Any) -> Any:
        """Run the handler; raises `InThread` for what it raises in a thread."""
        handler = attempt.handler
        function, arguments = handler.function, handler.arguments(task, context)
        if not handler.threaded:
            before = context.open_block  # a middleware's
            try:
                value = await function(*arguments)
            except BaseException:
                if context.open_block is not before:
                    await self._leave(context)
                raise
            if context.open_block is not before:
                await self._leave(context)
                raise InvalidState(LEFT_OPEN.format("handler"))
            return value
        call = attempt.call = ThreadCall(function, arguments, partial(self._started_in_thread, attempt))
        try:
            await anyio.to_thread.run_sync(call, limiter=self._limiter)
        except asyncio.CancelledError:  # the loop is ending; the thread is not
            if not await call.outlast():
                raise
        return call.answer()

    async def _handle_within(
        self, attempt: Attempt, layers: tuple[Around, ...], context: JobContext, task: Any
    ) -> Any:
        """Run the handler inside of middleware, which is the attempt's as much as the handler is."""
        if attempt.handler.threaded:
            self._started_in_thread(attempt)
        try:
            value = await through(layers, context, partial(self._innermost, attempt))(context, task)
        except BaseException:
            await self._leave(context)
            raise
        if await self._leave(context):
            raise InvalidState(LEFT_OPEN.format("middleware"))
        return value

    async def _innermost(self, attempt: Attempt, context: JobContext, task: Any, /) -> Any:
        """Run the handler; what it raises in a thread is for middleware to see, unless it ends processes."""
        try:
            return await self._handle(attempt, context, task)
        except InThread as carried:
            if not isinstance(carried.error, Exception):
                raise
            error = carried.error
        try:
            raise error
        finally:
            del error  # which leads back here

    @staticmethod
    async def _leave(context: JobContext) -> bool:
        """Undo a transaction that nobody has left; return whether there was one."""
        if context.open_block is None:
            return False
        await context.open_block.leave()
        return True

    def _started_in_thread(self, attempt: Attempt) -> None:
        """Write down that an attempt starts whose handler runs in a thread."""
        if attempt.started:  # by middleware, or a first call of the handler
            return
        attempt.started = True
        job = attempt.job
        self._started(job.id, job.fence)
        if attempt.handler.config.rate is not None:
            attempt.begun = self._clock.now()
            with contextlib.suppress(RuntimeError):  # nobody counts on a closed loop
                self._loop.call_soon_threadsafe(self._counted, job, attempt.begun)

    def _overdue(self, attempt: Attempt) -> None:
        """Cut off a handler at its deadline."""
        if attempt.result is None:  # else it has just ended
            self._cut_off(attempt)

    def _cut_off(self, attempt: Attempt) -> None:
        """Cancel a handler, and see whether it ends."""
        attempt.scope.cancel()
        if attempt.watch is None:
            attempt.watch = asyncio.get_running_loop().call_later(
                UNRESPONSIVE_AFTER, self._unresponsive, attempt
            )

    def _unresponsive(self, attempt: Attempt) -> None:
        job = attempt.job
        log.emit(log.JOB_UNRESPONSIVE, job_id=job.id, queue=job.queue, task=job.task, attempt=job.attempt)

    def so_far(self, attempt: Attempt) -> Result:
        """Return the result of an attempt that has reached its aim now."""
        result = Result(
            finished_at=self._clock.now(),
            started_at=attempt.started_at,
            duration=self._duration(attempt),
        )
        context = attempt.context
        if context is not None and attempt.job.workflow is not None:
            result = msgspec.structs.replace(result, extends=context.extends)
        return result if context is None or context.said is None else _with_last_words(context.said, result)

    def _returned(self, attempt: Attempt, value: object) -> Result:
        if value is not None and inspect.isawaitable(value):
            if inspect.iscoroutine(value):
                value.close()
            return self._failed(
                attempt, TypeError("the handler returned an awaitable that nobody awaits; make it async def")
            )
        result = self.so_far(attempt)
        if value is not None and not attempt.completed:
            result = msgspec.structs.replace(result, value=self._encoded(attempt, value))
        if attempt.scope.cancel_called and not attempt.stopping:
            return msgspec.structs.replace(result, late=True)
        return result

    def _encoded(self, attempt: Attempt, value: object) -> str:
        """Return what a handler returned as JSON; "": it is not kept.

        Where retention keeps nothing, it is encoded for those of this client who wait for the job, and for
        the steps that come after it in a workflow.
        """
        job, retention = attempt.job, attempt.handler.config.retention
        if (
            (retention is None or retention.only_failed)
            and job.workflow is None
            and job.id not in self._client.waits
        ):
            return ""
        try:
            return encode_result(job.queue, value, self._client.max_payload)
        except PayloadError as error:
            log.emit(
                log.JOB_RESULT_DROPPED,
                job_id=job.id,
                queue=job.queue,
                task=job.task,
                attempt=job.attempt,
                error=error.reason,
            )
            return ""

    def _raised(self, attempt: Attempt, error: BaseException) -> Result:
        try:
            return self._judged(attempt, error)
        except BaseException as broken:  # an error's properties are a user's code, and may do anything
            text = f"{type(error).__qualname__}, which cannot be shown: {type(broken).__qualname__}"
            return self._failed(attempt, RuntimeError(text))

    def _judged(self, attempt: Attempt, error: BaseException) -> Result:
        cut = isinstance(error, _Cut)
        cancelled = cut or isinstance(error, asyncio.CancelledError)
        if attempt.cancelled:
            return self._failed(attempt, None if cancelled else error, cancelled=True)
        if isinstance(error, Steer):
            return self._failed(attempt, error)
        if attempt.stopping or (cancelled and self._interrupted()):
            return self._failed(attempt, error, stopped=True)
        timed_out = attempt.scope.cancel_called
        return self._failed(attempt, error, timed_out=timed_out)

    def _failed(
        self,
        attempt: Attempt,
        error: BaseException | None,
        *,
        stopped: bool = False,
        cancelled: bool = False,
        timed_out: bool = False,
        ends_process: bool = False,
    ) -> Result:
        """Make a result that keeps an error's text, never the error: it would keep all its frames."""
        limit = attempt.timeout
        if cancelled:
            text = CANCELLED if error is None else f"{describe(error)} (after it was cancelled)"
        elif isinstance(error, _Cut):
            text = (
                f"TimeoutError: the handler ran longer than its timeout of {limit:g} s" if timed_out else ""
            )
        else:
            text = "" if error is None else describe(error)
            if timed_out:
                text += f" (after its timeout of {limit:g} s)"
        trace = None if error is None or isinstance(error, (_Cut, Steer)) else short_traceback(error)
        kind = type(error).__qualname__ if error is not None else None
        if isinstance(error, _Cut):
            kind = "TimeoutError" if timed_out else None
        return Result(
            finished_at=self._clock.now(),
            started_at=attempt.started_at,
            duration=self._duration(attempt),
            error=text,
            steer=error.with_traceback(None) if isinstance(error, Steer) else None,
            stopped=stopped,
            cancelled=cancelled,
            timed_out=timed_out,
            ends_process=ends_process,
            traceback=trace,
            type=kind,
        )

    def _duration(self, attempt: Attempt) -> int | None:
        if attempt.started_at is None:
            return None
        return max(0, round((self._clock.monotonic() - attempt.began) * 1_000_000))


def _with_last_words(said: Said, result: Result) -> Result:
    """Add to a result what its attempt has said and is not stored."""
    return msgspec.structs.replace(result, note=said.all(), noted=True)


_CUT_OFF = object()
"""Stands for the value of a handler whose scope was cancelled."""


class _Cut(BaseException):
    """The handler's scope was cancelled, and it ended by that."""
