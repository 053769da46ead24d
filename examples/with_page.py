"""A web application with the page, metrics and a health check: `uvicorn examples.with_page:app`."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import ClassVar

from fastapi import FastAPI, Response

from backlite_async import Client, JobContext, QueueConfig, Retention, Task
from backlite_async.telemetry.prometheus import Prometheus
from backlite_async.web import Access, Dashboard, basic

client = Client(os.environ.get("DATABASE", "reports.db"), workers=4)
prometheus = Prometheus(client)


class Report(Task):
    """Sum up a month."""

    config: ClassVar[QueueConfig] = QueueConfig("reports", retention=Retention(duration=timedelta(days=7)))
    month: str
    token: str = ""  # the page shows nothing of what is called so


@client.handler(Report)
async def report(task: Report, job: JobContext) -> int:
    await job.progress(0.5, f"half of {task.month}")
    return len(task.month)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with client:
        yield


app = FastAPI(lifespan=lifespan)
# Everybody who knows the password may look; nobody may change anything, nor see payloads.
guest = Access(write=False, payloads=False)
app.mount("/jobs", Dashboard(client, auth=basic("guest", os.environ.get("PASSWORD", "open"), access=guest)))


@app.post("/reports", status_code=202)
async def add_report(month: str) -> str:
    [job_id] = await client.add(Report(month)).save()
    return job_id


@app.get("/metrics")
async def metrics() -> Response:
    body, content_type = await prometheus.render()
    return Response(body, media_type=content_type)


@app.get("/healthz")
async def healthz(response: Response) -> dict[str, object]:
    health = await client.health()
    response.status_code = 200 if health.ok(max_lag=60) else 503
    return {"alive": health.alive, "dispatching": health.dispatching, "reason": health.reason}
