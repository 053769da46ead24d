"""`backlite task` and `backlite jobs add`: task types, running one here, adding one."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click
import msgspec

from .. import AddOperation, BackliteError, Client, InvalidState, TaskInfo
from ._application import app_option, load
from ._base import (
    Failure,
    Group,
    NothingFound,
    Settings,
    check_schema,
    command,
    did_you_mean,
    existing,
    without_client,
)
from ._filters import DURATION, FUTURE
from ._jobs import jobs
from ._output import instant

__all__ = ["task"]

task = Group("task", help="List and show task types; run one here, beside the database.")
FIELDS = {"ignore_unknown_options": True, "allow_extra_args": True}


# -- whose task types ------------------------------------------------------------------------------------


async def _client(settings: Settings, app: str | None, *, create: bool = False) -> Client:
    """Return an unstarted client that runs nothing: of an application, with its types, or of a database."""
    if app is None:
        client = Client(existing(settings.path), workers=0, install=False)
        await check_schema(client, settings.path)
        return client
    if settings.db is not None:
        raise click.UsageError("--app names the database, too; leave out --db.")
    client = load(app)
    if create and client.installs:
        await client.install()
    return client.observer()


async def find(client: Client, name: str, queue: str | None) -> TaskInfo:
    """Return a task type, or say which may have been meant."""
    found = await client.tasks.get(name, queue)
    if found is None:
        known = {info.name for info in await client.tasks.list()}
        where = "" if queue is None else f" in queue {queue!r}"
        hint = did_you_mean(name, known) or " backlite task list tells which there are."
        raise NothingFound(f"there is no task type {name!r}{where}.{hint}")
    return found


@command(task, "list", "backlite task list", "backlite task list --app shop.jobs:client --json")
@app_option()
@without_client
def list_tasks(settings: Settings, *, app: str | None) -> None:
    """List the task types that any process has declared."""

    async def show() -> None:
        async with await _client(settings, app) as client:
            found = await client.tasks.list()
        if settings.json:
            for info in found:
                settings.out.data(info)
        elif found:
            rows = [(info.name, info.queue, info.title, ", ".join(_fields(info))) for info in found]
            settings.out.table(rows, ("task", "queue", "title", "fields"))
        else:
            settings.out.say("no process has declared a task type yet")

    asyncio.run(show())


@command(task, "show", "backlite task show SendEmail")
@click.argument("name")
@click.option("--queue", metavar="NAME", help="Where several queues have one of this name.")
@app_option()
@without_client
def show_task(settings: Settings, *, name: str, queue: str | None, app: str | None) -> None:
    """Show a task type: what it does, and its fields."""

    async def show() -> None:
        async with await _client(settings, app) as client:
            info = await find(client, name, queue)
        out = settings.out
        if settings.json:
            out.data(info)
            return
        out.pairs([("task", info.name), ("queue", info.queue), ("declared", instant(info.registered_at))])
        if info.description:
            out.heading("description")
            out.text(info.description)
        out.heading("fields")
        required = set(_definition(info).get("required", ()))
        rows = [
            (field, _kind(schema), "required" if field in required else _default(schema))
            for field, schema in _fields(info).items()
        ]
        out.table(rows, ("field", "type", "default"))

    asyncio.run(show())


def _definition(info: TaskInfo) -> Mapping[str, Any]:
    """Return the part of a schema that says which fields there are."""
    schema: Mapping[str, Any] = info.schema or {}
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    found: Mapping[str, Any] = schema.get("$defs", {}).get(name, schema)
    return found


def _fields(info: TaskInfo) -> Mapping[str, Mapping[str, Any]]:
    found: Mapping[str, Mapping[str, Any]] = _definition(info).get("properties", {})
    return found


def _kind(schema: Mapping[str, Any]) -> str:
    """Return a field's type in a word."""
    if "anyOf" in schema:
        return " or ".join(_kind(inner) for inner in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(msgspec.json.encode(value).decode() for value in schema["enum"])
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    kind = str(schema.get("format") or schema.get("type") or "anything")
    return f"{kind} of {_kind(schema['items'])}" if isinstance(schema.get("items"), dict) else kind


def _default(schema: Mapping[str, Any]) -> str:
    return msgspec.json.encode(schema["default"]).decode() if "default" in schema else ""


# -- fields on the command line --------------------------------------------------------------------------


def fields_of(arguments: Sequence[str], more: Sequence[str], payload: str | None) -> dict[str, Any]:
    """Return the fields that `--name value`, `--name=value`, `-f name=value` and `--payload` say.

    One that is given several times is a list. In names as options, dashes stand for underscores.
    """
    found = {} if payload is None else _object("--payload", payload)
    said: dict[str, list[str]] = {}
    for name, value in (*_pairs(arguments), *_assignments(more)):
        said.setdefault(name, []).append(value)
    return found | {name: values[0] if len(values) == 1 else values for name, values in said.items()}


def _object(option: str, text: str) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise click.UsageError(f"{option} is no JSON: {error}.") from None
    if not isinstance(found, dict):
        raise click.UsageError(f'{option} must be an object, such as \'{{"to": "ada"}}\'.')
    return found


def _pairs(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    left = [*arguments]
    while left:
        first = left.pop(0)
        if not first.startswith("--") or first == "--":
            raise click.UsageError(
                f"{first!r} belongs to no field; write --FIELD {first} or -f FIELD={first}."
            )
        name, equals, value = first.removeprefix("--").partition("=")
        if not equals:
            if not left:
                raise click.UsageError(f"--{name} needs a value: --{name} VALUE.")
            value = left.pop(0)
        yield name.replace("-", "_"), value


def _assignments(more: Sequence[str]) -> Iterator[tuple[str, str]]:
    for text in more:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise click.UsageError(f"-f {text}: write -f FIELD=VALUE.")
        yield name, value


def field_options(function: Any) -> Any:
    """Give a command the options that say a task's fields."""
    made = click.option("--payload", metavar="JSON", help="All fields as one JSON object.")(function)
    made = click.option(
        "-f",
        "--field",
        "fields",
        multiple=True,
        metavar="FIELD=VALUE",
        help="A field; the same as --FIELD VALUE.",
    )(made)
    return click.argument("more", nargs=-1, type=click.UNPROCESSED, metavar="[--FIELD VALUE]...")(made)


# -- running and adding ------------------------------------------------------------------------------------


@command(
    task,
    "run",
    "backlite task run SendEmail --app shop.jobs:client --to ada@example.org --subject Hello",
    'backlite task run Resize --app shop.jobs:client --payload \'{"path": "a.png"}\' --json',
    context_settings=FIELDS,
)
@click.argument("name")
@field_options
@click.option("--queue", metavar="NAME", help="Where several queues have one of this name.")
@app_option(required=True)
@without_client
def run_task(
    settings: Settings,
    *,
    name: str,
    more: tuple[str, ...],
    fields: tuple[str, ...],
    payload: str | None,
    queue: str | None,
    app: str,
) -> None:
    """Run the handler of a task in this process, with middleware and timeout; print what it returns.

    Nothing is stored, and no worker is needed; a handler that adds jobs itself needs one.
    """
    values = fields_of(more, fields, payload)
    client = load(app)
    found, result = asyncio.run(_result(client, name, values, queue))
    settings.out.answer({"task": found, "result": result}, _returned(result))


NOTHING_STORED = (
    "task run stores nothing and starts no client: a handler that adds jobs needs a worker"
    " (backlite jobs add, then backlite run --drain)"
)


async def _result(client: Client, name: str, fields: dict[str, Any], queue: str | None) -> tuple[str, Any]:
    known = {other for kind in client.registry.types.values() for other in kind.names}
    if name not in known:
        raise NothingFound(f"the application has no task type {name!r}.{did_you_mean(name, known)}")
    built = await client.tasks.build(name, fields, queue=queue, text=True)
    try:
        result = await client.run(built)
    except BackliteError as error:
        hint = f"; {NOTHING_STORED}" if isinstance(error, InvalidState) and not client.is_open else ""
        raise Failure(" ".join(str(error).split()) + hint) from error
    except (Exception, SystemExit, asyncio.CancelledError) as error:  # the handler's own
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
            raise  # Ctrl-C
        click.echo(traceback.format_exc(), err=True, nl=False)  # its programmer wants to see where
        raise Failure(f"the handler of {name} raised {type(error).__qualname__}: {error}") from error
    try:
        return name, msgspec.to_builtins(result)
    except (TypeError, ValueError, RecursionError) as error:
        text = f"the handler of {name} returned what is no JSON, which no job keeps: {error}"
        raise Failure(text) from error


def _returned(result: Any) -> str:
    return "" if result is None else msgspec.json.format(msgspec.json.encode(result), indent=2).decode()


OPTIONS = (
    click.option("--queue", metavar="NAME", help="Where several queues have a task type of this name."),
    click.option("--wait", type=DURATION, help="Due in so long: 90 (seconds), 15m, 2h."),
    click.option("--at", type=FUTURE, help="Due at this instant: 2030-01-31T12:00Z."),
    click.option("--priority", type=click.IntRange(-10, 10), help="From -10 to 10, instead of the queue's."),
    click.option("--key", metavar="KEY", help="What its limit by key counts against."),
    click.option("--id", "job_id", metavar="ID", help="An id of your own; if it is there, nothing is added."),
    click.option("--unique", metavar="KEY", help="Add nothing while a job with this unique key is live."),
    click.option("--max-attempts", type=click.IntRange(1), help="Tries until it has failed."),
    click.option("--timeout", type=DURATION, help="For each attempt."),
    click.option("--tag", "tags", multiple=True, metavar="TAG", help="To find it by; several may be given."),
    click.option("--meta", metavar="JSON", help="An object to store beside it."),
)


def add_options(function: Any) -> Any:
    """Give a command the options of an add."""
    for option in reversed(OPTIONS):
        function = option(function)
    return function


@command(
    jobs,
    "add",
    "backlite jobs add SendEmail --to ada@example.org --subject Hello --wait 15m",
    "backlite jobs add Resize -f path=a.png -f width=400 --tag import-7",
    'backlite jobs add Resize --app shop.jobs:client --payload \'{"path": "a.png"}\'',
    context_settings=FIELDS,
)
@click.argument("name")
@field_options
@add_options
@app_option()
@without_client
def add(
    settings: Settings,
    *,
    name: str,
    more: tuple[str, ...],
    fields: tuple[str, ...],
    payload: str | None,
    app: str | None,
    **options: Any,
) -> None:
    """Add a job of a task type; print its id.

    The fields are --FIELD VALUE, or -f FIELD=VALUE where an option here has the name of a field; they are
    checked as its handler's process will check them. The code of the task type is not needed, once any
    process has declared it to the database; with --app, it may be a new database, too.
    """
    if options["wait"] is not None and options["at"] is not None:
        raise click.UsageError("give one of --wait and --at.")
    options["meta"] = None if options["meta"] is None else _object("--meta", options["meta"])
    values = fields_of(more, fields, payload)
    asyncio.run(_add(settings, app, name, values, options))


async def _add(
    settings: Settings, app: str | None, name: str, fields: dict[str, Any], options: dict[str, Any]
) -> None:
    async with await _client(settings, app, create=True) as client:
        built = await client.tasks.build(name, fields, queue=options["queue"], text=True)
        added = await _operation(client.add(built), options).save()
    [job_id] = added
    if added.existing:
        settings.out.say("there is such a job already, and nothing was added")
    settings.out.answer({"id": job_id, "new": not added.existing}, job_id)


def _operation(operation: AddOperation, options: dict[str, Any]) -> AddOperation:
    """Say of an operation what options say."""
    for name, call in (
        ("wait", operation.wait),
        ("at", operation.at),
        ("priority", operation.priority),
        ("key", operation.key),
        ("job_id", operation.id),
        ("unique", operation.unique),
        ("max_attempts", operation.max_attempts),
        ("timeout", operation.timeout),
    ):
        if options[name] is not None:
            call(options[name])
    if options["tags"]:
        operation.tags(*options["tags"])
    if options["meta"] is not None:
        operation.meta(options["meta"])
    return operation
