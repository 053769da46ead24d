"""Another payload for a pending job: checked, without showing or losing what is hidden."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any, ClassVar, Literal
from urllib.parse import urlencode

import msgspec
import pytest

from backlite_async import Client, PayloadError, QueueConfig, Retention, Task
from backlite_async._build import built
from backlite_async._task import task_type
from backlite_async.web import Access, allow_all
from backlite_async.web._pages._edit import _told, _unseen
from backlite_async.web._redact import MASK

from .support import Document, Mail, World, read, world_of


class Charge(Task):
    """Charge somebody."""

    config: ClassVar[QueueConfig] = QueueConfig("charges", retention=Retention(payload="always"))
    amount: int
    card_number: str = "4111"
    inner: list[dict[str, Any]] = []


SECRET = 'hunter\'s "own" two'


class Strict(Task):
    config: ClassVar[QueueConfig] = QueueConfig("strict")
    says: ClassVar[str] = ""
    amount: int
    card_number: str

    def __post_init__(self) -> None:
        said = f"not {self.amount} from "
        if self.amount >= 0:
            return
        match self.says:
            case "plain":
                raise ValueError(said + self.card_number)
            case "quoted":
                raise TypeError(f"{said}{self.card_number!r}")
            case "part":
                raise ValueError(said + self.card_number[:6])
            case "small":
                raise RuntimeError(said + self.card_number.upper())
            case "msgspec":
                raise msgspec.ValidationError(said + self.card_number[:6])
        raise KeyError(self.card_number[:6])


class Open(Task):
    config: ClassVar[QueueConfig] = QueueConfig("open")
    amount: int

    def __post_init__(self) -> None:
        if self.amount < 0:
            raise ValueError(f"not {self.amount}")


class Narrow(Task):
    config: ClassVar[QueueConfig] = QueueConfig("narrow")
    card_kind: Literal["old", "new"]


class Pair(Task, array_like=True):
    config: ClassVar[QueueConfig] = QueueConfig("pairs")
    one: int
    two: int


@pytest.fixture
async def job_id(world: World, client: Client) -> str:
    """A pending job with a secret."""
    client.register(Charge, nothing)
    task = Charge(5, "4111 2222", [{"token": "t1", "n": 1}, {"token": "t2", "n": 2}])
    [job_id] = await client.add(task).wait(3600).save()
    return job_id


async def nothing(task: Task) -> None: ...


async def payload(client: Client, job_id: str) -> dict[str, Any]:
    job = await client.get(job_id)
    assert job is not None
    assert job.payload is not None
    found: dict[str, Any] = json.loads(job.payload)
    return found


async def editing(world: World, job_id: str) -> tuple[Document, dict[str, Any]]:
    """Return the page with the form, and what is in it."""
    page = await world.page.see(f"/jobs/{job_id}/edit")
    shown: dict[str, Any] = json.loads(page.form("Save")["payload"])
    return page, shown


async def test_hidden_values_stay_what_they_are(world: World, client: Client, job_id: str) -> None:
    page = await world.page.see(f"/jobs/{job_id}")
    page, shown = await editing(world, page.links["Edit"].split("/")[2])
    assert shown == {
        "amount": 5,
        "card_number": "•••",
        "inner": [{"token": "•••", "n": 1}, {"token": "•••", "n": 2}],
    }
    shown["amount"] = 6
    shown["inner"][1]["n"] = 3
    done = await world.page.do(page.form("Save"), "Save", payload=json.dumps(shown))
    assert done.notice == "Done: edited."
    assert done.find("h1").text == "Charge"
    assert await payload(client, job_id) == {
        "amount": 6,
        "card_number": "4111 2222",
        "inner": [{"token": "t1", "n": 1}, {"token": "t2", "n": 3}],
    }


async def test_a_hidden_value_can_be_replaced_but_not_moved(
    world: World, client: Client, job_id: str
) -> None:
    page, shown = await editing(world, job_id)
    moved = shown | {"inner": [shown["inner"][1]]}
    answer = await world.page.submit(page.form("Save"), "Save", payload=json.dumps(moved))
    assert "stands for what is hidden" in read(answer, status=400).find(id="wrong").text
    done = await world.page.do(page.form("Save"), "Save", payload=json.dumps(shown | {"card_number": "new"}))
    assert done.notice == "Done: edited."
    assert (await payload(client, job_id))["card_number"] == "new"


async def test_a_text_with_a_hidden_part_stays_or_is_written_anew(world: World, client: Client) -> None:
    [job_id] = await client.add(Mail("https://ann:hunter2@host/", "a")).wait(60).save()
    page, shown = await editing(world, job_id)
    assert shown == {"to": "https://•••@host/", "subject": "a"}
    other = {"to": "https://•••@other/", "subject": "b"}
    answer = await world.page.submit(page.form("Save"), "Save", payload=json.dumps(other))
    assert "stands for what is hidden" in read(answer, status=400).find(id="wrong").text
    await world.page.do(page.form("Save"), "Save", payload=json.dumps(shown | {"subject": "b"}))
    assert await payload(client, job_id) == {"to": "https://ann:hunter2@host/", "subject": "b"}


@pytest.mark.parametrize(
    ("typed", "word"),
    [
        ("{", "no JSON"),
        ("", "no JSON"),
        ("[1]", "JSON object"),
        ('"text"', "JSON object"),
        ("[" * 100_000, "no JSON"),
        ("9" * 5000, "no JSON"),
        ('{"amount": "five"}', "$.amount"),
        ('{"amount": 1e400}', "$.amount"),
        ('{"amount": 1, "colour": "red"}', "colour"),
        ("{}", "amount"),
        ('{"amount": 1, "card_number": "' + "x" * 2_000_000 + '"}', "1,048,576"),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_told_beside_what_was_typed(typed: str, word: str) -> None:
    async with world_of(":memory:") as world:
        world.client.register(Charge, nothing)
        [job_id] = await world.client.add(Charge(5)).wait(3600).save()
        page = await world.page.see(f"/jobs/{job_id}/edit")
        answer = read(await world.page.submit(page.form("Save"), "Save", payload=typed), status=400)
        assert word in answer.find(id="wrong").text
        assert answer.form("Save")["payload"] == typed
        assert answer.find("textarea")["aria-describedby"] == "wrong hint"
        assert await payload(world.client, job_id) == {"amount": 5, "card_number": "4111", "inner": []}
        done = await world.page.do(answer.form("Save"), "Save", payload='{"amount": 7}')
        assert done.notice == "Done: edited."


@pytest.mark.parametrize("how", ["plain", "quoted", "part", "small", "msgspec", "key"])
async def test_what_is_wrong_is_told_without_what_is_hidden(world: World, client: Client, how: str) -> None:
    """What the type's own code says of a hidden value, or a part of it, in whatever form, is not told."""
    client.register(Strict, nothing)
    [job_id] = await client.add(Strict(5, SECRET)).wait(60).save()
    page, shown = await editing(world, job_id)
    Strict.says = how
    answer = await world.page.submit(page.form("Save"), "Save", payload=json.dumps(shown | {"amount": -1}))
    told = read(answer, status=400).find(id="wrong").text
    assert "The task type refuses these values" in told
    assert "Error)" in told
    for part in ("hunter", "HUNTER", "-1 from"):
        assert part not in answer.text


