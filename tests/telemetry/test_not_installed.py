"""Without OpenTelemetry and Prometheus nothing of them is imported, and nothing breaks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import asyncio, sys
from typing import ClassVar

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("opentelemetry", "prometheus_client") and BLOCK:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Blocked())

from backlite_async import Client, InvalidState, JobContext, QueueConfig, Retention, Task

class Work(Task):
    config: ClassVar[QueueConfig] = QueueConfig("work", retention=Retention())

async def main():
    client = Client(sys.argv[1], context=["request_id"])

    @client.handler(Work)
    async def work(task: Work, job: JobContext) -> None:
        if job.parent is None:
            await client.add(Work()).save()

    async with client:
        [job_id] = await client.add(Work()).meta({"a": 1}).save()
        job = await client.wait(job_id)
        assert (job.status, job.meta, job.context) == ("succeeded", {"a": 1}, {})
        assert (await client.health()).ok()

asyncio.run(main())
import backlite_async.telemetry
print(sorted(name for name in sys.modules if name.startswith(("opentelemetry", "prometheus_client"))))
if BLOCK:
    for code in ("Client(':memory:', tracing=True)", "import backlite_async.telemetry.prometheus"):
        try:
            exec(code)
        except (InvalidState, ImportError) as error:
            print(error)
"""


@pytest.mark.parametrize("block", [True, False])
def test_nothing_is_imported_and_nothing_breaks(tmp_path: Path, *, block: bool) -> None:
    """Not installed, and installed but not used; what asks for it says what to install."""
    program = PROGRAM.replace("BLOCK", str(block))
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "app.db")],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, *said = done.stdout.splitlines()
    assert first == "[]"
    assert len(said) == (2 if block else 0)
    if block:
        assert said[0].endswith('pip install "backlite_async[otel]"')
        assert said[1].endswith('pip install "backlite_async[prometheus]"')
