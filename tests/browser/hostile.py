"""A world of names and texts that try to be more than text."""

from __future__ import annotations

from typing import Any, ClassVar

import anyio
import msgspec

from backlite_async import Client, Discard, JobContext, QueueConfig, Retention, Task, Workflow, testing

from .seed import LIMIT, NOW

__all__ = ["TEXT", "begin", "hostile_client"]

TEXT = """'"><img src=x onerror=alert(1)></script></title></textarea><script>alert(1)</script>{{7*7}}"""
"""What must be seen as it is, wherever it stands."""

KEPT = Retention(payload="always")
queue = QueueConfig(f"queue {TEXT}", max_attempts=2, backoff=0.0, retention=KEPT)


class Hostile(Task):
    """Try it. '"><img src=x onerror=alert(1)><script>alert(1)</script>.

    And again: <script>alert(1)</script>
    """

    config: ClassVar[QueueConfig] = queue
    task_name: ClassVar[str] = f"task {TEXT}"
    text: str = TEXT
    texts: dict[str, Any] = msgspec.field(default_factory=lambda: {TEXT: TEXT})
    fails: bool = False
    stays: bool = False


def hostile_client(gate: anyio.Event) -> Client:
    """Make a client on memory, whose handler says what it should not; one job stays until the gate opens."""
    client = testing.client(clock=testing.ManualClock(NOW), workers=5)

    @client.handler(Hostile)
    async def hostile(task: Hostile, job: JobContext) -> dict[str, str]:
        job.log.info(TEXT, field=TEXT)
        await job.progress(0.5, TEXT)
        if task.stays:
            await gate.wait()
        if task.fails:
            raise Discard(TEXT) if job.attempt > 1 else ValueError(TEXT)
        return {TEXT: TEXT}

    client.schedule(f"schedule {TEXT}", Hostile(), every=3600)
    return client


async def begin(client: Client) -> None:
    """Have all of it in every state."""

    def add(task: Task, name: str) -> Any:
        return client.add(task).id(f"{name} {TEXT}").key(TEXT).tags(TEXT[:100]).meta({TEXT: TEXT})

    await add(Hostile(fails=True), "failed").save()
    await add(Hostile(), "succeeded").save()
    await add(Hostile(), "scheduled").wait(3600).save()
    workflow = Workflow(name=f"workflow {TEXT}")
    first = workflow.add(Hostile(), name=f"first {TEXT}")
    workflow.add(Hostile(fails=True), name=f"second {TEXT}", after=[first])
    await client.add(workflow).tags(TEXT[:100]).save()
    await testing.run_until_idle(client, advance=False, raise_errors=False)
    with anyio.fail_after(LIMIT):
        async with client.events() as events:
            await add(Hostile(stays=True), "running").save()
            async for event in events:
                if event.kind == "progress":
                    return
