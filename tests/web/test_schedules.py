"""Schedules: when they run, what came of it; run now, paused, resumed, deleted by who may."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

import anyio

from backlite_async import QueueConfig, Retention, Rule, Task, testing

from ..conftest import Journal
from .support import HOST, START, Browser, Hold, Mail, World, read, world_of

from backlite_async.web import Access, allow_all  # isort: skip

NONE = "\u2013"


class Secretive(Task):
    config: ClassVar[QueueConfig] = QueueConfig("secretive", retention=Retention())
    to: str
    api_key: str


async def passed(world: World, duration: timedelta) -> None:
    """Let time pass, with the runs that are due in it."""
    await testing.run_until_idle(world.client, advance=duration, raise_errors=False)


async def test_all_are_shown_with_next_and_last_runs(world: World, page: Browser) -> None:
    client = world.client
    await client.schedule("hourly", Mail("a@example.org"), every=3600)
    await client.schedule("failing", Mail("trouble@example.org"), every=3600)
    await client.schedule("nightly", Mail("b@example.org"), cron="0 3 * * *", tz="Europe/Berlin")
    await client.schedules.pause("nightly")
    await passed(world, timedelta(hours=2, minutes=1))
    table = (await page.see("/schedules")).find(id="schedules")
    rows = {row[0].split()[0]: row for row in table.rows()}
    assert list(rows) == ["failing", "hourly", "nightly"]
    assert rows["nightly"][0] == "nightly At 03:00 every day (Europe/Berlin)"
    assert rows["nightly"][1:5] == ["paused", NONE, "never", "0"]
    assert rows["hourly"][1] == "active"
    assert rows["hourly"][4] == "2"
    assert table.row("failing").find("td", data_label="Last run").has(cls="failed")
    schedule = await client.schedules.get("hourly")
    assert schedule is not None
    last = table.row("hourly").find("td", data_label="Last run")
    assert last.find("a")["href"] == f"/jobs/{schedule.last_job_id}"
    assert last.find(cls="state").text == "succeeded"
    due = table.row("hourly").find("td", data_label="Next run").find("time")["datetime"]
    assert datetime.fromisoformat(due) == schedule.next_runs[0]


async def test_one_in_full(world: World, page: Browser) -> None:
    await world.client.schedule(
        "nightly",
        Mail("b@example.org"),
        cron="30 2 * * *",
        tz="Europe/Berlin",
        overlap=False,
        missed="all",
        jitter=90,
        max_runs=1000,
        start=START + timedelta(days=1),
    )
    seen = await page.see("/schedules/nightly")
    assert seen.find("h1").text == "nightly"
    assert seen.find(id="head").find(cls="state").text == "draft"
    assert "At 02:30 every day" in seen.find(id="head").text
    runs = seen.find(id="next").all("li")
    assert [time.text for run in runs for time in run.all("time")] == [""] * 5, (
        "else the day stands there twice"
    )
    assert [run.find("span").text for run in runs] == [
        f"Sun, Mar {day} 2030, 02:30:00 CET".replace("Sun", name)
        for day, name in ((3, "Sun"), (4, "Mon"), (5, "Tue"), (6, "Wed"), (7, "Thu"))
    ]
    first = datetime(2030, 3, 3, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"))
    assert datetime.fromisoformat(runs[0].find("time")["datetime"]) == first
    about = seen.find(id="about").text
    for said in (
        "Cron 30 2 * * *",
        "Time zone Europe/Berlin",
        "Missed runs each is made up for",
        "Overlap no run while the last one has not finished",
        "Jitter each starts up to 1 min 30 s later",
        "At most 1,000 runs",
        "Made at run time",
    ):
        assert said in about
    assert "Runs 0 of 1,000" in seen.find(id="last").text
    assert seen.find(id="task").links == {"Mail": "/jobs?queue=mail&task=Mail", "mail": "/queues/mail"}


async def test_when_it_is_due_stands_there_as_it_was_said(world: World, page: Browser) -> None:
    cases: dict[str, dict[str, Any]] = {
        "Every 15 min": {"every": 900},
        "Rule FREQ=WEEKLY;BYDAY=MO,WE": {"rule": "FREQ=WEEKLY;BYDAY=MO,WE"},
        "Rule FREQ=DAILY": {"rule": Rule(frequency="daily")},
        "At 2 instants": {"at": [START + timedelta(days=1), START + timedelta(days=2)]},
        "Cron @daily": {"cron": "@daily"},
    }
    for said, times in cases.items():
        await world.client.schedule("one", Mail("a@example.org"), **times)
        seen = await page.see("/schedules/one")
        assert said in seen.find(id="about").text
        assert len(seen.find(id="next").all("li")) == (2 if "at" in times else 5)


async def test_runs_that_were_skipped_are_counted(world: World, page: Browser, journal: Journal) -> None:
    await world.client.schedule("long", Hold(), every=60, overlap=False)
    world.clock.advance(61)
    with anyio.fail_after(10):
        await world.begun().wait()
    for count in (1, 2):
        world.clock.advance(60)
        await journal.seen("schedule.skipped", count=count)
    last = (await page.see("/schedules/long")).find(id="last")
    assert "Skipped 2 as the last run had not finished" in last.text
    assert last.find(cls="state").text == "running"
    assert "2 skipped" in (await page.see("/schedules")).find(id="schedules").row("long").text


async def test_it_runs_now(world: World, page: Browser, journal: Journal) -> None:
    await world.client.schedule("hourly", Mail("a@example.org"), every=3600)
    seen = await page.see("/schedules/hourly")
    done = await page.do(seen.form("Run now"), "Run now")
    assert done.notice == "Done: started."
    assert done.find("h1").text == "hourly"
    await passed(world, timedelta())
    assert len(await world.client.jobs.list(queue="mail", state="succeeded")) == 1
    [line] = journal.of("page.action")
    assert "action=run_schedule" in line
    assert "schedule=hourly" in line


async def test_it_is_paused_and_goes_on(world: World, page: Browser, journal: Journal) -> None:
    await world.client.schedule("hourly", Mail("a@example.org"), every=3600)
    row = (await page.see("/schedules")).find(id="schedules").row("hourly")
    paused = await page.do(row.form("Pause"), "Pause")
    assert paused.notice == "Done: paused."
    assert paused.find("h1").text == "Schedules"
    again = await page.do(row.form("Pause"), "Pause")
    assert again.notice is not None
    assert again.notice.startswith("Nothing was paused")
    seen = await page.see("/schedules/hourly")
    assert "None while it is paused" in seen.find(id="next").text
    resumed = await page.do(seen.form("Resume"), "Resume")
    assert resumed.notice == "Done: resumed."
    assert len(resumed.find(id="next").all("li")) == 5
    actions = [line.split("action=")[1].split()[0] for line in journal.of("page.action")]
    assert actions == ["pause_schedule", "pause_schedule", "resume_schedule"]


async def test_it_is_deleted_once_that_is_confirmed(world: World, page: Browser, journal: Journal) -> None:
    await world.client.schedule("hourly", Mail("a@example.org"), every=3600)
    seen = await page.see("/schedules/hourly")
    question = read(await page.submit(seen.form("Delete"), "Delete"))
    assert question.find("h1").text == "Delete the schedule hourly?"
    assert await world.client.schedules.get("hourly") is not None
    assert journal.of("page.action") == []
    assert question.links["No, go back"] == "/schedules/hourly"
    done = await page.do(question.form("Delete it"), "Delete it")
    assert done.notice == "Done: deleted."
    assert "No schedules yet" in done.main.text
    assert await world.client.schedules.get("hourly") is None
    assert len(journal.of("page.action")) == 1
    await page.see("/schedules/hourly", status=404)


async def test_one_that_stands_in_the_code_is_not_deleted(file: str) -> None:
    client = testing.client(file)
    client.schedule("declared", Mail("a@example.org"), every=60)
    async with client, Browser(client) as page:
        seen = await page.see("/schedules/declared")
        assert "Made in the code" in seen.find(id="about").text
        assert "Delete" not in [label for form in seen.forms() for label, _ in form.buttons]
        for confirmed in ({}, {"confirmed": "1"}):
            answer = await page.post("/schedules/declared/delete", data=confirmed, headers={"Origin": HOST})
            assert "stands in the code" in read(answer, status=409).text
        assert await client.schedules.get("declared") is not None


async def test_secrets_in_its_payload_are_hidden(world: World, page: Browser) -> None:
    await world.client.schedule("one", Secretive("ann", "s3cr3t"), every=60)
    seen = await page.see("/schedules/one")
    assert '"to": "ann"' in seen.find("pre").text
    assert "s3cr3t" not in seen.html
    assert '"api_key"' in seen.find("pre").text


async def test_who_may_not_see_payloads_sees_none() -> None:
    async with world_of(":memory:", auth=allow_all(Access(payloads=False, write=False))) as world:
        await world.client.schedule("one", Secretive("ann", "s3cr3t"), every=60)
        seen = await world.page.see("/schedules/one")
        assert "ann" not in seen.html
        assert not seen.has("pre")
        assert seen.main.forms() == []
        assert (await world.page.see("/schedules")).main.forms() == []
        for what in ("run", "pause", "resume", "delete"):
            answer = await world.page.post(f"/schedules/one/{what}", headers={"Origin": HOST})
            assert answer.status_code == 403
        assert await world.client.jobs.count() == 0


async def test_one_that_is_not_there_is_not_found(page: Browser, journal: Journal) -> None:
    for what in ("run", "pause", "resume", "delete"):
        answer = await page.post(f"/schedules/none/{what}", headers={"Origin": HOST})
        assert answer.status_code == 404
    await page.see("/schedules/none", status=404)
    assert journal.of("page.action") == []


async def test_a_completed_one_and_one_whose_job_is_not_kept(world: World, page: Browser) -> None:
    class Gone(Task):
        config: ClassVar[QueueConfig] = QueueConfig("gone")

    @world.client.handler(Gone)
    async def gone(task: Gone) -> None: ...

    await world.client.schedule("once", Gone(), every=60, max_runs=1)
    await passed(world, timedelta(minutes=3))
    seen = await page.see("/schedules/once")
    assert seen.find(id="head").find(cls="state").text == "completed"
    assert "None: it is completed." in seen.find(id="next").text
    assert "is not kept" in seen.find(id="last").text
    assert "Pause" not in [label for form in seen.main.forms() for label, _ in form.buttons]


async def test_of_many_some_are_found_by_name(world: World, page: Browser) -> None:
    for number in range(12):
        await world.client.schedule(f"Sync {number}", Mail("a@example.org"), every=60)
    seen = await page.see("/schedules")
    search = next(form for form in seen.forms() if form.element.get("role") == "search")
    found = read(await page.submit(search, "Find", text="sync 1"))
    assert [row[0].removesuffix(" Every minute") for row in found.find(id="schedules").rows()] == [
        "Sync 1",
        "Sync 10",
        "Sync 11",
    ]
    assert "No such schedule" in (await page.see("/schedules", text="none")).main.text


async def test_any_name_has_a_page(world: World, page: Browser) -> None:
    for name in ("a/b", "<script>alert(1)</script>", "..", "a b?c#d", "ü"):
        await world.client.schedule(name, Mail("a@example.org"), every=60)
        row = (await page.see("/schedules")).find("a", cls="row", text=name)
        seen = await page.see(row["href"])
        assert not seen.main.has("script")
        assert seen.find("h1").text == name
        paused = await page.do(seen.form("Pause"), "Pause")
        assert paused.find(id="head").has(cls="paused")


async def test_pages_are_the_same_while_nothing_happens(world: World, page: Browser) -> None:
    await world.client.schedule("hourly", Mail("a@example.org"), every=3600)
    for path in ("/schedules", "/schedules/hourly"):
        first = await page.get(path)
        world.clock.advance(2)
        again = await page.get(path, headers={"If-None-Match": first.headers["etag"]})
        assert again.status_code == 304
