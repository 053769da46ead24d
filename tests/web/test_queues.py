"""Queues: shown as they are; paused, resumed and their failed jobs retried by who may."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from backlite_async import Discard, JobStatus, QueueConfig, Rate, Retention, Task, testing

from ..conftest import Journal
from .support import Browser, Mail, World, read, world_of

from backlite_async.web import Access, allow_all  # isort: skip
from backlite_async.web._pages import _queues  # isort: skip
from backlite_async.web._pages._queues import limits, rules  # isort: skip


class Letter(Task):
    config: ClassVar[QueueConfig] = QueueConfig("letters", retention=Retention(payload="always"))
    error: str


class Limited(Task):
    """Do little at once."""

    config: ClassVar[QueueConfig] = QueueConfig(
        "limited",
        concurrency=2,
        global_concurrency=5,
        concurrency_per_key=1,
        rate=Rate(100, per=60),
        timeout=90,
        max_attempts=3,
        dead_letter=Letter,
        retention=Retention(),
    )


SAID = ["2 at once in a process", "5 at once in all processes", "1 at once of a key", "100 starts in 1 min"]


def kind(queue: str) -> Any:
    """Return a task type of its own queue."""
    return type("Kind", (Task,), {"config": QueueConfig(queue), "__annotations__": {"config": ClassVar}})


async def test_all_queues_are_shown_with_counts_and_limits(world: World, page: Browser) -> None:
    await world.client.add(Limited(), Limited()).wait(60).save()
    await world.fill()
    seen = await page.see("/queues")
    table = seen.find(id="queues")
    assert table.row("limited").find("th").text == "limited " + ", ".join(SAID)
    counts = {row[0].split()[0]: row[1:7] for row in table.rows()}
    assert counts["limited"] == ["2", "2", "0", "0", "0", "0"]
    assert counts["mail"] == ["1", "1", "0", "3", "2", "1"]
    assert table.row("mail").find("td", data_label="Throughput").text == "1/min"
    assert not seen.has("form", role="search"), "few need no search"


def test_limits_are_said_in_words() -> None:
    assert limits({}) == []
    assert rules({}) == []
    declared = {"max_attempts": 1, "timeout": 2.5, "dead_letter": "Alarm"}
    assert rules(declared) == ["1 attempt", "2.5 s each", "Alarm for each that fails for good"]
    assert limits({"rate": {"count": 1, "per": 0.5}}) == ["1 starts in 500 ms"]
    odd: dict[str, Any] = {"rate": "often", "concurrency": None, "more": [1]}
    assert limits(odd) == ["None at once in a process"], "what another version declared does no harm"


async def test_of_more_queues_fewer_jobs_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_queues, "COUNTS", (4, 2, 1))
    monkeypatch.setattr(_queues, "MOST_IN_ALL", 8)
    kinds: list[Any] = []
    async with testing.client() as client, Browser(client) as page:
        for count, shown in ((1, "4+"), (3, "2+"), (9, "1+")):
            while len(kinds) < count:
                kinds.append(kind(f"q{len(kinds)}"))
                await client.add(*[kinds[-1]() for _ in range(6)]).wait(60).save()
            seen = await page.see("/queues")
            assert {row[1] for row in seen.find(id="queues").rows()} == {shown}
            assert f"Counts end at {shown.rstrip('+')}." in seen.text


async def test_of_many_queues_some_are_found_by_name(world: World, page: Browser) -> None:
    for number in range(12):
        await world.client.add(kind(f"Queue-{number}")()).save()
    seen = await page.see("/queues")
    search = next(form for form in seen.forms() if form.element.get("role") == "search")
    found = read(await page.submit(search, "Find", text="queue-1"))
    assert [row[0] for row in found.find(id="queues").rows()] == ["Queue-1", "Queue-10", "Queue-11"]
    assert found.find("input", name="text")["value"] == "queue-1"
    none = await page.see("/queues", text="<b>")
    assert "No such queue" in none.main.text
    everything = await page.see(none.main.links["All 14"])
    assert everything.find(id="queues").rows()[0][0] == "Queue-0"


async def test_one_queue_in_full(world: World, page: Browser) -> None:
    ids = await world.fill()
    seen = await page.see("/queues/mail")
    assert seen.title == "mail · Backlite"
    assert [tile.find("b").text for tile in seen.all("a", cls="tile")] == ["1", "1", "0", "3", "2", "1"]
    assert "3 succeeded 2 failed" in seen.find(id="ended").text
    failed = seen.find(id="failed").all("li")
    assert {one.find("a")["href"] for one in failed} == {f"/jobs/{job_id}" for job_id in ids["failed"]}
    assert "ValueError: no such box: trouble@example.org" in [one.find(cls="cut").text for one in failed]
    assert "Nothing runs." in seen.find(id="running").text
    assert "Mail Send an e-mail." in seen.find(id="about").text
    [running] = (await page.see("/queues/hold")).find(id="running").all("li")
    assert running.find("a")["href"] == f"/jobs/{ids['running'][0]}"
    assert (
        len((await page.see("/queues/mail?last=day")).find(id="ended").find("svg", role="img").all("g")) == 24
    )


async def test_figures_are_of_this_queue_alone(world: World, page: Browser) -> None:
    await world.ran(Mail("a@example.org"))
    assert "1 succeeded 0 failed" in (await page.see("/queues/mail")).find(id="ended").text
    await world.client.add(Limited()).save()
    assert "0 succeeded 0 failed" in (await page.see("/queues/limited")).find(id="ended").text


async def test_what_was_declared_is_told(world: World, page: Browser) -> None:
    await world.client.add(Limited()).save()
    seen = await page.see("/queues/limited")
    about = seen.find(id="about").text
    running = next(one for one in seen.all("a", cls="tile") if one.find(cls="state").text == "running")
    assert running.find("b").text == "0"
    assert running.text.endswith("of 5 at most")
    assert ", ".join(SAID) in about
    assert "3 attempts, 1 min 30 s each, Letter for each that fails for good" in about
    assert "Limited Do little at once." in about


async def test_it_is_paused_and_goes_on(world: World, page: Browser, journal: Journal) -> None:
    await world.client.add(Mail("a@example.org")).wait(60).save()
    seen = await page.see("/queues/mail")
    paused = await page.do(seen.form("Pause"), "Pause")
    assert paused.notice == "Done: paused."
    assert paused.find("h1").text == "mail"
    assert paused.find(id="head").has(cls="paused")
    [found] = [queue for queue in await world.client.queues.list() if queue.name == "mail"]
    assert found.paused
    again = await page.do(seen.form("Pause"), "Pause")
    assert again.notice is not None
    assert again.notice.startswith("Nothing was paused")
    resumed = await page.do(paused.form("Resume"), "Resume")
    assert resumed.notice == "Done: resumed."
    assert not resumed.find(id="head").has(cls="paused")
    said = journal.of("page.action")
    assert ["action=pause" in line or "action=resume" in line for line in said] == [True] * 3
    assert all("queue=mail" in line and "sender=127.0.0.1" in line for line in said)


async def test_in_the_list_too_and_one_comes_back_there(world: World, page: Browser) -> None:
    await world.client.add(Mail("a@example.org")).wait(60).save()
    listed = await page.see("/queues", text="mai")
    answer = await page.submit(listed.find(id="queues").row("mail").form("Pause"), "Pause")
    assert answer.headers["location"] == "/queues?text=mai&done=paused&n=1"
    after = await page.see(answer.headers["location"])
    assert "paused" in after.find(id="queues").row("mail").text


async def test_a_queue_that_is_not_there_is_not_made(world: World, page: Browser) -> None:
    for what in ("pause", "resume"):
        answer = await page.post(f"/queues/none/{what}", headers={"Sec-Fetch-Site": "same-origin"})
        assert answer.status_code == 404
    assert "none" not in [queue.name for queue in await world.client.queues.list()]
    assert "There is no queue" in (await page.see("/queues/none", status=404)).text


@pytest.mark.parametrize(
    "options", [{"read_only": True}, {"auth": allow_all(Access(write=False))}], ids=["read-only", "no write"]
)
async def test_who_may_not_change_anything_has_no_buttons(options: dict[str, Any]) -> None:
    async with world_of(":memory:", **options) as world:
        await world.fill()
        for path in ("/", "/queues", "/queues/mail"):
            assert (await world.page.see(path)).main.forms() == []
        answer = await world.page.post("/queues/mail/pause", headers={"Sec-Fetch-Site": "same-origin"})
        assert answer.status_code == 403
        assert not any(queue.paused for queue in await world.client.queues.list())


async def test_its_task_types_lead_to_forms_for_who_may_use_them() -> None:
    for payloads in (True, False):
        async with world_of(":memory:", auth=allow_all(Access(payloads=payloads))) as world:
            await world.client.add(Mail("a@example.org")).wait(60).save()
            about = (await world.page.see("/queues/mail")).find(id="about")
            assert "Mail Send an e-mail." in about.text
            links = about.all("a", text="Mail")
            assert len(links) == payloads
            for link in links:
                await world.page.see(link["href"])


async def test_all_that_failed_are_retried_once_that_is_confirmed(world: World, page: Browser) -> None:
    @world.client.handler(Letter)
    async def letter(task: Letter) -> None:
        raise Discard(task.error)

    [elsewhere] = await world.ran(Letter("lost"))
    ids = await world.fill()
    await world.client.pause("mail")
    seen = await page.see("/queues/mail")
    question = read(await page.submit(seen.form("Retry all failed"), "Retry all failed"))
    assert "2 jobs" in question.find("h1").text
    assert await world.client.status(ids["failed"][0]) is JobStatus.FAILED
    form = question.form(action="/jobs/act")
    done = await page.do(form, form.buttons[0][0])
    assert done.find("h1").text == "mail"
    assert done.notice == "Done: 2 retried."
    for job_id in ids["failed"]:
        assert await world.client.status(job_id) is JobStatus.PENDING
    assert await world.client.status(ids["cancelled"][0]) is JobStatus.CANCELLED
    assert await world.client.status(elsewhere) is JobStatus.FAILED, "it is of another queue"


async def test_any_name_has_a_page(page: Browser, world: World) -> None:
    for name in ("a/b", "<i>", "..", "a b?c#d", "ü", "-x-"):
        await world.client.add(kind(name)()).save()
        row = (await page.see("/queues")).find(id="queues").find("a", cls="row", text=name)
        seen = await page.see(row["href"])
        assert seen.find("h1").text == name
        paused = await page.do(seen.form("Pause"), "Pause")
        assert paused.find("h1").text == name
        assert [queue.name for queue in await world.client.queues.list() if queue.paused] == [name]
        await world.client.resume(name)


async def test_what_can_be_no_name_is_refused(page: Browser) -> None:
    for name, status in ((201 * "x", 400), ("~!", 404), ("~" + "AAAA", 400), ("%00", 400), ("~_w", 404)):
        for path in (f"/queues/{name}", f"/schedules/{name}"):
            assert (await page.get(path)).status_code == status, (name, path)
    await page.see("/", last="\0", status=400)
    await page.see("/queues", text="%" * 5000)
    await page.see("/schedules", text="\0" * 50)


async def test_pages_are_the_same_while_nothing_happens(world: World, page: Browser) -> None:
    await world.fill()
    for path in ("/queues", "/queues/mail", "/queues/hold"):
        first = await page.get(path)
        world.clock.advance(2)
        again = await page.get(path, headers={"If-None-Match": first.headers["etag"]})
        assert again.status_code == 304


async def test_none_yet() -> None:
    async with testing.client() as client, Browser(client) as page:
        assert "No queues yet" in (await page.see("/queues")).main.text
