"""Telling the application what its client does: listeners, and streams of events."""

from __future__ import annotations

import asyncio
import inspect
import weakref
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextvars import ContextVar, copy_context
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, get_args

import anyio
import anyio.to_thread
import msgspec

from . import _log as log
from ._clock import Clock, from_millis
from ._config import checked_name
from ._errors import InvalidType, InvalidValue
from ._failure import describe, short_traceback
from ._registry import called, unwrapped
from ._stop import StopRequest

if TYPE_CHECKING:
    from ._job import NewJob

__all__ = ["Bus", "Event", "EventKind", "Events", "L"]

EventKind = Literal[
    "added", "started", "succeeded", "retried", "failed", "cancelled", "snoozed", "lost", "progress", "log"
]

KINDS: frozenset[str] = frozenset(get_args(EventKind))

WAITING = 10_000
"""Events that may wait for listeners; beyond that the oldest are dropped."""

TURN = 0.001
"""Seconds after which listeners that never wait let others have their turn."""

STOP_GRACE, CUT_GRACE = 0.5, 1.0
"""Seconds after the limit of a stop: for what waits to be told, for a listener to end that is cut off."""


class Event(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Something that this client did to a job; of what others do, it does not tell.

    `kind` is one of:

    - "added": it was stored (with `.tx()`: it will be, if the caller commits);
    - "started": an attempt begins;
    - "succeeded", "failed", "cancelled": the job has completed, and that is stored;
    - "retried", "snoozed": it will run again at `due_at`, and that is stored (unless somebody has asked
      to cancel it meanwhile: then it has ended by that, which is not told);
    - "lost": the outcome of an attempt was not accepted, as the claim had become another's;
    - "progress": its handler has said how far it is, in `progress` and `message`: the newest, when stored;
    - "log": its handler has said something, of `level`, in `text`, and that is stored.

    `attempt` is 0 for a job that has not been claimed; `at`: when this client knew of it, or a line was
    logged, an aware datetime; `waited`: of one that has started, for how long it had been due; `duration`:
    of the attempt; `error`: as in `Job.error`; `crashed`: the attempt ended with its process. What does not
    apply is None.
    """

    kind: EventKind
    job_id: str
    queue: str
    task: str
    attempt: int
    at: datetime
    error: str | None = None
    waited: timedelta | None = None
    duration: timedelta | None = None
    crashed: bool = False
    due_at: datetime | None = None
    progress: float | None = None
    message: str | None = None
    level: str | None = None
    text: str | None = None


class Events:
    """A stream of events: an asynchronous iterator, made by `client.events()`.

    It ends when the client stops, after what is there. At most `limit` events wait in it; beyond that
    the oldest are dropped, and counted in `missed`. `async with` closes it promptly; otherwise it is
    closed when nobody holds it any more.
    """

    def __init__(self, queue: str | None, limit: int, closed: Callable[[Events], None]) -> None:
        self._queue = queue
        self._limit = limit
        self._closed = closed
        self._events: deque[Event] = deque()
        self._changed = asyncio.Event()
        self._over = False
        self._missed = 0

    @property
    def missed(self) -> int:
        """How many events were dropped because they were not taken in time."""
        return self._missed

    def close(self) -> None:
        """Take no more events; what is there can still be read."""
        self._closed(self)
        self.end()

    def end(self) -> None:
        """Let the iteration end after what is there."""
        self._over = True
        self._wake()

    def put(self, event: Event) -> None:
        """Take an event, if it is of the queue that is asked for."""
        if self._queue is not None and event.queue != self._queue:
            return
        if len(self._events) >= self._limit:
            self._events.popleft()
            self._missed += 1
        self._events.append(event)
        self._wake()

    def _wake(self) -> None:
        try:
            self._changed.set()
        except RuntimeError:  # whoever waits does so on an event loop that is closed
            self._changed = asyncio.Event()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while not self._events:
            if self._over:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        return self._events.popleft()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


L = TypeVar("L", bound=Callable[[Event], Any])


class Listener:
    """A function that is called with events, of one queue or all."""

    __slots__ = ("function", "queue", "threaded")

    def __init__(self, queue: str | None, function: Callable[[Event], Any]) -> None:
        self.queue = queue
        self.function = function
        name = called(function)
        if not callable(function) or isinstance(function, type):
            raise InvalidType(f"listener {name} must be a function, async def or def")
        try:
            inspect.signature(function).bind(None)
        except TypeError:
            raise InvalidType(f"listener {name} is called with one argument, the event") from None
        except ValueError:  # some built-in functions, which have no signature
            pass
        self.threaded = not inspect.iscoroutinefunction(unwrapped(function))

    def wants(self, queue: str) -> bool:
        """Return whether it is called with events of a queue."""
        return self.queue is None or self.queue == queue


def _known(kind: object) -> str:
    known = ", ".join(get_args(EventKind))
    if not isinstance(kind, str):
        raise InvalidType(
            f'{called(kind)} is no kind of event; write @client.on("failed"), with one of: {known}'
        )
    if kind not in KINDS:
        raise InvalidValue(f"{kind!r} is no kind of event; the kinds are: {known}")
    return kind


_listening: ContextVar[Teller] = ContextVar("backlite_async.listening")
"""Who has called the listener that runs in this thread."""


class Teller:
    """Calls listeners from one start of a client to its stop, one after the other, in a task of its own.

    What waits for them is bounded, so no job waits for a listener. Made in the context that they run in.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[Event, list[Listener]]] = deque()
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._limiter = anyio.CapacityLimiter(1)
        self._context = copy_context()
        self._closing = self._over = False
        self._missed = 0

    def put(self, event: Event, listeners: list[Listener]) -> None:
        """Call these listeners with an event, after those that wait; not once it is closing."""
        if self._closing:
            return
        if len(self._waiting) >= WAITING:
            self._waiting.popleft()
            self._missed += 1
            if self._missed == 1:
                log.emit(log.LISTENERS_BEHIND, waiting=WAITING)
        self._waiting.append((event, listeners))
        self._changed.set()
        self._go_on()

    @property
    def calling(self) -> bool:
        """Whether who asks is a listener."""
        task = asyncio.current_task()
        return (task is not None and task is self._task) or _listening.get(None) is self

    async def close(self, stop: StopRequest) -> None:
        """Call listeners with what waits, within the limit of a stop."""
        self._closing = True
        if self._waiting:
            self._go_on()
        self._changed.set()
        if self._task is not None and not await stop.outlast([self._task], grace=STOP_GRACE):
            self._over = True
            self._missed += len(self._waiting)
            self._waiting.clear()
            self._task.cancel()
            await stop.outlast([self._task], grace=CUT_GRACE)
        self._tell_missed()

    def _go_on(self) -> None:
        """Have a task that calls listeners, also where it was cancelled with everything else."""
        if self._task is None or self._task.done():
            loop = asyncio.get_running_loop()
            self._task = loop.create_task(self._run(), name="backlite listeners", context=self._context)
            self._task.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def _run(self) -> None:
        """Call listeners. Where the end of the event loop ends this, the next event begins it anew."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while not self._over:
            if not self._waiting:
                self._tell_missed()
                if self._closing:
                    return
                self._changed.clear()
                await self._changed.wait()
                began = loop.time()
                continue
            event, listeners = self._waiting.popleft()
            for listener in listeners:
                if not self._over:
                    await self._call(listener, event)
            if loop.time() - began > TURN:
                await asyncio.sleep(0)
                began = loop.time()

    async def _call(self, listener: Listener, event: Event) -> None:
        try:
            if not listener.threaded:
                await listener.function(event)
                return
            value = await anyio.to_thread.run_sync(self._in_thread, listener, event, limiter=self._limiter)
            if inspect.isawaitable(value):
                if inspect.iscoroutine(value):
                    value.close()
                raise TypeError("the listener returned an awaitable that nobody awaits; make it async def")
        except (KeyboardInterrupt, GeneratorExit):  # these end the process, or this task
            raise
        except BaseException as error:  # whatever a listener raises is its own affair
            log.emit(
                log.LISTENER_FAILED,
                listener=called(listener.function),
                kind=event.kind,
                job_id=event.job_id,
                error=describe(error),
                traceback=short_traceback(error),
            )

    def _in_thread(self, listener: Listener, event: Event) -> object:
        _listening.set(self)
        return listener.function(event)

    def _tell_missed(self) -> None:
        missed, self._missed = self._missed, 0
        if missed:
            log.emit(log.LISTENERS_MISSED, count=missed)


def _call_observer(function: Callable[..., None], *told: object, doing: str) -> None:
    try:
        function(*told)
    except Exception as error:  # whoever counts wrongly harms no job
        log.emit(log.TELEMETRY_FAILED, doing=doing, error=describe(error))


class Bus:
    """Tells the listeners and streams of one client; where there are none it costs one look at `heard`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.heard: frozenset[str] = frozenset()
        """The kinds of events that anybody wants to hear of, or counts."""
        self._told: frozenset[str] = frozenset()
        self._adders: list[Callable[[str, int], None]] = []
        self._listeners: dict[str, list[Listener]] = {}
        self._observers: dict[str, list[Callable[[Event], None]]] = {}
        self._streams: list[weakref.ref[Events]] = []
        self._teller: Teller | None = None

    def decorator(self, kind: object, queue: str | None) -> Callable[[L], L]:
        """Return what has a function called with each event of a kind from then on."""
        known = _known(kind)
        if queue is not None:
            checked_name(queue)

        def decorate(function: L) -> L:
            listener = Listener(queue, function)
            self._listeners[known] = [*self._listeners.get(known, ()), listener]
            self._count()
            return function

        return decorate

    def stream(self, queue: str | None, limit: int) -> Events:
        """Return a stream of what happens from now on."""
        stream = Events(None if queue is None else checked_name(queue), limit, self._close)
        self._streams = [*self._streams, weakref.ref(stream, self._forget)]
        self._count()
        return stream

    def observe(self, function: Callable[[Event], None], *kinds: EventKind) -> Callable[[], None]:
        """Have a quick function called at once with each event of these kinds; return what ends that.

        For what counts: nothing is dropped, and nobody waits for it. What it raises is logged.
        """
        for kind in kinds:
            self._observers[kind] = [*self._observers.get(kind, ()), function]
        self._count()

        def end() -> None:
            for kind in kinds:
                left = [other for other in self._observers.pop(kind, ()) if other is not function]
                if left:
                    self._observers[kind] = left
            self._count()

        return end

    def count_added(self, function: Callable[[str, int], None]) -> Callable[[], None]:
        """Have a quick function told how many jobs of which queue are added; return what ends that.

        Once for each queue of an operation: of a hundred thousand jobs no events are made for it.
        """
        self._adders = [*self._adders, function]
        self._count()

        def end() -> None:
            self._adders = [other for other in self._adders if other is not function]
            self._count()

        return end

    def added(self, jobs: Sequence[NewJob]) -> None:
        """Tell of jobs that were added, while the client is open."""
        if self._adders and self._teller is not None:
            for queue, number in Counter(job.queue for job in jobs).items():
                for function in self._adders:
                    _call_observer(function, queue, number, doing="count jobs")
        if "added" in self._told:
            for job in jobs:
                self.tell("added", job_id=job.id, queue=job.queue, task=job.task)

    def _close(self, stream: Events) -> None:
        self._streams = [ref for ref in self._streams if ref() is not stream]
        self._count()

    def _forget(self, gone: weakref.ref[Events]) -> None:
        self._streams = [ref for ref in self._streams if ref is not gone]
        self._count()

    def _count(self) -> None:
        self._told = KINDS if self._streams else frozenset((*self._listeners, *self._observers))
        self.heard = self._told | {"added"} if self._adders else self._told

    def tell(
        self,
        kind: EventKind,
        *,
        job_id: str,
        queue: str,
        task: str,
        attempt: int = 0,
        at: int | None = None,
        **more: Any,
    ) -> None:
        """Tell whoever wants to hear of it, while the client is open; called in its event loop."""
        if kind not in self._told or self._teller is None:
            return
        when = from_millis(self._clock.now() if at is None else at)
        event = Event(kind=kind, job_id=job_id, queue=queue, task=task, attempt=attempt, at=when, **more)
        for function in self._observers.get(kind, ()):
            _call_observer(function, event, doing=f"observe {kind}")
        for ref in self._streams:
            stream = ref()
            if stream is not None:
                stream.put(event)
        wanting = [listener for listener in self._listeners.get(kind, ()) if listener.wants(queue)]
        if wanting:
            self._teller.put(event, wanting)

    @property
    def calling(self) -> bool:
        """Whether who asks is a listener of this client."""
        return self._teller is not None and self._teller.calling

    def open(self) -> None:
        """Tell from now on; called in the context in which listeners are to run."""
        self._teller = Teller()

    async def close(self, stop: StopRequest) -> None:
        """End the streams, and tell listeners what waits, within the limit of a stop."""
        streams, self._streams = self._streams, []
        self._count()
        for ref in streams:
            stream = ref()
            if stream is not None:
                stream.end()
        teller = self._teller
        if teller is not None:
            await teller.close(stop)
            self._teller = None
