"""One trace over processes: one adds, one runs what it added, a third what that has added."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import anyio
import structlog

from backlite_async import Client

from ..conftest import LIMIT
from .spans import Spans, id_of, trace_of
from .worker import Order

PROGRAM = Path(__file__).with_name("worker.py")
SECRET = "s3cret-value"


def started(*arguments: str) -> subprocess.Popen[str]:
    """Start a worker; who goes on has seen it ready."""
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


async def test_one_trace_over_three_processes(file: str, tmp_path: Path, spans: Spans) -> None:
    """From the request through the database into two other processes, with the context variables."""
    outs = [tmp_path / "orders.json", tmp_path / "mails.json"]
    async with Client(file, workers=0, context=["request_id"]) as client:
        workers = [started(file, out.stem, str(out)) for out in outs]
        try:
            for worker in workers:
                assert worker.stdout is not None
                assert worker.stdout.readline() == "ready\n"
            with spans.request(), structlog.contextvars.bound_contextvars(request_id="r-7"):
                [order] = await client.add(Order(SECRET)).save()
            with anyio.fail_after(LIMIT):
                await client.wait(order)
            [mail] = await client.jobs.list(queue="mails")
            with anyio.fail_after(LIMIT):
                await client.wait(mail.id)
            assert await client.result(mail.id) == {"request_id": "r-7"}
        finally:
            for worker in workers:
                worker.communicate(timeout=LIMIT)
    lines = [line for out in outs for line in out.read_text().splitlines()]
    assert all(SECRET not in line for line in lines)
    found = [json.loads(line) for line in lines]
    assert [worker.returncode for worker in workers] == [0, 0]
    assert [span["name"] for span in found] == [
        "process orders", "send mails", "process orders", "process mails"
    ]  # fmt: skip
    send = spans.one("send orders")
    first, mailing, second, _ = (span["context"] for span in found)
    assert {span["context"]["trace_id"] for span in found} == {f"0x{trace_of(send):032x}"}
    assert [span["parent_id"] for span in found] == [
        hexed(id_of(send)), second["span_id"], hexed(id_of(send)), mailing["span_id"]
    ]  # fmt: skip
    assert first["span_id"] != second["span_id"]


def hexed(span_id: int) -> str:
    return f"0x{span_id:016x}"
