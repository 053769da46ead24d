"""The overview: counts, figures, queues and processes, as they are."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit

import anyio
import anyio.lowlevel
import msgspec
import pytest

from backlite_async import JobContext, OwnerInfo, QueueConfig, Retention, Task, testing
from backlite_async.web import Access, allow_all

from .support import START, Browser, Document, Element, Mail, World, world_of

NONE = "\u2013"


class Slow(Task):
    config: ClassVar[QueueConfig] = QueueConfig("slow", retention=Retention())
    seconds: float


def tile(page: Document, state: str) -> Element:
    """Return the tile of a state."""
    return next(one for one in page.all("a", cls="tile") if one.find(cls="state").text == state)


def asks(href: str) -> dict[str, str]:
    """Return the parameters of a link."""
    return {name: value for name, [value] in parse_qs(urlsplit(href).query).items()}


async def test_tiles_count_by_state_and_lead_to_the_jobs(world: World, page: Browser) -> None:
    await world.fill()
    seen = await page.see("/")
    counts = {one.find(cls="state").text: one.find("b").text for one in seen.all("a", cls="tile")}
    assert counts == {
        "pending": "1",
        "scheduled": "1",
        "running": "1",
        "succeeded": "3",
        "failed": "2",
        "cancelled": "1",
    }
    assert asks(tile(seen, "failed")["href"]) == {"state": "failed"}
    assert asks(tile(seen, "scheduled")["href"]) == {"state": "pending", "due_after": "0s"}
    assert tile(seen, "running").text.endswith("of 10 workers")
    for one in seen.all("a", cls="tile"):
        assert len((await page.see(one["href"])).main.find("tbody").all("tr")) == int(one.find("b").text)


async def test_a_count_that_ends_says_that_there_are_more(world: World, page: Browser) -> None:
    await world.client.add(*[Mail("later@example.org")] * 10_001).wait(3600).save()
    seen = await page.see("/")
    assert tile(seen, "pending").find("b").text == "10,000+"
    assert tile(seen, "failed").find("b").text == "0"
    assert "10,000+" in seen.find(id="queues").row("mail").text


async def test_the_oldest_due_is_an_instant(world: World, page: Browser) -> None:
    await world.client.pause("mail")
    world.clock.advance(0.35)
    due = world.clock.instant
    await world.client.add(Mail("a@example.org")).save()
    world.clock.advance(40)
    await world.client.add(Mail("b@example.org")).save()
    seen = await page.see("/")
    shown = [tile(seen, "pending").find("time"), seen.find(id="queues").row("mail").find("time")]
    for time in shown:
        assert datetime.fromisoformat(time["datetime"]) == due.replace(microsecond=0)
    world.clock.advance(1)
    again = tile(await page.see("/"), "pending").find("time")
    assert again["datetime"] == shown[0]["datetime"], "it stays while nothing happens"


async def test_a_chart_shows_what_ended_by_the_minute_and_by_the_hour(world: World, page: Browser) -> None:
    await world.ran(Mail("a@example.org"), Mail("b@example.org"))
    world.clock.advance(timedelta(minutes=20))
    await world.ran(Mail("c@example.org"), Mail("trouble@example.org"))
    panel = (await page.see("/")).find(id="ended")
    bars = panel.find("svg", role="img").all("g")
    assert len(bars) == 60
    told = [bar.find("title").text.partition(": ")[2] for bar in bars]
    assert told[-1] == "1 succeeded, 1 failed"
    assert told[-21] == "2 succeeded, 0 failed"
    assert set(told) - {told[-1], told[-21]} == {"nothing ended"}
    assert [row[1:] for row in panel.find(cls="hide").rows()] == [["2", "0"], ["1", "1"]]
    world.clock.advance(timedelta(hours=3))
    hour, day = await page.see("/"), await page.see("/", last="day")
    assert "Nothing ended" in hour.find(id="ended").text
    panel = day.find(id="ended")
    assert len(panel.find("svg", role="img").all("g")) == 24
    assert "3 succeeded 1 failed" in panel.find("figcaption").text


async def test_tabs_choose_the_time_without_scripts(world: World, page: Browser) -> None:
    seen = await page.see("/")
    tabs = seen.find(id="ended").find("nav")
    assert [(tab.text, tab.get("aria-current")) for tab in tabs.all("a")] == [
        ("Last hour", "true"),
        ("Last day", None),
    ]
    day = await page.see(tabs.links["Last day"])
    assert day.find("a", aria_current="true", text="Last day")
    assert day.find(id="times").find("h2").text == "How long, in the last day"
    problem = await page.see("/", last="year", status=400)
    assert "hour, day" in problem.text


async def test_times_are_those_of_attempts(world: World, page: Browser) -> None:
    @world.client.handler(Slow)
    async def slow(task: Slow, job: JobContext) -> None:
        world.clock.advance(task.seconds)

    for _ in range(9):
        await world.ran(Slow(3.0))
    await world.ran(Slow(100.0))
    ran = {row[0]: row[1] for row in (await page.see("/")).find(id="times").rows()}
    assert ran["Half"] == ran["90 %"]
    assert ran["99 %"] == ran["Longest"]
    assert ran["Half"].endswith(" s")
    assert 2.6 < float(ran["Half"].removesuffix(" s")) < 3.4
    assert ran["Longest"].startswith("1 min")


async def test_where_nothing_is_that_is_said() -> None:
    async with testing.client() as client, Browser(client) as page:
        seen = await page.see("/")
    assert all(row[1:] == [NONE, NONE] for row in seen.find(id="times").rows())
    assert "Nothing ended in this time." in seen.find(id="ended").text
    assert "No queues yet" in seen.find(id="queues").text
    assert len(seen.find(id="processes").rows()) == 1


async def test_queues_are_counted_by_state(world: World, page: Browser) -> None:
    await world.fill()
    await world.client.pause("hold")
    table = (await page.see("/")).find(id="queues")
    assert [row[:7] for row in table.rows()] == [
        ["hold paused", "0", "0", "1", "0", "0", "0"],
        ["mail", "1", "1", "0", "3", "2", "1"],
    ]
    assert table.row("mail").find("a", cls="row")["href"] == "/queues/mail"
    assert asks(table.row("mail").links["2"]) == {"queue": "mail", "state": "failed"}


async def test_of_many_queues_those_are_shown_in_which_most_goes_on(world: World, page: Browser) -> None:
    kinds = []
    for number in range(15):
        config = QueueConfig(f"q{number:02}", retention=Retention())
        kinds.append(type(f"T{number}", (Task,), {"config": config, "__annotations__": {"config": ClassVar}}))
    for number, kind in enumerate(kinds):
        await world.client.add(*[kind() for _ in range(1 + number % 14)]).save()
    panel = (await page.see("/")).find(id="queues")
    assert [row[0] for row in panel.rows()] == [f"q{number:02}" for number in range(2, 14)]
    [(text, href)] = [(text, href) for text, href in panel.links.items() if text.startswith("All ")]
    assert (text, href) == (f"All {len(await world.client.queues.list())} queues", "/queues")


async def test_processes_tell_what_they_are_doing(world: World, page: Browser) -> None:
    for number in range(10):
        await world.running(number)
    panel = (await page.see("/")).find(id="processes")
    [row] = panel.find("tbody").all("tr")
    assert row.find(cls="state").text == "alive"
    assert row.find(cls="busy").text == "10 of 10"
    bar = row.find("progress")
    assert (bar["value"], bar["max"]) == ("10", "10")
    doing = row.find("ul").all("li")
    assert len(doing) == 8
    assert doing[0].find("a").text == "Hold"
    assert "data-since" in doing[0].find("time").attributes
    [owner] = await world.client.owners.list()
    assert asks(row.links["and 2 more"]) == {"state": "running", "owner": owner.id}
    assert len((await page.see(row.links["and 2 more"])).main.find("tbody").all("tr")) == 10


class Step(Task):
    config: ClassVar[QueueConfig] = QueueConfig("steps")


async def test_progress_is_shown_while_a_job_runs(world: World, page: Browser) -> None:
    told, go_on = anyio.Event(), anyio.Event()

    @world.client.handler(Step)
    async def step(task: Step, job: JobContext) -> None:
        await job.progress(0.25, "a <quarter>")
        told.set()
        await go_on.wait()

    [job_id] = await world.client.add(Step()).save()
    with anyio.fail_after(10):
        await told.wait()
        while (job := await world.client.get(job_id)) is None or job.progress is None:
            await anyio.lowlevel.checkpoint()
    doing = (await page.see("/")).find(id="processes").find("li")
    assert doing.find("a")["href"] == f"/jobs/{job_id}"
    assert doing.find("progress")["value"] == "0.25"
    assert "a <quarter>" in doing.text
    go_on.set()
    async with Browser(world.client, auth=allow_all(Access(payloads=False))) as guest:
        assert "quarter" not in (await guest.see("/")).text


async def test_each_process_shows_its_own_jobs(file: str) -> None:
    async with world_of(file) as world:
        other = testing.client(file, clock=world.clock, workers=2, rng=random.Random(1))
        begun, go_on = anyio.Event(), anyio.Event()

        @other.handler(Step)
        async def step(task: Step) -> None:
            begun.set()
            await go_on.wait()

        async with other:
            await world.running()
            await other.add(Step()).save()
            with anyio.fail_after(10):
                await begun.wait()
            processes = (await world.page.see("/")).find(id="processes")
            doing = {row.find(cls="busy").text: row.find("ul").text for row in processes.all("tr")[1:]}
            go_on.set()
        assert {busy: text.split()[0] for busy, text in doing.items()} == {
            "1 of 10": "Hold",
            "1 of 2": "Step",
        }
        assert "Step" not in doing["1 of 10"]
        assert "Step" in doing["1 of 2"]
        assert "Hold" not in doing["1 of 2"]


async def test_a_process_without_workers_adds_only(file: str) -> None:
    async with world_of(file) as world, testing.client(file, workers=0):
        rows = (await world.page.see("/")).find(id="processes").rows()
        assert [(row[2], row[3]) for row in rows] == [("0 of 10", "nothing"), ("adds only", "nothing")]


async def test_of_dead_processes_is_told_when_they_were_seen(
    world: World, page: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    [here] = await world.client.owners.list()
    seen_at = START - timedelta(minutes=1)
    dead = msgspec.structs.replace(here, id="a", host="gone", alive=False, running=3, seen_at=seen_at)
    far = msgspec.structs.replace(here, id="b", host="far", alive=None, seen_at=seen_at)

    async def owners(self: object) -> list[OwnerInfo]:
        return [dead, far, here] + [msgspec.structs.replace(here, id=f"c{n}") for n in range(30)]

    monkeypatch.setattr(type(world.client.owners), "list", owners)
    seen = await page.see("/")
    panel = seen.find(id="processes")
    assert len(panel.find("tbody").all("tr")) == 25
    assert "And 8 more." in panel.text
    [row] = [row for row in panel.all("tr") if "far" in row.text]
    assert row.find(cls="state").text == "unknown"
    assert datetime.fromisoformat(row.find("td", data_label="Last seen").find("time")["datetime"]) == seen_at
    assert panel.row(here.host).find("td", data_label="Last seen").text == "now"
    assert tile(seen, "running").text.endswith("of 320 workers"), "those of the dead one do not count"


async def test_it_is_the_same_while_nothing_happens(world: World, page: Browser) -> None:
    await world.fill()
    first = await page.get("/")
    world.clock.advance(2)
    again = await page.get("/", headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304
    await world.ran(Mail("new@example.org"))
    changed = await page.get("/", headers={"If-None-Match": first.headers["etag"]})
    assert changed.status_code == 200
    assert set(Document(first.text).live()) == {"states", "ended", "times", "queues", "processes"}


async def test_names_are_texts_and_links_lead_to_them(world: World, page: Browser) -> None:
    for name in ("<script>alert(1)</script>", "a/b ?&#\"'", "..", "Füße", "~x"):
        odd = type("Odd", (Task,), {"config": QueueConfig(name), "__annotations__": {"config": ClassVar}})
        await world.client.add(odd()).save()
        seen = await page.see("/")
        assert not seen.main.has("script")
        link = seen.find(id="queues").find("a", cls="row", text=name)
        assert (await page.see(link["href"])).find("h1").text == name
