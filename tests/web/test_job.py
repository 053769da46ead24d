"""One job: everything that is known of it, whatever has become of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import anyio
import pytest

from backlite_async import (
    AttemptError,
    Client,
    Event,
    Job,
    JobContext,
    JobStatus,
    QueueConfig,
    Retention,
    Task,
    chain,
    group,
    testing,
)
from backlite_async.web import Access, allow_all
from backlite_async.web._pages._job import timeline

from .support import Document, Mail, World, world_of

KEEP = Retention(payload="always")


class Letter(Task):
    config: ClassVar[QueueConfig] = QueueConfig("letters", retention=KEEP)
    job_id: str


class Charge(Task):
    """Charge somebody."""

    config: ClassVar[QueueConfig] = QueueConfig(
        "charges", max_attempts=2, backoff=30.0, retention=KEEP, dead_letter=Letter, concurrency_per_key=1
    )
    amount: int
    card_number: str = "4111"


class Brief(Task):
    config: ClassVar[QueueConfig] = QueueConfig("brief")


def facts(page: Document) -> dict[str, str]:
    details = page.find(id="facts")
    names, values = details.all("dt"), details.all("dd")
    return {name.text: value.text for name, value in zip(names, values, strict=True)}


def buttons(page: Document) -> list[str]:
    return [
        text for part in page.find(id="head").all() if part.tag in ("button", "a") for text in [part.text]
    ]


def moments(page: Document) -> list[str]:
    return [item.find("b").text for item in page.find("ol", cls="timeline").all("li")]


async def test_what_can_be_done_in_each_state(world: World) -> None:
    ids = await world.fill()
    offered = {}
    for state, (job_id, *_) in ids.items():
        page = await world.page.see(f"/jobs/{job_id}")
        assert page.find("h1").text in ("Mail", "Hold")
        assert page.find(id="head").find("span", cls="state").text == state
        offered[state] = buttons(page)
    assert offered == {
        "succeeded": ["Copy", "Delete"],
        "failed": ["Retry", "Copy", "Delete"],
        "scheduled": ["Run now", "Cancel", "Reschedule", "Edit", "Copy", "Delete"],
        "cancelled": ["Retry", "Copy", "Delete"],
        "running": ["Release", "Cancel", "Copy"],
    }


async def test_buttons_do_what_they_say(world: World, client: Client) -> None:
    ids = await world.fill()
    await client.pause("mail", wait=True)
    page = await world.page.see(f"/jobs/{ids['failed'][0]}")
    page = await world.page.do(page.form("Retry"), "Retry")
    assert page.notice == "Done: retried."
    assert "its queue is paused" in page.find(id="why").text
    page = await world.page.do(page.form("Reschedule"), "Reschedule", wait="2h")
    assert page.find(id="head").find("span", cls="state").text == "retrying"
    page = await world.page.do(page.form("Run now"), "Run now")
    page = await world.page.do(page.form("Cancel"), "Cancel")
    assert page.find(id="head").find("span", cls="state").text == "cancelled"
    question = await world.page.submit(page.form("Delete"), "Delete")
    page = await world.page.do(Document(question.text).form("Delete this job"), "Delete this job")
    assert page.title.startswith("Jobs")
    assert await client.get(ids["failed"][0]) is None


async def test_a_job_that_is_not_there_says_why(world: World, client: Client) -> None:
    async def brief(task: Brief) -> None: ...

    client.register(Brief, brief)
    [gone] = await client.add(Brief()).save()
    await testing.run_until_idle(client, advance=False)
    for job_id in (gone, "never", "x" * 300, "%0A", "~%%%", "~AAA", "a%2Fb", "..%2f"):
        answer = await world.page.get(f"/jobs/{job_id}")
        assert answer.status_code == 404
        if job_id in (gone, "never"):
            assert "retention" in Document(answer.text).main.text
            assert job_id in answer.text


async def test_any_id_has_a_page(world: World, client: Client) -> None:
    for name in ("a/b", "..", "~x", "ü €", "act", "a?b#c", "<b>&"):
        [job_id] = await client.add(Mail("a")).wait(60).id(name).save()
        page = await world.page.see("/jobs", key=None)
        link = next(link["href"] for link in page.all("a", cls="row") if name in link.find("code")["title"])
        page = await world.page.see(link)
        assert page.find(id="head").find("code").text == job_id


async def test_every_attempt_with_its_error(world: World, client: Client) -> None:
    attempts: list[str] = []

    @client.handler(Charge)
    async def charge(task: Charge, job: JobContext) -> None:
        attempts.append(job.id)
        raise ValueError(f"no <b>money</b>, {len(attempts)}")

    @client.handler(Letter)
    async def letter(task: Letter) -> None: ...

    [job_id] = await client.add(Charge(5)).tags("red").meta({"who": "ann", "session_token": "hunter2"}).save()
    await testing.run_until_idle(client, raise_errors=False, advance=False)
    page = await world.page.see(f"/jobs/{job_id}")
    assert page.find(id="head").find("span", cls="state").text == "retrying"
    assert "2 of 2" in page.find(id="head").text
    assert moments(page) == ["Added", "Attempt 1 went wrong", "Due again"]
    await testing.run_until_idle(client, raise_errors=False)
    page = await world.page.see(f"/jobs/{job_id}")
    assert [part.find("span", cls="wrong").text for part in page.all("details", cls="attempt")] == [
        "ValueError: no <b>money</b>, 2",
        "ValueError: no <b>money</b>, 1",
    ]
    assert "raise ValueError" in page.find("pre", aria_label="Traceback").text
    assert moments(page) == ["Added", "Attempt 1 went wrong", "Attempt 2 started", "Failed"]
    told = facts(page)
    assert told["Attempts"] == "2 of 2"
    assert told["Tags"] == "red"
    assert told["Dead letter"].startswith("Letter")
    assert '"card_number": "•••"' in page.find("pre", aria_label="Payload").text
    meta = page.find("pre", aria_label="Meta data").text
    assert "ann" in meta
    assert "hunter2" not in page.html
    letter_page = await world.page.see(page.find(id="facts").links["Letter"])
    assert letter_page.find(id="facts").links[job_id] == f"/jobs/{job_id}"


async def test_nothing_went_wrong_with_what_was_cancelled(world: World, client: Client) -> None:
    ids = await world.fill()
    page = await world.page.see(f"/jobs/{ids['cancelled'][0]}")
    assert "What went wrong" not in page.text
    assert "Asked to cancel" not in page.text
    assert "What went wrong" in (await world.page.see(f"/jobs/{ids['failed'][0]}")).text


async def test_result_and_log_lines(world: World) -> None:
    [job_id] = await world.ran(Mail("box", "hi"))
    page = await world.page.see(f"/jobs/{job_id}")
    assert "opened box=box" in page.find("ol", cls="log").text
    assert page_text(page, "Result") == '"box"'
    live = {"head", "why", "facts", "timeline", "payload", "result", "lines", "errors", "children"}
    assert set(page.live()) == live


async def test_progress_and_lines_while_it_runs(world: World, client: Client) -> None:
    stored = anyio.Event()
    seen: list[Document] = []

    class Long(Task):
        config: ClassVar[QueueConfig] = QueueConfig("long", retention=KEEP)

    @client.on("log", queue="long")
    def note(event: Event) -> None:
        if event.text is not None and "249" in event.text:
            stored.set()

    @client.handler(Long)
    async def long(task: Long, job: JobContext) -> None:
        await job.progress(0.25, "a quarter, token=hunter2 n=1")
        for number in range(250):
            job.log.info("line", number=number)
        with anyio.fail_after(10):
            await stored.wait()
        seen.extend([await world.page.see(f"/jobs/{job.id}"), await world.page.see("/jobs", queue="long")])

    await world.ran(Long())
    page, listed = seen
    assert page.find("progress")["value"] == "0.25"
    assert "a quarter, token=••• n=1" in page.find(id="why").text
    assert len(page.find("ol", cls="log").all("li")) == 200
    assert "50 lines before these are not shown" in page.text
    assert listed.find("progress")["value"] == "0.25"


async def test_parents_children_and_steps(world: World, client: Client) -> None:
    class Parent(Task):
        config: ClassVar[QueueConfig] = QueueConfig("parents", retention=KEEP)

    @client.handler(Parent)
    async def parent(task: Parent) -> None:
        await client.add(*[Mail(f"child {number}") for number in range(12)]).save()

    [job_id] = await world.ran(Parent())
    page = await world.page.see(f"/jobs/{job_id}")
    children = page.find(id="children").all("a", cls="row")
    assert len(children) == 10
    child = await world.page.see(children[0]["href"])
    assert child.find(id="facts").links[job_id] == f"/jobs/{job_id}"
    all_of_them = await world.page.see(page.find(id="children").links["All of them"])
    assert len(all_of_them.all("a", cls="row")) == 12


async def test_what_it_waits_for(world: World, client: Client) -> None:
    await client.pause("mail", wait=True)
    flow = chain(Mail("first"), Mail("second"))
    await client.add(flow).save()
    [first, second] = await client.jobs.list(workflow=flow.id)
    page = await world.page.see(f"/jobs/{second.id}")
    assert page.find(id="head").find("span", cls="state").text == "waiting"
    assert page.find(id="why").links["Mail"] == f"/jobs/{first.id}"
    assert page.find(id="facts").links[flow.id] == f"/workflows/{flow.id}"
    assert "Delete" not in buttons(page)
    assert "Run now" not in buttons(page)
    assert moments(page)[-1] == "Waits for its turn"
    listed = await world.page.see("/jobs", workflow=flow.id)
    assert [badge.text for badge in listed.find("tbody").all("span", cls="state")] == ["pending", "waiting"]
    await client.pause("charges")
    await client.add(Charge(1)).key("ann").save()
    [held] = await client.add(Charge(2)).key("ann").unique("ann, May").save()
    page = await world.page.see(f"/jobs/{held}")
    assert "the turn of its key, ann" in page.find(id="why").text
    assert page.find(id="facts").links["ann"] == "/jobs?key=ann&queue=charges"
    assert facts(page)["Unique by"] == "ann, May"


async def test_behind_a_join_are_the_steps_it_joins(world: World, client: Client) -> None:
    await client.pause("mail", wait=True)
    flow = chain(group(Mail("a"), Mail("b")), group(Mail("c"), Mail("d")))
    await client.add(flow).save()
    run = await client.workflow(flow.id)
    assert run is not None
    assert any(step.kind == "join" for step in run.steps)
    first, second, last, _ = (step.id for step in run.steps if step.kind == "step")
    page = await world.page.see(f"/jobs/{last}")
    assert [link["href"] for link in page.find(id="why").all("a")] == [f"/jobs/{first}", f"/jobs/{second}"]


async def test_large_payloads_are_cut(world: World, client: Client) -> None:
    [job_id] = await client.add(Mail("x" * 200_000)).wait(60).save()
    page = await world.page.see(f"/jobs/{job_id}")
    assert "There is more" in page.find(id="payload").text
    assert "65.5 kB or more" in page.find(id="payload").text
    assert len(page.html) < 100_000


async def test_what_is_not_kept(database: str) -> None:
    class Poor(Task):
        config: ClassVar[QueueConfig] = QueueConfig("poor", max_attempts=1, retention=Retention())

    async with world_of(database) as world:

        @world.client.handler(Poor)
        async def poor(task: Poor) -> None:
            raise ValueError

        [job_id] = await world.ran(Poor())
        page = await world.page.see(f"/jobs/{job_id}")
        assert buttons(page) == ["Delete"]
        assert "cannot be retried" in page.find(id="why").text
        assert "not kept" in page.find(id="payload").text


async def test_without_payloads_nothing_of_them_is_told(database: str) -> None:
    async with world_of(database, auth=allow_all(Access(payloads=False))) as world:
        adding = world.client.add(Mail("secret@box")).meta({"who": "secret"})
        [job_id] = await adding.unique("secret", within=60).save()
        await testing.run_until_idle(world.client)
        page = await world.page.see(f"/jobs/{job_id}")
        assert "secret" not in page.html
        assert "You may not see payloads." in page.find(id="payload").text
        assert "You may not see log lines." in page.find(id="lines").text
        assert not page.all("pre")
        assert not page.all(id="meta")
        edit = await world.page.get(f"/jobs/{job_id}/edit")
        assert edit.status_code == 403


async def test_redact_decides_what_is_seen(database: str) -> None:
    def redact(task: str, value: Any) -> Any:
        if value == {"to": "b", "subject": "hello"}:
            raise RuntimeError
        return {"to": "somebody"} if isinstance(value, dict) else value

    async with world_of(database, redact=redact) as world:
        one, other = await world.ran(Mail("a"), Mail("b"))
        assert page_text(await world.page.see(f"/jobs/{one}"), "Payload") == '{ "to": "somebody" }'
        page = await world.page.see(f"/jobs/{other}")
        assert "has failed" in page.find(id="payload").text
        listed = await world.page.see("/jobs")
        assert "hello" not in listed.html


def page_text(page: Document, name: str) -> str:
    return page.find("pre", aria_label=name).text


async def test_who_may_only_read_sees_no_buttons(database: str) -> None:
    async with world_of(database, read_only=True) as world:
        for job_id, *_ in (await world.fill()).values():
            page = await world.page.see(f"/jobs/{job_id}")
            assert page.forms() == []
            assert "Edit" not in page.links


async def test_it_stays_the_same_while_nothing_happens(world: World) -> None:
    ids = await world.fill()
    for job_id in (some[0] for some in ids.values()):
        first = await world.page.get(f"/jobs/{job_id}")
        again = await world.page.get(f"/jobs/{job_id}", headers={"If-None-Match": first.headers["etag"]})
        assert again.status_code == 304


# -- timelines ---------------------------------------------------------------------------------------

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def job(status: JobStatus, **changes: Any) -> Job:
    known: dict[str, Any] = dict.fromkeys(Job.__struct_fields__)
    known |= {"id": "j", "status": status, "created_at": START, "due_at": START, "attempt": 0, "errors": ()}
    return Job(**(known | {"waiting": False} | changes))


def error(attempt: int, finished: float, *, crash: bool = False) -> AttemptError:
    return AttemptError(
        attempt=attempt, type="crash" if crash else "E", message="m", traceback=None, owner=None,
        started_at=None, finished_at=at(finished), duration=None,
    )  # fmt: skip


def told(found: Job) -> list[tuple[str, float | None]]:
    return [
        (moment.name, None if moment.after is None else moment.after.total_seconds())
        for moment in timeline(found)
    ]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (job(JobStatus.PENDING), [("Added", None)]),
        (job(JobStatus.PENDING, due_at=at(60)), [("Added", None), ("Due", 60)]),
        (job(JobStatus.PENDING, waiting=True, due_at=at(9)), [("Added", None), ("Waits for its turn", None)]),
        (
            job(JobStatus.RUNNING, attempt=1, due_at=at(2), started_at=at(3), cancelled_at=at(5)),
            [("Added", None), ("Due", 2), ("Attempt 1 started", 1), ("Asked to cancel", 2)],
        ),
        (
            job(JobStatus.RUNNING, attempt=2, started_at=at(10), errors=(error(1, 4, crash=True),)),
            [("Added", None), ("Attempt 1 crashed", 4), ("Attempt 2 started", 6)],
        ),
        (
            job(
                JobStatus.FAILED, attempt=2, started_at=at(10), finished_at=at(11), expires_at=at(71),
                errors=(error(1, 4), error(2, 11)),
            ),
            [
                ("Added", None), ("Attempt 1 went wrong", 4), ("Attempt 2 started", 6), ("Failed", 1),
                ("Is kept until", 60),
            ],
        ),
        (job(JobStatus.CANCELLED, finished_at=at(3)), [("Added", None), ("Cancelled", 3)]),
        (  # a step that was skipped, or a job that had not begun
            job(JobStatus.CANCELLED, cancelled_at=at(3), finished_at=at(3)),
            [("Added", None), ("Cancelled", 3)],
        ),
    ],
)  # fmt: skip
def test_timeline(found: Job, expected: list[tuple[str, float | None]]) -> None:
    assert told(found) == expected


def test_timeline_of_many_attempts_shows_the_last() -> None:
    found = job(JobStatus.PENDING, attempt=30, errors=tuple(error(n, n) for n in range(1, 31)), due_at=at(99))
    names = [name for name, _ in told(found)]
    assert names[:3] == ["Added", "20 attempts before these", "Attempt 21 went wrong"]
    assert names[-1] == "Due again"
