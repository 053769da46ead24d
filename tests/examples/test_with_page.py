"""The example with a page: what it mounts is there, and what it says of who may what is so."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from .test_examples import load

REASON = (
    "the page's dependencies are not installed: pip install fastapi httpx 'backlite_async[web,prometheus]'"
)
for _module in ("fastapi", "httpx", "jinja2", "prometheus_client", "starlette"):
    pytest.importorskip(_module, reason=REASON)

if TYPE_CHECKING:
    import httpx
else:
    httpx = pytest.importorskip("httpx", reason=REASON)

LIMIT = 20.0


@asynccontextmanager
async def running(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Any, httpx.AsyncClient]]:
    """Run the example's application; what it asks of a browser is asked here."""
    monkeypatch.setenv("DATABASE", str(folder / "reports.db"))
    example = load("with_page.py")
    transport = httpx.ASGITransport(example.app)
    async with (
        example.app.router.lifespan_context(example.app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as browser,
    ):
        yield example, browser


async def test_with_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report is added, seen by a guest without its payload, counted, and the whole is healthy."""
    async with running(tmp_path, monkeypatch) as (example, browser):
        with anyio.fail_after(LIMIT):
            added = await browser.post("/reports", params={"month": "May 2030"})
            await example.client.wait(added.json())
            assert (await browser.get(f"/jobs/jobs/{added.json()}")).status_code == 401
            seen = await browser.get(f"/jobs/jobs/{added.json()}", auth=("guest", "open"))
            assert seen.status_code == 200
            assert "Sum up a month" in (await browser.get("/jobs/tasks", auth=("guest", "open"))).text
            assert "succeeded" in seen.text
            assert "May 2030" not in seen.text
            refused = await browser.post(
                "/jobs/jobs/act", data={"action": "retry", "id": added.json()}, auth=("guest", "open")
            )
            assert refused.status_code == 403
            counted = (await browser.get("/metrics")).text
            healthy = await browser.get("/healthz")
    assert 'backlite_jobs_finished_total{outcome="succeeded",queue="reports"} 1.0' in counted
    assert healthy.status_code == 200
    assert healthy.json() == {"alive": True, "dispatching": True, "reason": None}
