"""`backlite migrate`, `backup`, `prune`."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from .. import Client, InvalidValue
from ._base import Failure, Settings, command, with_client, without_client
from ._filters import DURATION, STATE, all_and_yes, check_names, confirmed, given
from ._output import Output
from ._steer import COMPLETED, STEPS_STAY, counted

__all__ = ["backup", "migrate", "prune"]


@command(None, "migrate", "backlite migrate --db app.db")
@without_client
def migrate(settings: Settings) -> None:
    """Create the database, or bring it up to date; safe to repeat, also while it is in use."""
    path, out = settings.path, settings.out

    async def install() -> tuple[int, int]:
        client = Client(path, workers=0)
        found = (await client.schema())[0] if os.path.exists(path) else 0
        await client.install()
        return found, (await client.schema())[0]

    before, after = asyncio.run(install())
    text = (
        f"schema version {after}: nothing to do" if before == after else f"schema version {before} -> {after}"
    )
    out.answer({"database": path, "from": before, "to": after}, f"{path}: {text}")


@command(None, "backup", "backlite backup /backups/app-monday.db")
@click.argument("path")
@with_client
async def backup(client: Client, out: Output, *, path: str) -> None:
    """Copy the whole database to a new file while it is in use, the application's tables too."""
    try:
        await client.backup(path)
    except InvalidValue as error:  # something is there: nothing is wrong with how it was said
        raise Failure(str(error)) from error
    size = os.path.getsize(path)
    out.answer({"path": os.path.abspath(path), "bytes": size}, f"{path}: {size:,} bytes")


@command(None, "prune", "backlite prune --older-than 7d", "backlite prune --state succeeded --vacuum --yes")
@click.option("--older-than", type=DURATION, help="Only those that finished so long ago: 7d.")
@click.option("--state", type=STATE, multiple=True, help="Only those in this state; several may be given.")
@click.option("--queue", metavar="NAME", help="Only those of this queue.")
@click.option("--vacuum", is_flag=True, help="Then give the free space back to the disk.")
@all_and_yes
@with_client
async def prune(
    client: Client,
    out: Output,
    *,
    older_than: timedelta | None,
    state: tuple[str, ...],
    queue: str | None,
    vacuum: bool,
    yes: bool,
) -> int:
    """Delete completed jobs that retention keeps: all, or older ones, or those in a state.

    Steps of workflows stay: backlite workflow delete.
    """
    states = state or tuple(map(str, COMPLETED))
    wrong = [name for name in states if name not in COMPLETED]
    if wrong:
        raise click.UsageError(f"prune is for jobs that are {', '.join(COMPLETED)}, not {wrong[0]}.")
    try:
        end = datetime.now(UTC) - (older_than or timedelta())
    except OverflowError:  # before all time
        end = datetime.min.replace(tzinfo=UTC)
    filters = given({"state": states, "queue": queue, "finished_before": end})
    await check_names(client, {"queue": queue})
    number = await client.jobs.count(**filters)
    if number and not confirmed(out, f"prune: {counted(number)}, completed. {STEPS_STAY}", yes=yes):
        return 1
    deleted = await client.jobs.delete(**filters) if number else 0
    if deleted < number:
        out.say(STEPS_STAY)
    await _vacuumed(client, out, deleted, vacuum=vacuum)
    return 0


async def _vacuumed(client: Client, out: Output, deleted: int, *, vacuum: bool) -> None:
    answer: dict[str, Any] = {"action": "prune", "count": deleted}
    if vacuum:
        await client.vacuum()
        answer["vacuumed"] = True
    out.answer(answer, f"deleted: {counted(deleted)}{', and the free space given back' * vacuum}")
