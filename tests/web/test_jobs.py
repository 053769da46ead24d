"""Lists of jobs: by filters in the address, page by page, without what one may not see."""

from __future__ import annotations

import contextlib
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backlite_async import Client, JobContext
from backlite_async.web import Access, allow_all
from backlite_async.web._asked import Asked, asked, moment, span_of
from backlite_async.web._forms import BadRequest, Fields

from .support import Document, Mail, World, world_of


def shown(page: Document) -> list[str]:
    """Return the ids of the jobs in a list."""
    return [link["href"].rpartition("/")[2] for link in page.all("a", cls="row")]


async def listed(world: World, **parameters: Any) -> list[str]:
    return shown(await world.page.see("/jobs", **parameters))


def tabs(page: Document) -> dict[str, str]:
    texts = [link.text.rpartition(" ") for link in page.find("nav", id="tabs").all("a")]
    return {label or count: count if label else "" for label, _, count in texts}


async def test_every_job_in_its_state(world: World) -> None:
    """What Backlite's page shows: running, upcoming, succeeded, failed."""
    ids = await world.fill()
    page = await world.page.see("/jobs")
    assert sorted(shown(page)) == sorted(job_id for some in ids.values() for job_id in some)
    assert tabs(page) == {
        "All": "8", "Running": "1", "Upcoming": "1", "Succeeded": "3", "Failed": "2", "Cancelled": "1"
    }  # fmt: skip
    for tab, state in {
        "Running": "running",
        "Upcoming": "scheduled",
        "Succeeded": "succeeded",
        "Failed": "failed",
    }.items():
        href = next(
            link["href"] for link in page.find("nav", id="tabs").all("a") if link.text.startswith(tab)
        )
        one = await world.page.see(href)
        assert sorted(shown(one)) == sorted(ids[state])
        assert one.find("nav", id="tabs").find("a", aria_current="page").text.startswith(tab)
        assert {badge.text for badge in one.find("tbody").all("span", cls="state")} == {state}


async def test_what_is_told_of_each(world: World, client: Client) -> None:
    ids = await world.fill()
    page = await world.page.see("/jobs")
    failed = page.row(ids["failed"][0][-12:])
    assert "ValueError: no such box: trouble@example.org" in failed.text
    assert '{"to": "u0@example.org", "subject": "hello"}' in page.row(ids["succeeded"][0][-12:]).text
    cancelled = page.row(ids["cancelled"][0][-12:])
    assert "never@example.org" in cancelled.text
    assert not cancelled.all("span", cls="wrong")
    later = page.row(ids["scheduled"][0][-12:])
    assert "due" in later.text
    [due, *_] = later.all("time")
    job = await client.get(ids["scheduled"][0])
    assert job is not None
    assert due["datetime"] == job.due_at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    assert page.row(ids["running"][0][-12:]).all("time", data_since="")


FILTERS: list[tuple[dict[str, Any], str]] = [
    ({"queue": "mail"}, "succeeded failed scheduled cancelled"),
    ({"queue": "nowhere"}, ""),
    ({"task": "Hold"}, "running"),
    ({"state": ["failed", "cancelled"]}, "failed cancelled"),
    ({"text": "trouble@"}, "failed"),
    ({"text": "no such BOX"}, "failed"),
    ({"state": "scheduled"}, "scheduled"),
    ({"state": "scheduled", "due_after": "90m"}, ""),
    ({"due_before": "2h"}, "scheduled"),
    ({"due_before": "30m"}, ""),
    ({"due_after": "30m", "state": "pending"}, "scheduled"),
    ({"finished_after": "1h"}, "succeeded failed cancelled"),
    ({"finished_before": "1h"}, ""),
    ({"added_after": "1 h", "task": "Hold"}, "running"),
    ({"added_before": "2001-01-01T00:00"}, ""),
    ({"tag": "none"}, ""),
    ({"owner": "nobody"}, ""),
    ({"workflow": "none", "key": "none", "parent": "none"}, ""),
]


async def test_filters(world: World) -> None:
    ids = await world.fill()
    for parameters, states in FILTERS:
        expected = [job_id for state in states.split() for job_id in ids[state]]
        page = await world.page.see("/jobs", **parameters)
        assert sorted(shown(page)) == sorted(expected), parameters
        form = page.form("Filter")
        assert form.method == "get"
        again = await world.page.submit(form, "Filter")
        assert sorted(shown(Document(again.text))) == sorted(expected), "the form asks the same again"


async def test_those_scheduled_are_pending_and_not_due(world: World, client: Client) -> None:
    await client.pause("mail", wait=True)
    [due] = await client.add(Mail("now")).save()
    [later] = await client.add(Mail("later")).wait(60).save()
    page = await world.page.see("/jobs", state="scheduled")
    assert shown(page) == [later]
    assert {name: count for name, count in tabs(page).items() if count != "0"} == {
        "All": "2",
        "Upcoming": "2",
        "Scheduled": "1",
    }
    question = await world.page.submit(page.form("Run now all"), "Run now all")
    done = await world.page.do(Document(question.text).form("Run now 1 job"), "Run now 1 job")
    assert done.notice == "Done: made due now."
    assert sorted(await listed(world, state="pending")) == sorted([due, later])
    assert await listed(world, state="scheduled") == []


