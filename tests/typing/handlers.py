"""What type checkers say of handlers. An ignore comment marks an error that must be there."""
# pyright: standard, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar, assert_type

import msgspec

from backlite_async import Client, JobContext, QueueConfig, Task

MAIL = QueueConfig("mail")


class SendEmail(Task):
    config: ClassVar[QueueConfig] = MAIL
    to: str
    subject: str = ""


class SendLetter(Task):
    config: ClassVar[QueueConfig] = MAIL
    street: str


class Frozen(msgspec.Struct, frozen=True):
    config: ClassVar[QueueConfig] = MAIL
    value: int


class SendInvoice(SendEmail):
    amount: float = 0.0


client = Client("app.db")

# -- the decorator: right -------------------------------------------------------------------------


@client.handler(SendEmail)
async def with_job(task: SendEmail, job: JobContext) -> None: ...


@client.handler(SendEmail)
async def without_job(task: SendEmail) -> None: ...


@client.handler(SendEmail)
def sync_with_job(task: SendEmail, job: JobContext) -> None: ...


@client.handler(SendEmail)
def sync_without_job(task: SendEmail) -> None: ...


@client.handler(SendEmail)
async def other_names(a: SendEmail, b: JobContext) -> None: ...


@client.handler(SendEmail)
async def returns_something(task: SendEmail) -> int:
    return 1


@client.handler(Frozen)
async def plain_struct(task: Frozen) -> None: ...


@client.handler(SendInvoice)
async def takes_the_base(task: SendEmail) -> None: ...


@client.handler(SendEmail)
async def takes_either(task: SendEmail | SendLetter) -> None: ...


@client.handler(SendEmail)
async def optional_job(task: SendEmail, job: JobContext | None = None) -> None: ...


# -- the decorator: what is decorated stays what it was -------------------------------------------

assert_type(sync_without_job(SendEmail("a")), None)


async def handlers_can_be_called(job: JobContext) -> None:
    """A handler is a function like any other, also after its registration."""
    await with_job(SendEmail("a"), job)
    await without_job(SendEmail("a"))
    sync_with_job(SendEmail("a"), job)
    assert_type(await returns_something(SendEmail("a")), int)
    await with_job(SendEmail("a"))  # type: ignore[call-arg]


# -- the decorator: wrong -------------------------------------------------------------------------


@client.handler(SendEmail)  # type: ignore[arg-type]
async def wrong_task(task: SendLetter) -> None: ...


@client.handler(SendEmail)  # type: ignore[arg-type]
async def wrong_task_with_job(task: SendLetter, job: JobContext) -> None: ...


@client.handler(SendEmail)  # type: ignore[arg-type]
def sync_wrong_task(task: SendLetter) -> None: ...


@client.handler(SendEmail)  # type: ignore[arg-type]
async def takes_a_subclass(task: SendInvoice) -> None: ...


@client.handler(SendEmail)  # type: ignore[arg-type]
async def wrong_job(task: SendEmail, job: int) -> None: ...


@client.handler(SendEmail)  # type: ignore[arg-type]
async def no_argument() -> None: ...


@client.handler(SendEmail)  # type: ignore[arg-type]
async def three_arguments(task: SendEmail, job: JobContext, more: int) -> None: ...


@client.handler(SendEmail)  # type: ignore[arg-type]
async def keyword_only(task: SendEmail, *, key: str) -> None: ...


@client.handler(SendEmail)  # type: ignore[arg-type]
async def swapped(job: JobContext, task: SendEmail) -> None: ...


@client.handler(int)  # type: ignore[type-var]
async def no_struct(task: int) -> None: ...


# -- register: right ------------------------------------------------------------------------------


class Service:
    """Handlers can be methods."""

    async def send(self, task: SendEmail, job: JobContext) -> None: ...

    def print(self, task: SendLetter) -> None: ...

    async def __call__(self, task: SendEmail) -> None: ...


async def with_mailer(mailer: object, task: SendEmail, job: JobContext) -> None: ...


def logged(
    function: Callable[[SendEmail], Coroutine[Any, Any, None]],
) -> Callable[[SendEmail], Coroutine[Any, Any, None]]:
    return function


client.register(SendEmail, with_job)
client.register(SendEmail, without_job)
client.register(SendEmail, sync_with_job)
client.register(SendEmail, sync_without_job)
client.register(SendEmail, Service().send)
client.register(SendLetter, Service().print)
client.register(SendEmail, Service())
client.register(SendEmail, functools.partial(with_mailer, "mailer"))
client.register(SendEmail, logged(without_job))
client.register(SendEmail, lambda task: print(task.to))
client.register(SendEmail, lambda task, job: print(task.to, job.id))
client.register(Frozen, plain_struct)
client.register(SendInvoice, takes_the_base)

# -- register: wrong ------------------------------------------------------------------------------


async def job_is_a_number(task: SendEmail, job: int) -> None: ...


async def takes_three(task: SendEmail, job: JobContext, more: int) -> None: ...


async def takes_none() -> None: ...


def needs_a_keyword(task: SendEmail, *, key: str) -> None: ...


async def takes_an_invoice(task: SendInvoice) -> None: ...


client.register(SendLetter, with_job)  # type: ignore[arg-type]
client.register(SendLetter, sync_without_job)  # type: ignore[arg-type]
client.register(SendLetter, Service().send)  # type: ignore[arg-type]
client.register(SendEmail, job_is_a_number)  # type: ignore[arg-type]
client.register(SendEmail, takes_three)  # type: ignore[arg-type]
client.register(SendEmail, takes_none)  # type: ignore[arg-type]
client.register(SendEmail, needs_a_keyword)  # type: ignore[arg-type]
client.register(SendEmail, takes_an_invoice)  # type: ignore[arg-type]
client.register(SendEmail, with_mailer)  # type: ignore[arg-type]
client.register(SendEmail, None)  # type: ignore[call-overload]
client.register(SendEmail)  # type: ignore[call-overload]
client.register(SendEmail("a"), without_job)  # type: ignore[call-overload]
