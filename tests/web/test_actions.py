"""What is done to jobs: to one, to those chosen, to all that match; who may, and what is asked before."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import anyio
import pytest

from backlite_async import Client, JobStatus, chain
from backlite_async.web import Access, allow_all, basic

from .support import Mail, World, read, world_of

STATES = ("succeeded", "failed", "scheduled", "cancelled", "running")

DONE = {
    "retry": {"failed": "pending", "cancelled": "pending"},
    "run_now": {"scheduled": "pending"},
    "reschedule": {"scheduled": "pending"},
    "cancel": {"scheduled": "cancelled", "running": "running"},
    "release": {"running": "pending"},
    "delete": {
        "succeeded": "not_found",
        "failed": "not_found",
        "scheduled": "not_found",
        "cancelled": "not_found",
    },
}
"""What each action makes of a job of each state; of others it makes nothing."""


async def post(world: World, **fields: Any) -> Any:
    return await world.page.post("/jobs/act", data=fields)


async def states(world: World, ids: dict[str, list[str]]) -> dict[str, JobStatus]:
    return {state: await world.client.status(ids[state][0]) for state in STATES}


@pytest.fixture
async def filled() -> Any:
    """A world of which nothing runs by itself, and its jobs by state."""
    async with world_of(":memory:") as world:
        ids = await world.fill()
        await world.client.pause("mail", wait=True)
        yield world, ids


@pytest.mark.parametrize("action", DONE)
async def test_each_action_from_each_state(filled: Any, action: str) -> None:
    world, ids = filled
    before = await states(world, ids)
    for state in STATES:
        fields = {"action": action, "id": ids[state][0], "wait": "5m", "back": "/jobs", "confirmed": "1"}
        answer = await post(world, **fields)
        assert answer.status_code == 303
        number = "1" if state in DONE[action] else "0"
        assert answer.headers["location"].endswith(f"&n={number}"), (state, answer.headers["location"])
        page = await world.page.see(answer.headers["location"])
        assert page.notice is not None
        assert page.notice.startswith("Done: " if number == "1" else "Nothing was "), page.notice
    after = await states(world, ids)
    if action in ("release", "cancel"):  # it is claimed again at once; it ends when it has heard of it
        assert after.pop("running") in (DONE[action]["running"], action + "led", "running")
    assert {state: str(status) for state, status in after.items()} == {
        state: DONE[action].get(state, str(before[state])) for state in after
    }


@pytest.mark.parametrize("action", ["retry", "run_now", "reschedule", "cancel"])
async def test_one_job_needs_no_confirmation(filled: Any, action: str) -> None:
    world, ids = filled
    state = "failed" if action == "retry" else "scheduled"
    answer = await post(world, action=action, id=ids[state][0], wait="5m")
    assert answer.status_code == 303


@pytest.mark.parametrize("action", ["delete", "release"])
async def test_what_cannot_be_undone_is_asked_for_first(filled: Any, action: str) -> None:
    world, ids = filled
    state = "failed" if action == "delete" else "running"
    job_id = ids[state][0]
    question = read(await post(world, action=action, id=job_id, back="/jobs?queue=mail"))
    assert "this job?" in question.find("h1").text
    assert question.has("p", cls="warning")
    assert await world.client.status(job_id) == state, "a question changes nothing"
    assert question.links["No, go back"] == "/jobs?queue=mail"
    form = question.form(action="/jobs/act")
    page = await world.page.do(form, form.buttons[0][0])
    assert page.notice == f"Done: {action}d."
    assert await world.client.status(job_id) != state or action == "release"


async def test_a_selection(filled: Any) -> None:
    """What is chosen by boxes is asked for, done, and counted; what has changed meanwhile is passed over."""
    world, ids = filled
    page = await world.page.see("/jobs")
    chosen = [*ids["failed"], *ids["cancelled"], ids["succeeded"][0]]
    boxes = [box["value"] for box in page.all("input", name="id")]
    assert set(chosen) <= set(boxes)
    question = read(await world.page.submit(page.form("Retry"), "Retry", id=chosen))
    assert question.find("h1").text == "Retry 4 jobs?"
    assert "passed over" in question.text
    assert [link["href"] for link in question.find("ul", cls="list").all("a")] == [
        f"/jobs/{one}" for one in chosen
    ]
    assert await world.client.status(chosen[0]) is JobStatus.FAILED
    done = await world.page.do(question.form("Retry 4 jobs"), "Retry 4 jobs")
    assert done.notice == "Done: 3 of 4 retried; the others were in no state for that."
    assert [await world.client.status(one) for one in chosen] == ["pending"] * 3 + ["succeeded"]


async def test_a_pending_job_that_is_chosen_to_retry_stays_as_it_is(filled: Any) -> None:
    """Its question says so: what is due in a month does not run now."""
    world, ids = filled
    [scheduled] = ids["scheduled"]
    before = await world.client.get(scheduled)
    answer = await post(world, action="retry", id=scheduled)
    assert answer.headers["location"].endswith("&n=0")
    question = read(await post(world, action="retry", id=[scheduled, ids["failed"][0]]))
    done = await world.page.do(question.form("Retry 2 jobs"), "Retry 2 jobs")
    assert done.notice == "Done: 1 of 2 retried; the others were in no state for that."
    assert await world.client.get(scheduled) == before


async def test_a_whole_page_of_jobs(database: str) -> None:
    async with world_of(database, page_size=40) as world:
        ids = await world.client.add(*[Mail(f"n{number}") for number in range(45)]).wait(60).save()
        page = await world.page.see("/jobs")
        boxes = [box["value"] for box in page.all("input", name="id")]
        assert len(boxes) == 40
        question = read(await world.page.submit(page.form("Cancel"), "Cancel", id=boxes))
        assert len(question.find("ul", cls="list").all("a")) == 5
        assert "and more" in question.text
        done = await world.page.do(question.form("Cancel 40 jobs"), "Cancel 40 jobs")
        assert done.notice == "Done: 40 cancelled."
        assert Counter([await world.client.status(one) for one in ids]) == {"cancelled": 40, "pending": 5}


async def test_everything_that_matches(filled: Any) -> None:
    """What is confirmed is what was asked: a time that is relative to now is that of the question."""
    world, ids = filled
    [other] = await world.client.add(Mail("other")).wait(60).save()
    page = await world.page.see("/jobs", queue="mail", state="pending", due_after="30m")
    assert "Everything that matches (1)" in page.text
    question = read(await world.page.submit(page.form("Cancel all"), "Cancel all"))
    assert question.find("h1").text == "Cancel 1 job?"
    assert "All pending jobs: queue mail, due after" in question.text
    assert await world.client.jobs.count(state="pending") == 2, "a question changes nothing"
    world.clock.advance(45 * 60)
    done = await world.page.do(question.form("Cancel 1 job"), "Cancel 1 job")
    assert done.notice == "Done: cancelled."
    assert await world.client.status(ids["scheduled"][0]) == "cancelled"
    assert await world.client.status(other) == "pending"


async def test_what_matches_later_is_left_alone(filled: Any) -> None:
    """No more is done than was asked for, however long the answer takes."""
    world, ids = filled
    jobs = world.client.jobs
    retry = read(await post(world, action="retry", all="1", state="failed"))
    assert "What ends from now on is left alone." in retry.text
    reschedule = read(await post(world, action="reschedule", all="1", wait="2h"))
    assert "What is added from now on is left alone." in reschedule.text
    release = read(await post(world, action="release", all="1"))
    assert "what waits now, and runs by then, is not." in release.text
    delete = read(await post(world, action="delete", all="1"))
    assert "What is added or ends from now on is left alone." in delete.text
    world.clock.advance(1)
    [added] = await world.client.add(Mail("later")).wait(60).save()
    await world.client.resume("mail")
    [failed] = await world.ran(Mail("trouble again"))
    await world.client.pause("mail", wait=True)
    done = await world.page.do(reschedule.form("Reschedule 1 job"), "Reschedule 1 job")
    assert done.notice == "Done: rescheduled."
    done = await world.page.do(retry.form("Retry 2 jobs"), "Retry 2 jobs")
    assert done.notice == "Done: 2 retried."
    done = await world.page.do(delete.form("Delete 7 jobs"), "Delete 7 jobs")
    assert done.notice == "Done: 7 deleted."
    assert {job.id for job in await jobs.list()} == {added, failed, *ids["running"]}


async def test_what_runs_when_it_is_asked_is_not_deleted_when_it_has_ended(filled: Any) -> None:
    """Nobody was asked about it, whatever else was chosen besides states."""
    world, ids = filled
    everything = read(await post(world, action="delete", all="1"))
    ended = read(await post(world, action="delete", all="1", finished_before="0s", queue="hold"))
    assert "nothing to do" in ended.text
    world.clock.advance(1)
    world.let_go()
    await world.client.wait(ids["running"][0])
    done = await world.page.do(everything.form("Delete 7 jobs"), "Delete 7 jobs")
    assert done.notice == "Done: 7 deleted."
    assert [job.id for job in await world.client.jobs.list()] == ids["running"]


async def test_what_has_ended_by_then_can_be_chosen_by_when_it_has(filled: Any) -> None:
    world, ids = filled
    question = read(await post(world, action="delete", all="1", finished_before="0s"))
    done = await world.page.do(question.form("Delete 6 jobs"), "Delete 6 jobs")
    assert done.notice == "Done: 6 deleted."
    left = {job.id for job in await world.client.jobs.list()}
    assert left == {*ids["scheduled"], *ids["running"]}


async def test_only_what_can_be_done_is_counted_and_done(filled: Any) -> None:
    world, ids = filled
    page = await world.page.see("/jobs")
    question = read(await world.page.submit(page.form("Delete all"), "Delete all"))
    assert question.find("h1").text == "Delete 7 jobs?"
    assert "All cancelled, failed, pending or succeeded jobs, of every queue." in question.text
    assert "cannot be undone" in question.text
    done = await world.page.do(question.form("Delete 7 jobs"), "Delete 7 jobs")
    assert done.notice == "Done: 7 deleted."
    assert [job.id for job in await world.client.jobs.list()] == ids["running"]
    again = read(await post(world, action="delete", all="1", queue="mail"))
    assert "nothing to do" in again.text
    assert [label for label, _ in again.form(action="/jobs/act").buttons] == []


async def test_everything_there_is(filled: Any) -> None:
    world, ids = filled
    page = await world.page.see("/jobs")
    question = read(await world.page.submit(page.form("Retry all"), "Retry all"))
    assert question.find("h1").text == "Retry 3 jobs?"
    assert "of every queue" in question.text
    done = await world.page.do(question.form("Retry 3 jobs"), "Retry 3 jobs")
    assert done.notice == "Done: 3 retried."
    assert await world.client.status(ids["scheduled"][0]) == "pending"
    assert await world.client.status(ids["succeeded"][0]) == "succeeded"


async def test_reschedule_by_a_wait_or_a_time(filled: Any) -> None:
    world, ids = filled
    job_id = ids["scheduled"][0]
    now = await world.client.get(job_id)
    await post(world, action="reschedule", id=job_id, wait="2040-01-02 03:04")
    job = await world.client.get(job_id)
    assert job.due_at.isoformat() == "2040-01-02T03:04:00+00:00"
    await post(world, action="reschedule", id=job_id, wait="1h 30m")
    job = await world.client.get(job_id)
    assert job.due_at - now.created_at >= timedelta(minutes=90)
    assert job.due_at.year < 2040
    for wait in ("", "soon", "-5m", "5", "9" * 9 + "w", "0001-01-01T00:00+23:00"):
        answer = await post(world, action="reschedule", id=job_id, wait=wait)
        assert answer.status_code == 400, wait
    assert (await world.client.get(job_id)).due_at == job.due_at
    two = read(await post(world, action="reschedule", id=[job_id, "other"], wait="5m"))
    assert "due 5 min after you say yes" in two.text
    done = await world.page.do(two.form("Reschedule 2 jobs"), "Reschedule 2 jobs")
    assert done.notice == "Done: 1 of 2 rescheduled; the others were in no state for that."


async def test_copy(filled: Any) -> None:
    world, ids = filled
    answer = await post(world, action="copy", id=ids["failed"][0])
    page = await world.page.see(answer.headers["location"])
    assert page.notice == "Done: copied."
    [copy] = await world.client.jobs.list(state="pending", text="trouble@example.org")
    assert copy.id in page.text
    assert (await post(world, action="copy", id="gone")).status_code == 404
    assert (await post(world, action="copy")).status_code == 400


async def test_steps_of_a_workflow_stay(filled: Any) -> None:
    world, _ = filled
    flow = chain(Mail("a"), Mail("b"))
    await world.client.add(flow).save()
    [first, second] = await world.client.jobs.list(workflow=flow.id)
    assert second.waiting
    asked = read(await post(world, action="delete", all="1"))
    assert asked.find("h1").text == "Delete up to 9 jobs?"
    assert "Steps of workflows are among those counted, and stay" in asked.text
    assert "up to" not in read(await post(world, action="cancel", all="1")).text
    answer = await post(world, action="delete", id=first.id, confirmed="1")
    assert answer.headers["location"].endswith("n=0")
    notice = (await world.page.see(answer.headers["location"])).notice
    assert notice is not None
    assert "steps of workflows go with their workflow" in notice


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"action": "explode", "id": "x"},
        {"action": "?", "id": "x"},
        {"action": "retry"},
        {"action": "retry", "id": ""},
        {"action": "retry", "id": "x" * 300, "confirmed": "1"},
        {"action": "retry", "id": "a\nb", "confirmed": "1"},
        {"action": "retry", "id": [str(number) for number in range(1001)]},
        {"action": "retry", "all": "1", "state": "succeeded", "confirmed": "1"},
        {"action": "retry", "all": "1", "state": "bogus", "confirmed": "1"},
        {"action": "retry", "all": "1", "due_after": "bogus", "confirmed": "1"},
        {"action": "delete", "all": "0", "confirmed": "1"},
        {"action": "delete", "all": "1", "queu": "zzz", "confirmed": "1"},
        {"action": "delete", "all": "1", "status": "failed", "confirmed": "1"},
        {"action": "delete", "all": "1", "id": "x", "confirmed": "1"},
        {"action": "reschedule", "id": "x", "wait": "-5m", "confirmed": "1"},
        {"action": "reschedule", "id": "x", "wait": "", "at": " ", "confirmed": "1"},
    ],
)
async def test_what_cannot_be_meant_does_nothing(fields: dict[str, Any]) -> None:
    async with world_of(":memory:") as world:
        ids = await world.fill()
        before = await states(world, ids)
        assert (await post(world, **fields)).status_code == 400
        assert await states(world, ids) == before


async def test_what_is_wrong_is_a_sentence(world: World) -> None:
    page = read(await post(world, action="retry"), status=400)
    assert page.find("h1").text.startswith("No job was chosen; ")
    page = read(await post(world, action="explode", id="x"), status=400)
    assert page.find("h1").text.startswith("action='explode' ")


async def test_unknown_jobs(filled: Any) -> None:
    world, _ = filled
    assert (await post(world, action="delete", id="gone")).status_code == 404
    answer = await post(world, action="retry", id="gone", back="/jobs")
    assert (await world.page.see(answer.headers["location"])).notice.startswith("Nothing was retried")


@pytest.mark.parametrize(
    "back",
    [
        "https://evil.example/",
        "//evil.example/",
        "/\\evil.example",
        "javascript:alert(1)",
        "/a\r\nX: y",
        "",
        "/jobs?text=%ff#x",
    ],
)
async def test_nobody_is_sent_elsewhere(filled: Any, back: str) -> None:
    world, ids = filled
    answer = await post(world, action="retry", id=ids["failed"][0], back=back)
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/?done=retried")
    question = read(await post(world, action="delete", id=ids["failed"][1], back=back))
    assert question.links["No, go back"] == "/"


async def test_get_changes_nothing(filled: Any) -> None:
    world, ids = filled
    before = await states(world, ids)
    job_id = ids["failed"][0]
    for path in (
        f"/jobs/act?action=delete&id={job_id}&confirmed=1",
        f"/jobs/{job_id}?action=delete&confirmed=1",
    ):
        await world.page.get(path)
    assert await states(world, ids) == before


@pytest.mark.parametrize("options", [{"read_only": True}, {"auth": allow_all(Access(write=False))}])
async def test_who_may_only_read(options: dict[str, Any]) -> None:
    async with world_of(":memory:", **options) as world:
        ids = await world.fill()
        before = await states(world, ids)
        for action in (*DONE, "copy"):
            for job_id in (ids["failed"][0], ids["scheduled"][0]):
                answer = await post(world, action=action, id=job_id, wait="5m", confirmed="1")
                assert answer.status_code == 403
        assert (await post(world, action="delete", all="1", confirmed="1")).status_code == 403
        assert await states(world, ids) == before
        assert await world.client.jobs.count() == 8


async def test_another_site(filled: Any) -> None:
    world, ids = filled
    answer = await world.page.post(
        "/jobs/act",
        data={"action": "retry", "id": ids["failed"][0]},
        headers={"Sec-Fetch-Site": "cross-site"},
    )
    assert answer.status_code == 403
    assert await world.client.status(ids["failed"][0]) == "failed"


async def test_without_payloads_no_text_decides_what_is_done() -> None:
    async with world_of(":memory:", auth=allow_all(Access(payloads=False))) as world:
        ids = await world.fill()
        for text in ("trouble", "nobody"):
            answer = await post(world, action="delete", all="1", text=text, confirmed="1")
            assert answer.status_code == 400
            assert "may not see" in answer.text
        assert await world.client.status(ids["failed"][0]) == "failed"


async def test_who_did_what_is_logged_before_it_is_done(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with world_of(":memory:", auth=basic("ann", "word")) as world:
        world.page.auth = ("ann", "word")
        ids = await world.fill()
        caplog.clear()
        await post(world, action="delete", id=ids["failed"])
        assert "page.action" not in caplog.text, "a question is no action"
        await post(world, action="delete", id=ids["failed"], confirmed="1")
        await post(world, action="delete", all="1", queue="mail", state="cancelled", confirmed="1")
        await post(world, action="reschedule", id=ids["scheduled"], wait="5m")
        await post(world, action="copy", id=ids["succeeded"][0])
        said = [record.getMessage() for record in caplog.records if "page.action" in record.getMessage()]
        events = [record.getMessage().split()[0] for record in caplog.records]
    assert len(said) == 4
    assert all("user=ann" in line and "sender=127.0.0.1" in line for line in said)
    assert all(job_id in said[0] for job_id in ids["failed"])
    assert "count=2" in said[0]
    assert "mail" in said[1]
    assert "cancelled" in said[1]
    assert "0:05:00" in said[2]
    assert "JobStatus" not in "".join(said)
    assert events.index("page.action") < events.index("jobs.changed")


async def test_a_million_is_counted_to_ten_thousand(filled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from backlite_async.web._pages import _actions

    world, _ = filled
    monkeypatch.setattr(_actions, "COUNTED", 2)
    question = read(await post(world, action="delete", all="1"))
    assert question.find("h1").text == "Delete 2+ jobs?"
    done = await world.page.do(question.form(action="/jobs/act"), "Delete 2+ jobs")
    assert done.notice == "Done: 7 deleted."


async def test_release_lets_another_take_over(world: World, client: Client) -> None:
    job_id = await world.running(3)
    job = await client.get(job_id)
    assert job is not None
    await post(world, action="release", id=job_id, confirmed="1")
    with anyio.fail_after(10):
        while (again := await client.get(job_id)) is None or again.fence == job.fence:
            await anyio.lowlevel.checkpoint()
    assert again.attempt <= job.attempt