async def test_tags_parents_and_keys(world: World, client: Client) -> None:
    [tagged] = await client.add(Mail("a")).tags("red & <blue>").key("k&1").save()
    page = await world.page.see("/jobs")
    assert shown(await world.page.see(page.links["red & <blue>"])) == [tagged]
    assert await listed(world, key="k&1") == [tagged]
    child: list[str] = []

    @client.middleware(queue="hold")
    async def adds(job: JobContext, task: Any, call_next: Any) -> Any:
        child.extend(await client.add(Mail("child")).save())
        return await call_next(job, task)

    parent = await world.running()
    assert await listed(world, parent=parent) == child
    [owner] = await client.owners.list()
    assert await listed(world, owner=owner.id, state="running", task="Hold") == [parent]


async def test_pages_forth_and_back(database: str) -> None:
    async with world_of(database, page_size=3) as world:
        await world.client.add(*[Mail(f"n{number}") for number in range(8)]).wait(3600).save()
        pages: list[list[str]] = []
        page = await world.page.see("/jobs", state="pending", queue="mail")
        while True:
            pages.append(shown(page))
            if "Next →" not in page.links:
                break
            page = await world.page.see(page.links["Next →"])
        assert [len(some) for some in pages] == [3, 3, 2]
        assert len({job_id for some in pages for job_id in some}) == 8
        back = await world.page.see(page.links["← Previous"])
        assert shown(back) == pages[1]
        assert "queue=mail" in page.links["← Previous"]


async def test_what_was_done_is_said_once(world: World) -> None:
    """No link from there, and no form, leads to where it is said again."""
    page = await world.page.see("/jobs?queue=mail&done=retried&n=1")
    assert page.notice is not None
    assert "done=" not in page.html
    assert "queue=mail" in page.html


