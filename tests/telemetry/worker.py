"""A process that runs the jobs of one queue, and writes its spans as JSON lines: `worker.py FILE QUEUE OUT`.

It says "ready" when it is, and ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any, ClassVar

import structlog
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

from backlite_async import Client, JobContext, QueueConfig, Retention, Task


class Order(Task):
    config: ClassVar[QueueConfig] = QueueConfig("orders", max_attempts=3, backoff=0, retention=Retention())
    secret: str


class Mail(Task):
    config: ClassVar[QueueConfig] = QueueConfig("mails", retention=Retention())
    secret: str


async def order(task: Order, job: JobContext) -> None:
    if job.attempt == 1:
        raise ValueError(task.secret)
    await job.client.add(Mail(task.secret)).save()


async def mail(task: Mail, job: JobContext) -> dict[str, Any]:
    return structlog.contextvars.get_contextvars()


async def main(file: str, queue: str) -> None:
    client = Client(file, context=["request_id"])
    if queue == "orders":
        client.register(Order, order)
    else:
        client.register(Mail, mail)
    async with client:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    provider = TracerProvider()
    with Path(sys.argv[3]).open("w") as lines:
        exporter = ConsoleSpanExporter(out=lines, formatter=lambda span: span.to_json(indent=None) + "\n")
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        trace.set_tracer_provider(provider)
        asyncio.run(main(*sys.argv[1:3]))
        provider.shutdown()
