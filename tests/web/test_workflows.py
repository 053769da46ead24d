"""Workflows on the page: lists, graphs, tables, and what can be done to them."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from typing import ClassVar

import pytest

from backlite_async import (
    Client,
    JobStatus,
    QueueConfig,
    Retention,
    StepRun,
    Task,
    Workflow,
    WorkflowId,
    WorkflowRun,
    chain,
    group,
    testing,
)

from .support import Browser, Document, World

CONFIG = QueueConfig("flow", max_attempts=1, retention=Retention(payload="always"))


class Part(Task):
    """A part of something."""

    config: ClassVar[QueueConfig] = CONFIG
    number: int = 0


class Bad(Task):
    """What fails."""

    config: ClassVar[QueueConfig] = CONFIG


class Undo(Task):
    """What is done about it."""

    config: ClassVar[QueueConfig] = CONFIG


@pytest.fixture
async def flows(world: World) -> World:
    """The world, with handlers for steps."""

    async def part(task: Part) -> int:
        return task.number

    async def bad(task: Bad) -> None:
        raise ValueError("torn <b>apart</b>")

    async def undo(task: Undo) -> None:
        return None

    world.client.register(Part, part)
    world.client.register(Bad, bad)
    world.client.register(Undo, undo)
    return world


async def saved(client: Client, flow: object) -> str:
    """Add a workflow, and run it to its end."""
    [flow_id] = await client.add(flow).save()  # type: ignore[arg-type]
    await testing.run_until_idle(client, raise_errors=False, advance=False)
    return str(flow_id)


def torn() -> Workflow:
    """Return a workflow with a step of each kind."""
    flow = Workflow("torn", on_failure=Part(9))
    first = flow.add(Part(1), name="first")
    second = flow.add(Bad(), after=[first], name="second", if_failed=Undo())
    flow.add(Part(3), after=[second], name="third")
    both = flow.add(group(Part(4), Part(5)), after=[first], name="both")
    flow.add(Part(6), after=[both], name="last")
    return flow


async def test_the_list_tells_of_each_by_state_and_pages(flows: World) -> None:
    client = flows.client
    good = [await saved(client, chain(Part(n), Part(n), name=f"good n{n}")) for n in range(3)]
    bad = await saved(client, torn())
    async with Browser(client, page_size=2) as page:
        seen = await page.see("/workflows")
        rows = seen.find("table").rows()
        assert [row[0].split(" 0")[0] for row in rows] == ["torn", "good n2"]
        assert bad in rows[0][0]
        assert rows[0][1:4] == ["failed", "100 %", "9"]
        assert rows[1][1:4] == ["succeeded", "100 %", "2"]
        following = await page.see(seen.links["Next →"])
        assert [row[0].split(" 0")[0] for row in following.find("table").rows()] == ["good n1", "good n0"]
        assert "Next →" not in following.links
        assert following.links["Newest"] == "/workflows"
        failed = await page.see(seen.links["Failed"])
        assert len(failed.find("table").rows()) == 1
        assert failed.find("a", text="Failed").get("aria-current") == "page"
        assert "None is running" in (await page.see("/workflows", state="running")).text
        await page.see("/workflows", status=400, state="ended")
        assert seen.links["good n2"] == f"/workflows/{good[2]}"


async def test_the_graph_names_each_step_and_its_state(flows: World, page: Browser) -> None:
    flow_id = await saved(flows.client, torn())
    seen = await page.see(f"/workflows/{flow_id}")
    graph = seen.find(id="graph")
    told = {node.find(cls="name").text: node for node in graph.all("a", cls="node")}
    assert told.keys() == {"first", "second", "third", "last", "Part", "Undo"}
    states = {name: node.find(cls="word").text for name, node in told.items()}
    assert states["first"] == "succeeded"
    assert states["second"] == "failed"
    assert states["third"] == "skipped"
    assert states["Undo"] == "succeeded"
    assert "fallback" in told["Undo"].text
    run = await flows.client.workflows.get(flow_id)
    assert run is not None
    assert told["second"]["href"] == f"/jobs/{run.step('second').id}"
    joins = [step for step in run.steps if step.kind == "join"]
    assert len(graph.all("circle", cls="join")) == len(joins) > 0
    assert ["callback" in node.text for node in graph.all("a", cls="callback")] == [True]
    assert len(graph.all("path", cls="callback")) == 3  # behind what nothing comes after
    assert len(graph.all("path", cls="fallback")) == 1
    legend = seen.find(id="graph").find("ul").text
    assert "1 failed" in legend
    assert "1 skipped" in legend


async def test_the_table_says_what_the_graph_does(flows: World, page: Browser) -> None:
    flow_id = await saved(flows.client, torn())
    seen = await page.see(f"/workflows/{flow_id}")
    steps = seen.find(id="steps")
    row = steps.row("second")
    assert "torn <b>apart</b>" in row.text
    assert row.all("td")[2].text == "failed"
    assert row.all("td")[3].text == "first"
    assert row.all("td")[4].text == "1 of 1"
    run = await flows.client.workflows.get(flow_id)
    assert run is not None
    assert len(steps.rows()) == run.size
    assert seen.find("details").find("pre").text == " ".join(run.mermaid().split())


async def test_it_stays_the_same_until_something_happens(flows: World, page: Browser) -> None:
    flow_id = await saved(flows.client, torn())
    first = await page.get(f"/workflows/{flow_id}")
    flows.clock.advance(5)
    again = await page.get(f"/workflows/{flow_id}", headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304
    assert set(Document(first.text).live()) == {"head", "graph", "steps"}


async def test_retry_runs_it_again(flows: World, page: Browser, caplog: pytest.LogCaptureFixture) -> None:
    flow_id = await saved(flows.client, torn())
    caplog.set_level(logging.INFO, "backlite_async")
    seen = await page.see(f"/workflows/{flow_id}")
    done = await page.do(seen.form("Retry"), "Retry")
    assert done.notice == "Done: retried."
    run = await flows.client.workflows.get(flow_id)
    assert run is not None
    assert run.finished_at is None
    [line] = [record.getMessage() for record in caplog.records if "page.action" in record.getMessage()]
    assert "retry_workflow" in line
    assert flow_id in line


@pytest.mark.parametrize("verb", ["cancel", "delete"])
async def test_cancel_and_delete_ask_first(flows: World, page: Browser, verb: str) -> None:
    [flow_id] = await flows.client.add(chain(Part(1), Part(2), name="later")).wait(3600).save()
    seen = await page.see(f"/workflows/{flow_id}")
    asked = await page.submit(seen.form(f"{verb.capitalize()} …"))
    assert asked.status_code == 200
    question = Document(asked.text)
    run = await flows.client.workflows.get(flow_id)
    assert run is not None
    assert run.cancelled_at is None
    done = await page.do(question.main.form(action=f"/workflows/{flow_id}/{verb}"))
    assert done.notice == f"Done: {verb.rstrip('e')}{'led' if verb == 'cancel' else 'ed'}."
    run = await flows.client.workflows.get(flow_id)
    assert run is None if verb == "delete" else run is not None and run.status == "cancelled"


async def test_who_may_not_write_has_no_buttons(flows: World) -> None:
    flow_id = await saved(flows.client, torn())
    async with Browser(flows.client, read_only=True) as page:
        seen = await page.see(f"/workflows/{flow_id}")
        assert not seen.main.all("form")
        for verb in ("retry", "cancel", "delete"):
            answer = await page.post(f"/workflows/{flow_id}/{verb}", data={"confirmed": "1"})
            assert answer.status_code == 403
    assert await flows.client.workflows.get(flow_id) is not None


@pytest.mark.parametrize("flow_id", ["no-such", "x" * 300, "\x00", "~~", "..."])
async def test_what_is_not_there_is_not_found(page: Browser, flow_id: str) -> None:
    from backlite_async.web._slugs import slug

    seen = await page.see(f"/workflows/{slug(flow_id)}", status=404)
    assert "There is no workflow" in seen.text


async def test_a_workflow_of_ten_thousand_is_quick(flows: World, page: Browser) -> None:
    """Its page has the first steps, and tells how many there are in each state."""
    wide = chain(Part(0), group(*(Part(n) for n in range(9_997))), Part(1), name="wide")
    [flow_id] = await flows.client.add(wide).wait(3600).save()
    await page.see(f"/workflows/{flow_id}")
    begin = time.process_time()
    seen = await page.see(f"/workflows/{flow_id}")
    took = time.process_time() - begin
    assert len(seen.find(id="steps").rows()) == 300
    assert not seen.find(id="graph").has("a", cls="node")
    assert "9,998 waiting" in seen.find(id="graph").text
    assert len(seen.html) < 400_000
    second = await page.see(seen.links["Next →"])
    assert second.find(id="steps").rows()[0][0] == "300"
    assert second.links["← Previous"].endswith("from=0#steps")
    assert took < 1.0


def step(status: JobStatus, **more: object) -> StepRun:
    """Return a step in a state."""
    values: dict[str, object] = {
        "number": 0, "kind": "step", "id": "a", "name": None, "queue": "q", "task": "T", "skipped": False,
        "after": (), "if_failed": "cancel", "attempt": 0, "max_attempts": 1, "due_at": None,
        "started_at": None, "finished_at": None, "progress": None, "error": None,
    }  # fmt: skip
    return StepRun(status=status, **{**values, **more})  # type: ignore[arg-type]


def test_what_cannot_be_read_is_not_drawn() -> None:
    from backlite_async.web._pages._workflows import drawable

    def run(*after: tuple[int, ...]) -> WorkflowRun:
        steps = tuple(step(JobStatus.PENDING, number=place, after=one) for place, one in enumerate(after))
        return WorkflowRun(
            id=WorkflowId("x"), name=None, status=JobStatus.PENDING, created_at=datetime.now(UTC),
            finished_at=None, cancelled_at=None, expires_at=None, size=len(steps), left=0, steps=steps,
        )  # fmt: skip

    assert drawable(run(*[()] * 300))
    assert not drawable(run(*[()] * 301))
    assert not drawable(run())
    assert drawable(run((), *[(0,) * 10] * 100))
    assert not drawable(run((), *[(0,) * 10] * 101))


def test_states_in_words() -> None:
    from backlite_async.web._pages._workflows import shortened, word

    assert word(step(JobStatus.PENDING)) == "pending"
    assert word(step(JobStatus.PENDING), waits=True) == "waiting"
    assert word(step(JobStatus.PENDING, attempt=1)) == "retrying"
    assert word(step(JobStatus.CANCELLED, skipped=True)) == "skipped"
    assert word(step(JobStatus.CANCELLED)) == "cancelled"
    assert shortened("x" * 20, 20) == "x" * 20
    assert shortened("x" * 21, 20) == "x" * 19 + "…"
    assert shortened("工" * 10, 20) == "工" * 10
    assert len(shortened("工" * 11, 20)) == 10