def test_what_is_wrong_with_a_type_is_told_without_what_is_hidden() -> None:
    """An error of a field's type may quote its value; all else that it says is of use."""
    with pytest.raises(PayloadError) as caught:
        built(task_type(Narrow), {"card_kind": SECRET}, text=False)
    assert "hunter" in caught.value.reason
    told = _told(caught.value, [SECRET])
    assert told.startswith("Invalid enum value '\u2022\u2022\u2022' - at `$.card_kind`; it must be one of")
    assert "hunter" not in told


@pytest.mark.parametrize(
    ("seen", "original", "unseen"),
    [
        ({"a": 1, "b": "text"}, {"a": 1, "b": "text"}, []),
        ({"a": MASK}, {"a": "hidden"}, ["hidden"]),
        ({"a": MASK}, {"a": {"name": 12345, "id": 1}}, ["name", "12345"]),  # what is short is in many words
        ({"a": [MASK, "seen"]}, {"a": ["hidden", "seen"]}, ["hidden"]),
        ({"a": MASK}, {"a": ["one", ["two"]]}, ["one", "two"]),
        ({"a": ["one"]}, {"a": ["one", "two"]}, ["one", "two"]),
        ({}, {"gone": "hidden"}, ["hidden"]),
    ],
)
def test_what_is_not_shown_is_known(seen: Any, original: Any, unseen: list[str]) -> None:
    """Values that differ from what is shown of them, and names in what is hidden whole."""
    assert list(_unseen(seen, original)) == unseen


async def test_what_a_type_says_is_told_where_nothing_is_hidden(world: World, client: Client) -> None:
    client.register(Open, nothing)
    [job_id] = await client.add(Open(5)).wait(60).save()
    page, _ = await editing(world, job_id)
    answer = await world.page.submit(page.form("Save"), "Save", payload='{"amount": -1}')
    assert "Not -1" in read(answer, status=400).find(id="wrong").text


