"""`backlite ui`: the page, served alone."""

from __future__ import annotations

import asyncio
import ipaddress
import socket

import click

from .. import Client
from ._application import app_option, load
from ._base import Failure, Settings, check_schema, command, existing, without_client
from ._logs import log_to_stderr

__all__ = ["ui"]

MISSING = "the page needs its extra: pip install 'backlite_async[web]'"


@command(None, "ui", "backlite ui --db app.db", "backlite ui --app shop.jobs:client --read-only --port 9000")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=8080, show_default=True, help="0: any free one."
)
@click.option("--read-only", is_flag=True, help="Show everything, change nothing.")
@app_option()
@without_client
def ui(settings: Settings, *, host: str, port: int, read_only: bool, app: str | None) -> int:
    """Serve the page that shows queues, jobs, schedules and workflows, until interrupted.

    Only this computer may look at it, whatever --host says; mount the page in an application to give others
    access.
    """
    path = "" if app is not None else settings.path
    try:
        import uvicorn

        from ..web import Dashboard
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("backlite_async") and error.name != "backlite_async.web":
            raise
        raise Failure(MISSING) from None
    if app is not None and settings.db is not None:
        raise click.UsageError("--app names the database, too; leave out --db.")
    client = load(app) if app is not None else _client(path)
    log_to_stderr()  # every action is logged
    page = Dashboard(client, read_only=read_only)
    listening = _listen(host, port)
    found = listening.getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    settings.out.say(f"the page: http://{shown}:{found}/   (Ctrl-C ends it)")
    if not _is_local(listening.getsockname()[0]):
        settings.out.say(
            "only this computer is let in, whatever --host says: mount the page in an application"
        )
    server = uvicorn.Server(uvicorn.Config(page, log_level="warning", lifespan="on"))
    with listening:
        server.run(sockets=[listening])
    return 0 if server.started else 1


def _is_local(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def _client(path: str) -> Client:
    client = Client(existing(path), workers=0, install=False)
    asyncio.run(check_schema(client, path))
    return client


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise Failure(
            f"cannot listen on {host}, port {port}: {error.strerror}; --port says another."
        ) from None
