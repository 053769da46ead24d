"""The command `backlite`: what is called how, and what its exit status means."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import click

from .. import BackliteError, InvalidType, InvalidValue, PayloadError, __version__
from . import (
    _bench,
    _demo,
    _doctor,
    _queues,
    _run,
    _schedules,
    _stats,
    _steer,
    _tasks,
    _ui,
    _upkeep,
    _workflows,
)
from ._base import Group, Settings, Terminated, command, without_client
from ._filters import NAMES

__all__ = ["root", "run"]

HELP = """Background jobs inside an asyncio application, kept in a SQLite file.

Which file it is says --db PATH, before or behind any command, or the variable BACKLITE_DB.

Data goes to stdout, everything else to stderr; --json writes one object a line: instants in ISO 8601 and UTC,
durations in seconds, payloads as values.

Exit status: 0 done, also where a list is empty; 1 failed, or the doctor found something; 2 said wrongly; 3
there is nothing of this id or name; 130 interrupted; 143 ended by SIGTERM.
"""

INTERRUPTED, TERMINATED = 130, 143
AS_ARGUMENT = (
    rf"(?<![\w.(])({'|'.join((*NAMES, 'last', 'after', 'before'))})=(?:datetime\.\w+\([^()]*\)|(?=(\S?)))"
)
"""What the library calls an argument, which is an option here."""

CODES: Sequence[tuple[type[Exception] | tuple[type[Exception], ...], int]] = (
    (LookupError, 3),
    ((InvalidValue, InvalidType, PayloadError), 2),
)

root = Group(
    "backlite",
    help=HELP,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
root.params.append(
    click.Option(
        ["--version"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=lambda context, _, value: _version(context) if value else None,
        help="Show the version and exit.",
    )
)
for part in (
    *(_upkeep.migrate, _run.run, _ui.ui, _stats.stats),
    *(_queues.queues, _steer.jobs, _schedules.schedules, _workflows.workflow, _tasks.task),
    *(_doctor.doctor, _upkeep.backup, _upkeep.prune, _demo.demo, _bench.bench),
):
    root.add_command(part)


def _version(context: click.Context) -> None:
    click.echo(f"backlite_async {__version__}")
    context.exit()


@command(None, "completion", 'eval "$(backlite completion bash)"', "backlite completion fish | source")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@without_client
def completion(settings: Settings, shell: str) -> None:
    """Print what makes a shell complete commands and options."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(root, {}, "backlite", COMPLETE).source())


root.add_command(completion)
COMPLETE = "_BACKLITE_COMPLETE"


def run(arguments: Sequence[str]) -> int:
    """Run a command; return its exit status. What goes wrong is one line on stderr.

    Where whoever reads the output has had enough, click ends the process with 1 and says nothing.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by who has started this: nobody is to read it
            setattr(sys, name, _nowhere("r" if name == "stdin" else "w"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a terminal of old cannot show is no error
            stream.reconfigure(errors="replace")
    try:
        return _ran(arguments)
    finally:
        try:
            sys.stderr.flush()
        except (OSError, ValueError):  # what nobody hears of is no reason to have failed
            sys.stderr = _nowhere("w")


def _ran(arguments: Sequence[str]) -> int:
    try:
        code = root.main(
            [*arguments],
            prog_name=_called(),
            complete_var=COMPLETE,
            standalone_mode=False,
            obj=Settings(),
        )
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt) as error:
        if isinstance(error, KeyboardInterrupt) or isinstance(error.__context__, KeyboardInterrupt):
            return INTERRUPTED
        return 1
    except Terminated:
        return TERMINATED
    except BackliteError as error:
        click.echo(f"Error: {_said(error)}", err=True)
        return next((code for kinds, code in CODES if isinstance(error, kinds)), 1)
    except OSError as error:
        _turn_away()
        click.echo(f"Error: {error.strerror or error}", err=True)
        return 1
    return code if isinstance(code, int) else 0


def _turn_away() -> None:
    """Let what is still to be written go nowhere, which else would fail again at the very end."""
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        return
    sys.stdout = _nowhere("w")


def _nowhere(mode: str) -> IO[str]:
    return open(os.devnull, mode, encoding="utf-8")


def _said(error: BackliteError) -> str:
    """Return an error as one line, with the command that helps instead of the call that does."""
    text = " ".join(str(error).split()).replace("build(name, queue=...)", "--queue NAME")
    text = re.sub(
        AS_ARGUMENT,
        lambda found: f"--{found[1].replace('_', '-')}{' ' * ((found[2] or ',') not in ',;.')}",
        text,
    )
    text = text.replace("give .next or .previous of a page, unchanged", "give what the last page said")
    return text.replace("run await client.install() or Client(install=True)", "run: backlite migrate")


def _called() -> str:
    """Return how this was called, for usage lines."""
    name = Path(sys.argv[0]).name if sys.argv else ""
    return "python -m backlite_async" if name == "__main__.py" else "backlite"
