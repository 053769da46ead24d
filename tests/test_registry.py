"""Which handler runs which task type: what is taken, what is refused, and that a refusal changes nothing."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, ClassVar, Optional

import msgspec
import pytest

from backlite_async import (
    AlreadyRegistered,
    BackliteError,
    InvalidTask,
    InvalidType,
    JobContext,
    QueueConfig,
    Task,
)
from backlite_async._plan import Kind
from backlite_async._registry import Handler, Registry
from backlite_async._task import task_type

MAIL = QueueConfig("mail")


class SendEmail(Task):
    config: ClassVar[QueueConfig] = MAIL
    to: str = ""


class SendLetter(Task):
    config: ClassVar[QueueConfig] = MAIL
    to: str = ""


class Alone(msgspec.Struct):
    config: ClassVar[QueueConfig] = QueueConfig("alone")


TASK: Any = SendEmail("a")
JOB: Any = object()


def registered(function: Callable[..., Any], cls: type = SendEmail) -> Handler:
    registry = Registry()
    registry.register(cls, function)
    kind = task_type(cls)
    handler = registry.find(kind.config.name, kind.name)
    assert handler is not None
    assert handler.function is function
    assert registry.kinds == [Kind(kind.config.name, kind.name, handler.threaded)]
    return handler


# -- shapes of handlers ---------------------------------------------------------------------------


async def with_job(task: SendEmail, job: JobContext) -> None: ...


async def without_job(task: SendEmail) -> None: ...


def sync_with_job(task: SendEmail, job: JobContext) -> None: ...


def sync_without_job(task: SendEmail) -> None: ...


async def unannotated(task, job): ...  # type: ignore[no-untyped-def]


async def other_names(a: SendEmail, b: JobContext) -> None: ...


async def positional_only(task: SendEmail, job: JobContext, /) -> None: ...


async def optional_job(task: SendEmail, job: JobContext | None = None) -> None: ...


async def optional_third(task: SendEmail, job: JobContext, extra: int = 0) -> None: ...


async def optional_other(task: SendEmail, retries: int = 3) -> None: ...


async def optional_keyword(task: SendEmail, *, verbose: bool = False) -> None: ...


async def task_and_rest(task: SendEmail, *rest: object) -> None: ...


async def only_rest(*arguments: Any) -> None: ...


async def anything(*arguments: Any, **options: Any) -> None: ...


async def extra_first(mailer: object, task: SendEmail, job: JobContext) -> None: ...


def sync_extra_first(mailer: object, task: SendEmail) -> None: ...


class Service:
    async def method(self, task: SendEmail, job: JobContext) -> None: ...

    def sync_method(self, task: SendEmail) -> None: ...

    @classmethod
    async def of_class(cls, task: SendEmail) -> None: ...

    @staticmethod
    async def static(task: SendEmail, job: JobContext) -> None: ...


class AsyncCallable:
    async def __call__(self, task: SendEmail, job: JobContext) -> None: ...


class SyncCallable:
    def __call__(self, task: SendEmail) -> None: ...


def wrapping(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return await function(*args, **kwargs)

    return wrapper


@pytest.mark.parametrize(
    ("function", "threaded", "wants_job"),
    [
        pytest.param(with_job, False, True, id="async def, job"),
        pytest.param(without_job, False, False, id="async def"),
        pytest.param(sync_with_job, True, True, id="def, job"),
        pytest.param(sync_without_job, True, False, id="def"),
        pytest.param(unannotated, False, True, id="no annotations"),
        pytest.param(other_names, False, True, id="other names"),
        pytest.param(positional_only, False, True, id="positional only"),
        pytest.param(optional_job, False, True, id="optional job"),
        pytest.param(optional_third, False, True, id="optional third argument"),
        pytest.param(optional_other, False, False, id="optional second argument that is no job"),
        pytest.param(optional_keyword, False, False, id="optional keyword"),
        pytest.param(task_and_rest, False, False, id="task and *rest"),
        pytest.param(only_rest, False, False, id="*arguments"),
        pytest.param(anything, False, False, id="*arguments, **options"),
        pytest.param(Service().method, False, True, id="method"),
        pytest.param(Service().sync_method, True, False, id="def method"),
        pytest.param(Service.of_class, False, False, id="class method"),
        pytest.param(Service.static, False, True, id="static method"),
        pytest.param(AsyncCallable(), False, True, id="object with async __call__"),
        pytest.param(SyncCallable(), True, False, id="object with __call__"),
        pytest.param(functools.partial(extra_first, "mailer"), False, True, id="partial"),
        pytest.param(functools.partial(sync_extra_first, "mailer"), True, False, id="partial of def"),
        pytest.param(
            functools.partial(functools.partial(extra_first), "mailer"), False, True, id="partial of partial"
        ),
        pytest.param(functools.partial(Service().method), False, True, id="partial of method"),
        pytest.param(functools.partial(AsyncCallable()), False, True, id="partial of object"),
        pytest.param(wrapping(with_job), False, True, id="wrapped"),
        pytest.param(lambda task: None, True, False, id="lambda"),
        pytest.param(lambda task, job: None, True, True, id="lambda, job"),
        pytest.param(print, True, False, id="built-in"),
    ],
)
def test_shapes(function: Callable[..., Any], threaded: bool, wants_job: bool) -> None:
    """A handler is a coroutine function or runs in a thread, and gets the job if it has a place for it."""
    handler = registered(function)
    assert (handler.threaded, handler.wants_job) == (threaded, wants_job)
    assert handler.arguments(TASK, JOB) == ((TASK, JOB) if wants_job else (TASK,))
    assert handler.config is MAIL
    assert handler.kind is task_type(SendEmail)


def test_a_keyword_bound_by_partial_need_not_be_given() -> None:
    """A partial that fills a required keyword makes the function usable."""

    async def needs_key(task: SendEmail, *, key: str) -> None: ...

    assert not registered(functools.partial(needs_key, key="k")).wants_job


def test_a_job_bound_by_partial_is_not_given_again() -> None:
    """A partial that fills `job` by keyword gets the task alone, since two values would clash."""
    bound = functools.partial(sync_with_job, job=JOB)
    handler = registered(bound)
    handler.function(*handler.arguments(TASK, JOB))


# -- annotations ----------------------------------------------------------------------------------


async def takes_union(task: SendEmail | SendLetter) -> None: ...


async def takes_optional(task: Optional[SendEmail]) -> None: ...  # noqa: UP045 - the old spelling too


async def takes_base(task: Task) -> None: ...


async def takes_struct(task: msgspec.Struct) -> None: ...


async def takes_any(task: Any) -> None: ...


async def takes_object(task: object) -> None: ...


async def takes_unknown(task: NotDefinedAnywhere) -> None: ...  # type: ignore[name-defined] # noqa: F821


async def takes_string(task: "SendEmail") -> None: ...  # noqa: UP037 - a string inside a string


@pytest.mark.parametrize(
    "function",
    [
        takes_union,
        takes_optional,
        takes_base,
        takes_struct,
        takes_any,
        takes_object,
        takes_unknown,
        takes_string,
    ],
)
def test_annotations_that_fit(function: Callable[..., Any]) -> None:
    """A wider annotation, and one that cannot be resolved, is not refused."""
    registered(function)


async def takes_letter(task: SendLetter, job: JobContext) -> None: ...


async def takes_others(task: SendLetter | Alone) -> None: ...


class LetterService:
    async def method(self, task: SendLetter) -> None: ...

    async def __call__(self, task: SendLetter) -> None: ...


@pytest.mark.parametrize(
    "function",
    [
        takes_letter,
        takes_others,
        LetterService().method,
        LetterService(),
        functools.partial(takes_letter),
        wrapping(takes_letter),
    ],
)
def test_a_handler_of_another_task_type(function: Callable[..., Any]) -> None:
    """A function annotated for another type is refused, naming both types."""
    with pytest.raises(InvalidType) as caught:
        Registry().register(SendEmail, function)
    assert "SendLetter" in str(caught.value)
    assert "not SendEmail" in str(caught.value)


# -- what is refused ------------------------------------------------------------------------------


async def three(task: SendEmail, job: JobContext, extra: int) -> None: ...


async def nothing() -> None: ...


async def needs_keyword(task: SendEmail, *, key: str) -> None: ...


async def only_options(**options: Any) -> None: ...


def generator(task: SendEmail) -> Iterator[int]:
    yield 1


async def async_generator(task: SendEmail) -> AsyncIterator[int]:
    yield 1


class GeneratorCallable:
    def __call__(self, task: SendEmail) -> Iterator[int]:
        yield 1


@pytest.mark.parametrize(
    ("function", "name", "reason"),
    [
        pytest.param(three, "three", "needs 3 arguments", id="three arguments"),
        pytest.param(nothing, "nothing", "takes no argument", id="no argument"),
        pytest.param(only_options, "only_options", "takes no argument", id="only **options"),
        pytest.param(needs_keyword, "needs_keyword", "needs the keyword argument 'key'", id="keyword-only"),
        pytest.param(generator, "generator", "does not yield", id="generator"),
        pytest.param(async_generator, "async_generator", "does not yield", id="async generator"),
        pytest.param(functools.partial(generator), "generator", "does not yield", id="partial of generator"),
        pytest.param(GeneratorCallable(), "GeneratorCallable", "does not yield", id="generator object"),
        pytest.param(Service.method, "Service.method", "needs 3 arguments", id="unbound method"),
        pytest.param(None, "None", "must be a function", id="None"),
        pytest.param(5, "5", "must be a function", id="number"),
        pytest.param(Service, "Service", "must be a function", id="class"),
        pytest.param(Service(), "Service", "must be a function", id="object without __call__"),
        pytest.param(lambda: None, "<lambda>", "takes no argument", id="lambda without argument"),
        pytest.param(staticmethod(nothing), "nothing", "takes no argument", id="static method object"),
    ],
)
def test_what_cannot_be_called_with_task_and_job(function: Any, name: str, reason: str) -> None:
    """A function of the wrong shape is refused where it is registered, by its name and with the reason."""
    with pytest.raises(InvalidType) as caught:
        Registry().register(SendEmail, function)
    message = str(caught.value)
    assert message.startswith("handler ")
    assert name in message
    assert reason in message


def test_an_argument_missing_from_a_partial_is_refused() -> None:
    """A partial that leaves three arguments open is refused as the function is."""
    with pytest.raises(InvalidType, match="needs 3 arguments"):
        Registry().register(SendEmail, functools.partial(extra_first))


@pytest.mark.parametrize("cls", [int, None, "SendEmail", Task, SendEmail("a")])
def test_what_is_no_task_type(cls: Any) -> None:
    """Registering for something else says what a task type is."""
    with pytest.raises(InvalidTask):
        Registry().register(cls, without_job)


# -- names, queues, doubles -----------------------------------------------------------------------


def test_nothing_is_found_in_an_empty_registry() -> None:
    """Without handlers there is none to find."""
    registry = Registry()
    assert registry.find("mail", "SendEmail") is None
    assert registry.kinds == []


def test_a_handler_is_found_by_queue_and_name() -> None:
    """The queue's name counts as well as the task's."""
    registry = Registry()
    registry.register(SendEmail, without_job)
    assert registry.find("mail", "SendEmail") is not None
    assert registry.find("other", "SendEmail") is None
    assert registry.find("mail", "SendLetter") is None


def test_a_second_handler() -> None:
    """A second one is refused and names the first; the first stays."""
    registry = Registry()
    registry.register(SendEmail, without_job)
    with pytest.raises(AlreadyRegistered) as caught:
        registry.register(SendEmail, with_job)
    assert isinstance(caught.value, BackliteError)
    assert "'SendEmail'" in str(caught.value)
    assert "'mail'" in str(caught.value)
    assert "without_job" in str(caught.value)
    found = registry.find("mail", "SendEmail")
    assert found is not None
    assert found.function is without_job
    assert registry.kinds == [Kind("mail", "SendEmail", False)]


def test_the_same_handler_twice() -> None:
    """Registering the very same function again is a second handler too."""
    registry = Registry()
    registry.register(SendEmail, without_job)
    with pytest.raises(AlreadyRegistered):
        registry.register(SendEmail, without_job)


def test_one_handler_for_two_task_types() -> None:
    """One function may do several task types."""
    registry = Registry()
    registry.register(SendEmail, takes_union)
    registry.register(SendLetter, takes_union)
    assert registry.kinds == [Kind("mail", "SendEmail", False), Kind("mail", "SendLetter", False)]


class Renamed(Task):
    config: ClassVar[QueueConfig] = MAIL
    task_name: ClassVar[str] = "new-name"
    aliases: ClassVar[tuple[str, ...]] = ("old-name", "older-name")


class TakesTheAlias(Task):
    config: ClassVar[QueueConfig] = MAIL
    task_name: ClassVar[str] = "older-name"


def test_aliases_find_the_same_handler() -> None:
    """Jobs that were stored under an old name run with the handler of the new one."""
    registry = Registry()
    registry.register(Renamed, lambda task: None)
    found = [registry.find("mail", name) for name in ("new-name", "old-name", "older-name")]
    assert found[0] is not None
    assert found == [found[0]] * 3
    assert registry.find("mail", "Renamed") is None
    assert registry.kinds == [Kind("mail", name, True) for name in ("new-name", "old-name", "older-name")]


@pytest.mark.parametrize(("first", "second"), [(Renamed, TakesTheAlias), (TakesTheAlias, Renamed)])
def test_an_alias_that_is_taken(first: type, second: type) -> None:
    """A name clashes with an alias and an alias with a name, whichever comes first."""
    registry = Registry()
    registry.register(first, lambda task: None)
    before = list(registry.kinds)
    with pytest.raises(AlreadyRegistered, match="'older-name'"):
        registry.register(second, lambda task: None)
    assert registry.kinds == before
    assert (registry.find("mail", "new-name") is None) == (first is TakesTheAlias)


def test_a_name_that_is_listed_twice() -> None:
    """An alias equal to the name, as a rename may leave it, is claimed for once."""

    class Twice(Task):
        config: ClassVar[QueueConfig] = MAIL
        task_name: ClassVar[str] = "twice"
        aliases: ClassVar[tuple[str, ...]] = ("twice", "old", "old")

    registry = Registry()
    registry.register(Twice, lambda task: None)
    assert sorted(registry.kinds, key=lambda kind: kind.task) == [
        Kind("mail", "old", True),
        Kind("mail", "twice", True),
    ]


def test_task_types_share_a_queue_by_sharing_its_configuration() -> None:
    """Two task types with one QueueConfig object are two kinds of one queue."""
    registry = Registry()
    registry.register(SendEmail, without_job)
    registry.register(SendLetter, lambda task: None)
    assert {kind.queue for kind in registry.kinds} == {"mail"}


class Impostor(Task):
    config: ClassVar[QueueConfig] = QueueConfig("mail")


def test_two_configurations_of_one_name() -> None:
    """Another object of the same name is refused, naming queue and type, and changes nothing."""
    registry = Registry()
    registry.register(SendEmail, without_job)
    with pytest.raises(AlreadyRegistered) as caught:
        registry.register(Impostor, lambda task: None)
    assert "'mail'" in str(caught.value)
    assert "Impostor" in str(caught.value)
    assert registry.find("mail", "Impostor") is None
    assert registry.kinds == [Kind("mail", "SendEmail", False)]


def test_a_queue_that_was_only_added_to_counts() -> None:
    """A configuration that was met by adding clashes with another one that is registered later."""
    registry = Registry()
    registry.meet(task_type(SendEmail))
    registry.meet(task_type(SendLetter))
    with pytest.raises(AlreadyRegistered):
        registry.register(Impostor, lambda task: None)
    with pytest.raises(AlreadyRegistered):
        registry.meet(task_type(Impostor))
    assert registry.kinds == []


@pytest.mark.parametrize("function", [three, nothing, needs_keyword, generator, takes_letter, None])
def test_a_refused_handler_leaves_no_trace(function: Any) -> None:
    """After a refusal the name is free, and so is the queue's name for another configuration."""
    registry = Registry()
    with pytest.raises(InvalidType):
        registry.register(SendEmail, function)
    assert registry.find("mail", "SendEmail") is None
    assert registry.kinds == []
    registry.register(Impostor, lambda task: None)
    assert registry.kinds == [Kind("mail", "Impostor", True)]


def test_registries_are_independent() -> None:
    """Two clients in a process each have handlers and queues of their own."""
    one, other = Registry(), Registry()
    one.register(SendEmail, without_job)
    other.register(Impostor, lambda task: None)
    assert other.find("mail", "SendEmail") is None
