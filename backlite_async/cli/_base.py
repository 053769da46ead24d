"""What commands are made of: options that stand anywhere, examples, a client, errors in one line."""

from __future__ import annotations

import asyncio
import difflib
import functools
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from .. import Client
from ._logs import log_to_stderr
from ._output import Output

__all__ = [
    "Body",
    "Command",
    "Failure",
    "Group",
    "NothingFound",
    "Settings",
    "Terminated",
    "check_schema",
    "command",
    "did_you_mean",
    "existing",
    "with_client",
    "without_client",
]


class Failure(click.ClickException):
    """Something went wrong, and one line says what."""

    exit_code = 1


class NothingFound(Failure):
    """There is nothing of this id or name."""

    exit_code = 3


class Terminated(Exception):
    """The process was asked to end, by SIGTERM."""


@dataclass
class Settings:
    """What was said by options that stand before or behind any command."""

    db: str | None = None
    json: bool = False

    @property
    def out(self) -> Output:
        """What writes the answer."""
        return Output(as_json=self.json)

    @property
    def path(self) -> str:
        """The database, as an option or the environment names it."""
        path = os.environ.get("BACKLITE_DB") if self.db is None else self.db
        if self.db == "":
            raise click.UsageError("--db is empty, perhaps by a variable that is not set; give a path.")
        if not path:
            raise click.UsageError("which database? Give --db PATH, or set the variable BACKLITE_DB.")
        if path == ":memory:" or path.startswith("file:"):
            raise click.UsageError(f"--db {path} is no file that another process could have; give its path.")
        return path


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a sentence with what may have been meant; empty, if nothing looks like it."""
    found = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    return f" Did you mean {' or '.join(repr(one) for one in found)}?" if found else ""


def existing(path: str) -> str:
    """Return the path of a database that is there; reading creates none."""
    if os.path.exists(path):
        return path
    folder = Path(path).parent
    beside = [entry.name for entry in folder.iterdir() if entry.is_file()] if folder.is_dir() else []
    raise Failure(
        f"there is no database {path!r}.{did_you_mean(Path(path).name, beside)}"
        f" (backlite migrate --db {path} makes one.)"
    )


# -- options that stand anywhere --------------------------------------------------------------------


def _settings(context: click.Context) -> Settings:
    return context.ensure_object(Settings)


def _set(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def note(context: click.Context, parameter: click.Parameter, value: Any) -> None:
        if value or value == "":
            setattr(_settings(context), name, value)

    return note


def _everywhere() -> list[click.Parameter]:
    return [
        click.Option(
            ["--db"],
            metavar="PATH",
            expose_value=False,
            callback=_set("db"),
            help="The database file; also by the variable BACKLITE_DB.",
        ),
        click.Option(
            ["--json", "json_"],
            is_flag=True,
            expose_value=False,
            callback=_set("json"),
            help="Write JSON, one object a line.",
        ),
        click.Option(
            ["-v", "--verbose"],
            is_flag=True,
            expose_value=False,
            callback=lambda context, parameter, value: log_to_stderr() if value else None,
            help="Write the library's log to stderr.",
        ),
    ]


def _first(text: str | None) -> str:
    return (text or "").strip().split("\n\n")[0].replace("\n", " ")


class Command(click.Command):
    """A command with the options that stand anywhere, and examples at the end of its help."""

    examples: Sequence[str] = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        taken = {name for parameter in self.params for name in parameter.opts}
        self.params += [option for option in _everywhere() if taken.isdisjoint(option.opts)]

    def get_short_help_str(self, limit: int = 45) -> str:
        """Return the first sentence, whole."""
        return _first(self.help)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        if self.examples:
            with formatter.section("Examples" if len(self.examples) > 1 else "Example"):
                for line in self.examples:
                    formatter.write(f"{'':{formatter.current_indent}}{line}\n")
        super().format_epilog(ctx, formatter)


class Group(click.Group):
    """Commands by name; it knows what was meant by those that it has not."""

    command_class = Command

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += _everywhere()

    def get_short_help_str(self, limit: int = 45) -> str:
        """Return the first sentence, whole."""
        return _first(self.help)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Print help where nothing was said, on stdout and as no error, whatever the version of click."""
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help())
            ctx.exit()
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command, or say which may have been meant."""
        name = str(args[0])
        if self.get_command(ctx, name) is None and not name.startswith("-") and not ctx.resilient_parsing:
            ctx.fail(f"there is no command {name!r}.{did_you_mean(name, self.commands)}")
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order in which they were made."""
        return list(self.commands)


# -- making commands ---------------------------------------------------------------------------------

Body = Callable[..., Any]


def command(
    group: click.Group | None, name: str, *examples: str, **attributes: Any
) -> Callable[[Body], click.Command]:
    """Make a function a command, of a group if there is one. Each command has examples."""

    def decorate(function: Body) -> click.Command:
        made = click.command(name, cls=Command, **attributes)(function)
        made.examples = examples
        if group is not None:
            group.add_command(made)
        return made

    return decorate


def without_client(function: Body) -> Body:
    """Give a command's function the settings."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return function(_settings(click.get_current_context()), *args, **kwargs)

    return wrapped


def with_client(function: Callable[..., Awaitable[int | None]]) -> Body:
    """Give a command's coroutine function a started client of an existing database, and the output.

    The client runs nothing, and changes no schema.
    """

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> int | None:
        settings = _settings(click.get_current_context())
        client = Client(existing(settings.path), workers=0, install=False)
        return asyncio.run(_within(client, settings, function, args, kwargs))

    return wrapped


async def _within(client: Client, settings: Settings, function: Body, args: Any, kwargs: Any) -> int | None:
    with _ended_in_good_order():
        await check_schema(client, settings.path)
        async with client:
            code: int | None = await function(client, settings.out, *args, **kwargs)
            return code


@contextmanager
def _ended_in_good_order() -> Iterator[None]:
    """Let SIGTERM do what Ctrl-C does: nothing half made is left, and the client is stopped."""
    if sys.platform == "win32":
        yield
        return
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    asked: list[bool] = []

    def end() -> None:
        asked.append(task.cancel())

    loop.add_signal_handler(signal.SIGTERM, end)
    try:
        yield
    except asyncio.CancelledError:
        if asked:
            raise Terminated from None
        raise
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


async def check_schema(client: Client, path: str) -> None:
    """Raise unless this is a database that can be used, before it is opened in a way that changes it."""
    found, newest = await client.schema()
    if found > newest:
        what = f"was written by a newer backlite_async (schema version {found}, this one knows {newest})"
        raise Failure(f"database {path!r} {what}; upgrade it")
    if found < newest:
        what = f"has schema version {found}, this needs {newest}" if found else "has no Backlite schema"
        raise Failure(f"database {path!r} {what}; run: backlite migrate --db {path}")