async def test_who_comes_too_late_is_told(world: World, client: Client, job_id: str) -> None:
    page, shown = await editing(world, job_id)
    await client.cancel(job_id)
    answer = read(await world.page.submit(page.form("Save"), "Save"), status=409)
    assert "It is cancelled now, and only a pending job can be edited." in answer.find(id="wrong").text
    assert json.loads(answer.form("Save")["payload"]) == shown
    assert "cancelled now" in read(await world.page.get(f"/jobs/{job_id}/edit"), status=409).main.text


async def test_who_loses_the_race_is_told(
    world: World, client: Client, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins to run after the page has looked, and before the payload is written."""
    page, _ = await editing(world, job_id)
    build = client.tasks.build

    async def slow(*args: Any, **options: Any) -> Any:
        task = await build(*args, **options)
        await client.cancel(job_id)
        return task

    monkeypatch.setattr(client.tasks, "build", slow)
    answer = read(await world.page.submit(page.form("Save"), "Save"), status=409)
    assert "Nothing was changed" in answer.find(id="wrong").text


async def test_two_who_edit_at_once(world: World, client: Client, job_id: str) -> None:
    mine, shown = await editing(world, job_id)
    theirs, _ = await editing(world, job_id)
    await world.page.do(theirs.form("Save"), "Save", payload=json.dumps(shown | {"amount": 8}))
    typed = json.dumps(shown | {"amount": 9})
    answer = read(await world.page.submit(mine.form("Save"), "Save", payload=typed), status=409)
    assert "Somebody has changed it" in answer.find(id="wrong").text
    assert (await payload(client, job_id))["amount"] == 8
    await world.page.do(answer.form("Save"), "Save")
    assert (await payload(client, job_id)) == {
        "amount": 9,
        "card_number": "4111 2222",
        "inner": [{"token": "t1", "n": 1}, {"token": "t2", "n": 2}],
    }


async def test_what_cannot_be_edited_here(world: World, client: Client) -> None:
    client.register(Pair, nothing)
    [array] = await client.add(Pair(1, 2)).wait(60).save()
    [large] = await client.add(Mail("x" * 300_000)).wait(60).save()
    for job_id, word in ((array, "no JSON object"), (large, "too large")):
        page = read(await world.page.get(f"/jobs/{job_id}/edit"), status=409)
        assert word in page.main.text
        assert not page.all("textarea")
    assert (await world.page.get("/jobs/gone/edit")).status_code == 404


@pytest.mark.parametrize("shown", ["a text", [1, 2], {1, 2}], ids=["text", "list", "no JSON"])
async def test_what_redact_makes_no_object_of_cannot_be_edited_here(shown: Any) -> None:
    async with world_of(":memory:", redact=lambda task, value: shown) as world:
        [job_id] = await world.client.add(Mail("ann")).wait(60).save()
        page = read(await world.page.get(f"/jobs/{job_id}/edit"), status=409)
        assert "It cannot be edited here" in page.main.text
        assert not page.all("textarea")


async def test_what_redact_changes_stays_what_it_is(database: str) -> None:
    def redact(task: str, value: Any) -> Any:
        return {"to": value["to"][:1] + "...", "subject": value["subject"]} if "to" in value else value

    async with world_of(database, redact=redact) as world:
        [job_id] = await world.client.add(Mail("ann@example.org")).wait(60).save()
        page, shown = await editing(world, job_id)
        assert shown == {"to": "a...", "subject": "hello"}
        await world.page.do(page.form("Save"), "Save", payload=json.dumps(shown | {"subject": "bye"}))
        assert await payload(world.client, job_id) == {"to": "ann@example.org", "subject": "bye"}


@pytest.mark.parametrize(
    "options",
    [
        {"read_only": True},
        {"auth": allow_all(Access(write=False))},
        {"auth": allow_all(Access(payloads=False))},
    ],
)
async def test_who_may_not(options: dict[str, Any]) -> None:
    async with world_of(":memory:", **options) as world:
        [job_id] = await world.client.add(Mail("ann")).wait(60).save()
        assert (await world.page.get(f"/jobs/{job_id}/edit")).status_code == 403
        data = {"payload": '{"to": "eve"}', "was": ""}
        assert (await world.page.post(f"/jobs/{job_id}/edit", data=data)).status_code == 403
        assert (await payload(world.client, job_id))["to"] == "ann"


async def test_what_was_typed_is_inert(world: World, job_id: str) -> None:
    page, _ = await editing(world, job_id)
    evil = '</textarea><script>alert(1)</script>"'
    answer = await world.page.submit(page.form("Save"), "Save", payload=evil)
    assert "<script>alert" not in answer.text
    assert Document(answer.text).form("Save")["payload"] == evil


async def test_an_edit_is_logged(world: World, job_id: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    page, _ = await editing(world, job_id)
    await world.page.submit(page.form("Save"), "Save", payload="{")
    assert "page.action" not in caplog.text
    await world.page.do(page.form("Save"), "Save")
    [line] = [record.getMessage() for record in caplog.records if "page.action" in record.getMessage()]
    assert "action=edit" in line
    assert job_id in line
    assert "4111" not in caplog.text


class Request(Task):
    """Ask a server."""

    config: ClassVar[QueueConfig] = QueueConfig("requests")
    headers: list[Any] = []
    arguments: list[str] = []
    accounts: list[dict[str, Any]] = []
    note: str = ""


@pytest.fixture
async def request_id(world: World, client: Client) -> str:
    """A pending job with secrets that are known by names beside them."""
    client.register(Request, nothing)
    task = Request(
        [{"name": "Authorization", "value": "hunter2"}, ["Cookie", "hunter2"]],
        ["--password", "hunter2"],
        [{"user": "ann", "token": "of ann"}, {"user": "bob", "token": "of bob"}],
    )
    [job_id] = await client.add(task).wait(3600).save()
    return job_id


@pytest.mark.parametrize(
    "changed",
    [
        {"headers": [{"name": "Colour", "value": "•••"}, ["Cookie", "•••"]]},
        {"headers": [{"value": "•••"}, ["Cookie", "•••"]]},
        {"headers": [{"name": "Authorization", "value": "•••"}, ["Colour", "•••"]]},
        {"arguments": ["--verbose", "•••"]},
    ],
)
async def test_what_is_hidden_by_a_name_beside_it_is_not_shown_under_another(
    world: World, client: Client, request_id: str, changed: dict[str, Any]
) -> None:
    before = await payload(client, request_id)
    page, shown = await editing(world, request_id)
    answer = await world.page.submit(page.form("Save"), "Save", payload=json.dumps(shown | changed))
    assert "This would show what is hidden" in read(answer, status=400).find(id="wrong").text
    assert "hunter2" not in answer.text
    assert await payload(client, request_id) == before


async def test_what_is_hidden_may_be_replaced_together_with_its_name(
    world: World, client: Client, request_id: str
) -> None:
    page, shown = await editing(world, request_id)
    shown["headers"][0] = {"name": "Colour", "value": "red"}
    shown["note"] = "what else there is stays"
    await world.page.do(page.form("Save"), "Save", payload=json.dumps(shown))
    put = await payload(client, request_id)
    assert put["headers"] == [{"name": "Colour", "value": "red"}, ["Cookie", "hunter2"]]
    assert put["arguments"] == ["--password", "hunter2"]


async def test_what_is_moved_in_a_list_does_not_get_what_is_hidden_there(
    world: World, client: Client, request_id: str
) -> None:
    before = await payload(client, request_id)
    page, shown = await editing(world, request_id)
    shown["accounts"].reverse()
    answer = await world.page.submit(page.form("Save"), "Save", payload=json.dumps(shown))
    assert "stands for what is hidden" in read(answer, status=400).find(id="wrong").text
    assert await payload(client, request_id) == before


async def test_what_redact_shows_by_another_value_stays_hidden(database: str) -> None:
    def redact(task: str, value: Any) -> Any:
        if not value["note"].startswith("private"):
            return value
        return {name: one for name, one in value.items() if name != "headers"} | {"arguments": "hidden"}

    async with world_of(database, redact=redact) as world:
        world.client.register(Request, nothing)
        task = Request(["hunter2"], ["hunter2"], note="private")
        [job_id] = await world.client.add(task).wait(3600).save()
        page, shown = await editing(world, job_id)
        public = json.dumps(shown | {"note": "public"})
        answer = await world.page.submit(page.form("Save"), "Save", payload=public)
        assert "This would show what is hidden" in read(answer, status=400).find(id="wrong").text
        private = json.dumps(shown | {"note": "private too"})
        await world.page.do(page.form("Save"), "Save", payload=private)
        assert await payload(world.client, job_id) == {
            "headers": ["hunter2"],
            "arguments": ["hunter2"],
            "accounts": [],
            "note": "private too",
        }


async def test_who_sends_slowly_does_not_undo_what_others_save_meanwhile(
    world: World, client: Client, job_id: str
) -> None:
    page, shown = await editing(world, job_id)
    form = page.form("Save")

    async def body() -> AsyncIterator[bytes]:
        await client.jobs.edit(job_id, Charge(7, "new"))
        yield urlencode({"was": form["was"], "payload": json.dumps(shown)}).encode()

    headers = {"Sec-Fetch-Site": "same-origin", "Content-Type": "application/x-www-form-urlencoded"}
    answer = await world.page.post(form.action, content=body(), headers=headers)
    assert "Somebody has changed it since" in read(answer, status=409).find(id="wrong").text
    assert (await payload(client, job_id))["card_number"] == "new"