async def test_a_list_that_had_to_stop_goes_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from backlite_async import _query

    await world.ran(*[Mail(f"n{number}") for number in range(9)])
    most = (_query.LOOKS, _query.LOOK_BYTES // 1_000_000)
    monkeypatch.setattr(_query, "LOOKS", 4)
    page = await world.page.see("/jobs", text="n0@nowhere")
    assert "up to {:,} at once, or {} MB of payloads".format(*most) in page.text
    assert "None was found" in page.text or "none was found" in page.text
    looks = 0
    while "Look further" in page.links:
        page = await world.page.see(page.links["Look further"])
        looks += 1
    assert looks == 2
    assert "No jobs" in page.text


WRONG: list[tuple[dict[str, str], str]] = [
    ({"after": "broken"}, "place in the list"),
    ({"before": "AAAA"}, "place in the list"),
    ({"state": "nonsense"}, "nonsense"),
    ({"due_after": "soon"}, "soon"),
    ({"finished_after": "2026-13-01"}, "2026-13-01"),
    ({"added_before": "9" * 30}, "no time"),
    ({"added_before": "999999999w"}, "no time"),
    ({"finished_after": "1h", "finished_before": "2h"}, "swap"),
    ({"text": "x" * 5000}, "characters"),
    ({"queue": "a\x00b"}, "printable"),
]


async def test_what_cannot_be_meant_is_told_and_can_be_put_right(world: World) -> None:
    for parameters, word in WRONG:
        answer = await world.page.get("/jobs", params={"task": "Mail"} | parameters)
        assert answer.status_code == 400
        page = Document(answer.text)
        assert word in page.main.text
        assert page.form("Filter")["task"] == "Mail", "what was typed is still there"
        if "after" in parameters or "before" in parameters:
            assert shown(await world.page.see(page.links["Begin at its first page"])) == []
        else:
            await world.page.see(page.links["look at all jobs"])


async def test_without_payloads_nothing_of_them_is_told_nor_found(database: str) -> None:
    auth = allow_all(Access(payloads=False))
    async with world_of(database, auth=auth) as world:
        await world.fill()
        page = await world.page.see("/jobs")
        assert "u0@example.org" not in page.html
        assert not page.all("input", name="text")
        found = await world.page.get("/jobs", params={"text": "u0@example.org"})
        missed = await world.page.get("/jobs", params={"text": "nobody"})
        assert found.status_code == missed.status_code == 400
        said = [answer.text.replace("u0@example.org", "").replace("nobody", "") for answer in (found, missed)]
        assert said[0] == said[1]


@pytest.mark.parametrize("options", [{"read_only": True}, {"auth": allow_all(Access(write=False))}])
async def test_who_may_not_write_sees_no_buttons(database: str, options: dict[str, Any]) -> None:
    async with world_of(database, **options) as world:
        await world.fill()
        page = await world.page.see("/jobs")
        assert [form.method for form in page.forms()] == ["get", "post"]
        assert [label for form in page.forms() for label, _ in form.buttons] == ["Filter"]
        assert not page.all("input", type="checkbox")


async def test_only_what_fits_the_states_is_offered(world: World) -> None:
    await world.fill()
    offered = {}
    for state in ("running", "pending", "succeeded", "failed", ["failed", "cancelled"]):
        page = await world.page.see("/jobs", state=state)
        labels = [label for label, _ in page.form("Delete" if state != "running" else "Release").buttons]
        offered[str(state)] = " ".join(label for label in labels if label != "Nothing")
    assert offered == {
        "running": "Release Cancel",
        "pending": "Run now Cancel Delete Reschedule",
        "succeeded": "Delete",
        "failed": "Retry Delete",
        "['failed', 'cancelled']": "Retry Delete",
    }


async def test_a_page_stays_the_same_while_nothing_happens(world: World) -> None:
    await world.fill()
    first = await world.page.get("/jobs", params={"finished_after": "2h"})
    same = await world.page.get(
        "/jobs", params={"finished_after": "2h"}, headers={"If-None-Match": first.headers["etag"]}
    )
    assert same.status_code == 304
    assert set(Document(first.text).live()) == {"tabs", "jobs", "matches"}


async def test_what_is_in_texts_is_inert(world: World) -> None:
    evil = '"><script>alert(1)</script>'
    await world.client.add(Mail(evil)).tags(evil).key(evil).save()
    for parameters in (
        {},
        {"queue": evil},
        {"text": evil},
        {"tag": evil},
        {"after": evil},
        {"due_after": evil},
    ):
        answer = await world.page.get("/jobs", params=parameters)
        assert "<script>alert" not in answer.text
        assert len(Document(answer.text).all("script")) == 1


# -- which jobs are meant ----------------------------------------------------------------------------

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "ahead", "back"),
    [
        ("2h", "2026-03-01T14:00", "2026-03-01T10:00"),
        ("+2h", "2026-03-01T14:00", "2026-03-01T14:00"),
        ("-2h", "2026-03-01T10:00", "2026-03-01T10:00"),
        ("1d 2h", "2026-03-02T14:00", "2026-02-28T10:00"),
        ("90min", "2026-03-01T13:30", "2026-03-01T10:30"),
        ("1.5H", "2026-03-01T13:30", "2026-03-01T10:30"),
        ("2026-03-04T05:06", "2026-03-04T05:06", "2026-03-04T05:06"),
        ("2026-03-04 05:06:07.5", "2026-03-04T05:06:07.500000", "2026-03-04T05:06:07.500000"),
        ("2026-03-04T05:06+02:00", "2026-03-04T03:06", "2026-03-04T03:06"),
        ("2026-03-04", "2026-03-04T00:00", "2026-03-04T00:00"),
    ],
)
def test_times(text: str, ahead: str, back: str) -> None:
    assert moment("x", text, NOW).replace(tzinfo=None).isoformat().removesuffix(":00") == ahead
    assert moment("x", text, NOW, back=True).replace(tzinfo=None).isoformat().removesuffix(":00") == back


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the zone of a process cannot be set here")
def test_a_time_without_a_zone_is_not_that_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as changed:
        changed.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        found = moment("x", "2026-03-04T05:06", NOW)
    time.tzset()
    assert found == datetime(2026, 3, 4, 5, 6, tzinfo=UTC)


@pytest.mark.parametrize("sent", [{"sate": "failed"}, {"states": "failed", "queue": "mail"}, {"id": "x"}])
async def test_a_filter_that_is_not_known_does_not_show_everything(
    world: World, sent: dict[str, str]
) -> None:
    """Else all jobs would stand there, with what can be done to all of them."""
    await world.fill()
    page = await world.page.see("/jobs", status=400, **sent)
    assert f"{next(iter(sent))}= is no filter of jobs" in page.text
    assert "Delete all" not in page.text
    assert page.form("Filter")["queue"] == sent.get("queue", "")


@settings(max_examples=50)
@given(st.text(max_size=60) | st.from_regex(r"[+-]?\d{1,12}(\.\d+)?[smhdw]{0,2}[\d:T+-]{0,8}"))
def test_no_text_is_more_than_no_time(text: str) -> None:
    with contextlib.suppress(BadRequest):
        assert moment("x", text, NOW).tzinfo is not None


def test_the_same_jobs_are_meant_later() -> None:
    """What a question freezes is what was asked, whenever the answer comes."""
    fields = Fields.parse("state=failed&state=cancelled&queue=q&finished_after=2h&text=a%20b&tag=&page=2")
    meant = asked(fields, NOW)
    later = asked(Fields(meant.frozen()), NOW + timedelta(days=1))
    assert later.filters == meant.filters
    assert meant.narrowed(frozenset({"failed", "pending"})).filters["state"] == ["failed"]
    assert meant.words() == ["queue q", "finished after 2026-03-01 10:00:00 UTC", "text “a b”"]
    assert Asked(filters={}, fields={}).states == {"running", "pending", "succeeded", "failed", "cancelled"}


def test_spans() -> None:
    assert span_of("10m") == timedelta(minutes=10)
    assert span_of("10") is None
    assert span_of("2 weeks") is None
