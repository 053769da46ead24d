"""The FastAPI example: in this process, and under a real uvicorn, stopped by a real signal."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from backlite_async import Client, testing

from .test_examples import EXAMPLES, load

REASON = "the examples' dependencies are not installed: pip install fastapi uvicorn httpx"
for _module in ("fastapi", "uvicorn", "httpx"):
    pytest.importorskip(_module, reason=REASON)

if TYPE_CHECKING:
    import httpx
else:
    httpx = pytest.importorskip("httpx", reason=REASON)

WORKERS = 2
PATIENCE = 30.0


class Server:
    """The application in a process of its own. `lines` is what it has printed, so far as read."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.lines: list[str] = []

    async def until(self, text: str, *, times: int = 1) -> str:
        """Read on until so many lines, since the start, contain `text`; return the last of them."""
        assert self._process.stdout is not None
        with anyio.move_on_after(PATIENCE):
            while len(found := [line for line in self.lines if text in line]) < times:
                line = (await self._process.stdout.readline()).decode()
                if not line:
                    break
                self.lines.append(line)
            else:
                return found[-1]
        raise AssertionError(f"ended or waited without {text!r}:\n{''.join(self.lines)}")

    def ask_to_stop(self) -> None:
        """Send SIGTERM, as a service manager does."""
        self._process.send_signal(signal.SIGTERM)

    async def ended(self) -> None:
        """Wait for the end, and check that it is a clean one."""
        await self.until("Finished server process")
        assert self._process.stdout is not None
        with anyio.fail_after(PATIENCE):
            self.lines += (await self._process.stdout.read()).decode().splitlines(keepends=True)
            code = await self._process.wait()
        # uvicorn (since 0.29) shuts down in good order, then raises the signal that asked for it again
        assert code == -signal.SIGTERM
        assert any("Application shutdown complete" in line for line in self.lines)
        output = "".join(self.lines)
        assert "Traceback" not in output, output
        assert "ERROR" not in output, output

    async def stop(self) -> None:
        """Ask to stop, and wait for the end."""
        self.ask_to_stop()
        await self.ended()

    def kill(self) -> None:
        """End it the hard way, if a test has left it running."""
        if self._process.returncode is None:
            self._process.kill()


@asynccontextmanager
async def serve(database: Path) -> AsyncIterator[tuple[Server, httpx.AsyncClient]]:
    """Start the application on a free port; it is ready when this yields."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "uvicorn", "fastapi_app:app", "--app-dir", str(EXAMPLES), "--port", "0"),
        cwd=database.parent,
        env={**os.environ, "DATABASE": str(database), "PYTHONUNBUFFERED": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    server = Server(process)
    try:
        found = re.search(r"http://127\.0\.0\.1:\d+", await server.until("Uvicorn running on"))
        assert found is not None
        async with httpx.AsyncClient(base_url=found[0], timeout=PATIENCE, trust_env=False) as http:
            yield server, http
    finally:
        server.kill()
        await process.wait()


async def order(http: httpx.AsyncClient, customer: str, amount: int = 1) -> httpx.Response:
    return await http.post("/orders", json={"customer": customer, "amount": amount})


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "shop.db"


@pytest.fixture
def outbox(database: Path) -> Path:
    """Where receipts go: a file beside the database."""
    return Path(f"{database}.outbox")


Shop = tuple[Client, httpx.AsyncClient]


@pytest.fixture
async def shop(database: Path) -> AsyncIterator[Shop]:
    """The application in this process, with its own lifespan."""
    module = load("fastapi_app.py")
    vars(module)["DATABASE"] = str(database)
    transport = httpx.ASGITransport(module.app)
    with testing.replaced(module.client, database, workers=WORKERS) as client:
        async with (
            module.app.router.lifespan_context(module.app),
            httpx.AsyncClient(transport=transport, base_url="http://shop") as http,
        ):
            yield client, http


def receipts(outbox: Path) -> list[str]:
    return outbox.read_text().splitlines() if outbox.exists() else []


async def test_committed_order_runs_its_job(shop: Shop, outbox: Path) -> None:
    """A job of a committed transaction is there, and its end can be asked for."""
    client, http = shop
    answer = await order(http, "ann")
    assert answer.status_code == 201
    [attempt] = await testing.run_until_idle(client)
    assert attempt.id == answer.json()
    assert receipts(outbox) == ["receipt for ann"]
    assert (await http.get(f"/jobs/{attempt.id}")).json() == "succeeded"
    assert (await http.get("/jobs/unknown")).json() == "not_found"


async def test_refused_order_leaves_no_job(shop: Shop, outbox: Path) -> None:
    """A job of a transaction that was rolled back does not exist, though it was added."""
    client, http = shop
    answer = await order(http, "eve", amount=0)
    assert answer.status_code == 422
    assert "CHECK constraint failed" in answer.json()["detail"]
    assert (await http.post("/orders", json={"customer": "ann"})).status_code == 422, "no server error"
    assert await testing.run_until_idle(client) == []
    assert receipts(outbox) == []


async def test_sigterm_while_jobs_run(database: Path, outbox: Path) -> None:
    """SIGTERM lets running handlers finish; what was waiting runs after the next start, all of it once."""
    os.mkfifo(outbox)  # a handler that opens it waits until somebody reads
    customers = [f"customer-{number}" for number in range(WORKERS + 3)]
    async with serve(database) as (server, http):
        answers = [await order(http, customer) for customer in customers]
        jobs = [answer.json() for answer in answers]
        await server.until("sending a receipt", times=WORKERS)
        server.ask_to_stop()
        await server.until("client.stopping")
        sent = await finish_handlers(outbox, server)
    assert sorted(sent) == [f"receipt for {customer}\n" for customer in customers[:WORKERS]]

    outbox.unlink()
    async with serve(database) as (server, http):
        await server.until("sending a receipt", times=len(customers[WORKERS:]))
        await server.stop()
    again = outbox.read_text().splitlines(keepends=True)
    assert sorted(again) == [f"receipt for {customer}\n" for customer in customers[WORKERS:]]

    async with serve(database) as (server, http):
        assert [(await http.get(f"/jobs/{job}")).json() for job in jobs] == ["succeeded"] * len(jobs)
        await server.stop()


async def finish_handlers(outbox: Path, server: Server) -> list[str]:
    """Read the pipe, so that the handlers that wait for that go on; return what they wrote."""
    pipe = os.open(outbox, os.O_RDWR | os.O_NONBLOCK)  # reading and writing: never at its end
    try:
        await server.ended()
        return os.read(pipe, 65_536).decode().splitlines(keepends=True)
    finally:
        os.close(pipe)
