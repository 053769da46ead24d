"""What docs show: a web application with `/metrics` and `/healthz`, whose requests begin traces."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import httpx
import msgspec
import structlog
from fastapi import FastAPI, Request, Response

from backlite_async import Client, QueueConfig, Retention, Task
from backlite_async.telemetry.prometheus import Prometheus

from .spans import Spans, ended, id_of, parent_of, trace_of


class Resize(Task):
    config: ClassVar[QueueConfig] = QueueConfig("pictures", retention=Retention())
    path: str


def application(client: Client, spans: Spans) -> FastAPI:
    """Make the application of the recipes; a middleware stands for the instrumentation of FastAPI."""
    metrics = Prometheus(client)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with client:
            yield

    app = FastAPI(lifespan=lifespan)

    @app.middleware("http")
    async def traced(request: Request, call_next: Any) -> Any:
        with spans.request(), structlog.contextvars.bound_contextvars(request_id=request.headers["x-id"]):
            return await call_next(request)

    @app.post("/pictures")
    async def add() -> list[str]:
        return await client.add(Resize("a.png")).save()

    @app.get("/metrics")
    async def show_metrics() -> Response:
        body, content_type = await metrics.render()
        return Response(body, headers={"Content-Type": content_type})

    @app.get("/healthz")
    async def healthz(response: Response) -> dict[str, object]:
        report = await client.health()
        response.status_code = 200 if report.ok(max_lag=300) else 503
        found: dict[str, object] = msgspec.to_builtins(report)
        return found

    return app


async def test_the_recipes_work(file: str, spans: Spans) -> None:
    """From the request to the handler it is one trace; metrics are served, and so is health."""
    client = Client(file, durability="normal", context=["request_id"])
    seen: list[dict[str, Any]] = []

    @client.handler(Resize)
    async def resize(task: Resize) -> None:
        seen.append(structlog.contextvars.get_contextvars())

    app = application(client, spans)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://test", headers={"x-id": "r-1"}
    ) as browser:
        assert (await browser.get("/healthz")).status_code == 503
        spans.exporter.clear()
        async with app.router.lifespan_context(app):
            [job_id] = (await browser.post("/pictures")).json()
            await ended(client, job_id)
            well = await browser.get("/healthz")
            shown = await browser.get("/metrics")
    assert (well.status_code, well.json()["reason"]) == (200, None)
    assert 'backlite_jobs_added_total{queue="pictures"} 1.0' in shown.text
    assert 'backlite_jobs{queue="pictures",state="succeeded"} 1.0' in shown.text
    assert shown.headers["content-type"].startswith("text/plain; version=")
    send, process = spans.one("send pictures"), spans.one("process pictures")
    assert parent_of(process) == id_of(send)
    requests = [trace_of(span) for span in spans.of("request")]
    assert requests.count(trace_of(send)) == requests.count(trace_of(process)) == 1
    assert seen == [{"request_id": "r-1"}]
