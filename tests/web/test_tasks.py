"""Task types on the page, and adding jobs by a form made from their fields."""

from __future__ import annotations

import enum
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, ClassVar, Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backlite_async import Client, QueueConfig, Retention, Task

from .support import Browser, Document, World, world_of

# isort: split
from backlite_async.web import Access, allow_all
from backlite_async.web._fields import fields_of, kept, place_of, values_of


class Colour(enum.Enum):
    """A colour."""

    RED = "red"
    BLUE = "blue"


class Size(msgspec.Struct):
    """A size."""

    width: int
    height: int


class Every(Task, kw_only=True):
    """Have a field of each kind.

    And say so in <em>several</em> lines.
    """

    config: ClassVar[QueueConfig] = QueueConfig("every & all", retention=Retention(payload="always"))
    text: Annotated[str, msgspec.Meta(min_length=1, max_length=50, description="Some text.")]
    count: Annotated[int, msgspec.Meta(ge=1, lt=100)]
    size: Size
    moment: Annotated[datetime, msgspec.Meta(tz=True)]
    maybe: int | None
    local: Annotated[datetime, msgspec.Meta(tz=False)] | None = None
    some: datetime = datetime(2026, 3, 1, 14, 5)
    ratio: float = 0.5
    sure: bool = True
    unsure: bool | None = None
    colour: Colour = Colour.RED
    mode: Literal["fit", "fill"] | None = None
    day: date = date(2026, 3, 1)
    long: Annotated[str, msgspec.Meta(max_length=5000)] = "a\nb"
    tags: list[str] = []
    table: dict[str, int] = {}
    either: int | str = 3
    anything: Any = None
    made: list[int] = msgspec.field(default_factory=lambda: [1, 2])


class Login(Task):
    """Log in."""

    config: ClassVar[QueueConfig] = QueueConfig("login", retention=Retention(payload="always"))
    name: str = "ann"
    password: str = "hunter2"
    pin: int = 7777
    where: str = "https://ann:hunter2@host/"
    with_password: bool = True
    hurry: bool = False


GOOD = {
    "f.text": "<hello>",
    "f.count": "7",
    "f.size": '{"width": 3, "height": 4}',
    "f.moment": "2026-05-06T07:08",
    "f.maybe": "",
}

NEW = "/tasks/~ZXZlcnkgJiBhbGw/Every/new"


@pytest.fixture
def every(world: World) -> Client:
    """The client, with the task type registered and paused, so that jobs stay."""
    world.client.register(Every, _run)
    return world.client


async def _log_in(task: Login) -> None: ...


async def _run(task: Every) -> None:
    return None


async def test_a_secret_default_is_not_shown_but_taken(world: World, page: Browser) -> None:
    world.client.register(Login, _log_in)
    await world.client.pause("login")
    seen = await page.see("/tasks/login/Login/new")
    assert "hunter2" not in seen.text
    form = seen.form("Add the job")
    names = ("name", "password", "pin", "where", "with_password")
    assert [form[f"f.{name}"] for name in names] == ["ann", "", "", "", "true"]
    assert seen.text.count("its default, which is hidden") == 3
    for typed, expected in (({}, Login()), ({"f.pin": "1", "f.where": "x"}, Login(pin=1, where="x"))):
        await page.do(form, "Add the job", **typed)
        [*_, job] = await world.client.jobs.list(queue="login")
        assert msgspec.json.decode(job.payload or b"", type=Login) == expected


async def test_a_default_that_redact_hides_is_not_shown() -> None:
    def redact(task: str, value: Any) -> Any:
        return {**value, "name": "?"}

    def fail(task: str, value: Any) -> Any:
        raise KeyError("name")

    for function, hidden in ((redact, 4), (fail, 5)):
        async with world_of(":memory:", redact=function) as world:
            world.client.register(Login, _log_in)
            seen = await world.page.see("/tasks/login/Login/new")
            assert '"ann"' not in (await world.page.get("/tasks/login/Login/new")).text
            assert seen.text.count("its default, which is hidden") >= hidden


async def test_the_list_has_each_type_with_its_fields(every: Client, page: Browser) -> None:
    seen = await page.see("/tasks")
    [panel] = [part for part in seen.main.all("section") if part.find("h2").text == "every & all"]
    assert panel.find("summary").text == "Have a field of each kind."
    assert "And say so in <em>several</em> lines." in panel.text
    fields = [item.text for item in panel.find("ul", cls="args").all("li")]
    assert fields[:5] == [
        "text text *",
        "count whole number *",
        "size object *",
        "moment date and time *",
        "maybe whole number or null",
    ]
    assert panel.links["Add a job of Every"] == NEW
    titles = [part.find("h2").text for part in seen.main.all("section")]
    assert titles == sorted(titles)


async def test_the_form_has_an_input_for_each_field(every: Client, page: Browser) -> None:
    form = (await page.see(NEW)).main.form("Add the job")
    inputs = {
        field.get("name"): field
        for field in form.element.walk()
        if field.get("name") and field.get("type") != "hidden"
    }
    kinds = {
        name: field.tag if field.tag != "input" else field["type"] for name, field in inputs.items() if name
    }
    assert {name: kind for name, kind in kinds.items() if name.startswith("f.")} == {
        "f.text": "text", "f.count": "number", "f.size": "textarea", "f.moment": "datetime-local",
        "f.maybe": "number", "f.local": "datetime-local", "f.some": "text", "f.ratio": "number",
        "f.sure": "checkbox", "f.unsure": "select", "f.colour": "select", "f.mode": "select",
        "f.day": "date", "f.long": "textarea", "f.tags": "textarea", "f.table": "textarea",
        "f.either": "text", "f.anything": "textarea", "f.made": "textarea",
    }  # fmt: skip
    required = {name for name, field in inputs.items() if "required" in field.attributes}
    assert required == {"f.text", "f.count", "f.size", "f.moment"}
    assert (inputs["f.count"]["min"], inputs["f.count"]["max"], inputs["f.count"]["step"]) == ("1", "99", "1")
    assert inputs["f.text"]["maxlength"] == "50"
    assert "checked" in inputs["f.sure"].attributes
    assert [one.get("value") for one in inputs["f.mode"].all("option")] == ["", "fill", "fit"]
    fields = dict(form.fields)
    assert (fields["f.ratio"], fields["f.colour"], fields["f.day"]) == ("0.5", "red", "2026-03-01")
    assert fields["f.long"] == "a\nb"
    assert [value for name, value in form.fields if name == "f.sure"] == ["false", "true"]  # the last counts
    assert "Some text." in form.element.text
    labels = {label.get("for") for label in form.element.all("label")}
    assert {field.get("id") for name, field in inputs.items() if name and name.startswith("f.")} <= labels


async def added(client: Client, page: Browser, answer: Any) -> Any:
    """Return the job that was added, and its task."""
    assert answer.status_code == 303, answer.text
    assert (answer.headers["location"]).endswith("?done=added&n=1")
    job_id = answer.headers["location"].partition("?")[0].rpartition("/")[2]
    job = await client.jobs.get(job_id)
    assert job is not None
    assert job.payload is not None
    return job, msgspec.json.decode(job.payload, type=Every)


async def test_a_job_is_added_as_it_was_typed(every: Client, page: Browser) -> None:
    form = (await page.see(NEW)).main.form("Add the job")
    answer = await page.submit(
        form, "Add the job", **GOOD, **{"o.wait": "1 h", "f.unsure": "false", "f.local": "2026-01-02T03:04"}
    )
    _, task = await added(every, page, answer)
    assert task == Every(
        text="<hello>", count=7, size=Size(3, 4), moment=datetime(2026, 5, 6, 7, 8, tzinfo=UTC), maybe=None,
        unsure=False, local=datetime(2026, 1, 2, 3, 4),
    )  # fmt: skip


async def test_what_is_not_checked_is_false(every: Client, page: Browser) -> None:
    form = (await page.see(NEW)).main.form("Add the job")
    answer = await page.submit(
        form, None, **GOOD, **{"f.sure": "false", "o.wait": "1 h", "f.tags": '["q"]', "f.long": ""}
    )
    _, task = await added(every, page, answer)
    assert (task.sure, task.tags, task.long, task.made) == (False, ["q"], "", [1, 2])


async def test_lines_end_as_they_do_in_python(every: Client, page: Browser) -> None:
    """Browsers send CR and LF; what was not touched is left to be the default."""
    form = (await page.see(NEW)).main.form("Add the job")
    more = {"f.long": "a\r\n\r\nc", "f.tags": "[\r\n]", "o.wait": "9"}
    _, task = await added(every, page, await page.submit(form, None, **GOOD, **more))
    assert task.long == "a\n\nc"
    assert values_of(fields_of(schema(Every)), {"long": "a\r\nb", "tags": "[]"}) == {}


async def test_options_hold(every: Client, page: Browser, world: World) -> None:
    form = (await page.see(NEW)).main.form("Add the job")
    more = {
        "o.at": "2030-01-02T03:04",
        "o.priority": "-3",
        "o.max_attempts": "9",
        "o.key": "ann",
        "o.tags": "a, b,,c d",
    }
    job, _ = await added(every, page, await page.submit(form, None, **GOOD, **more))
    assert job.due_at == datetime(2030, 1, 2, 3, 4, tzinfo=UTC)
    assert (job.priority, job.max_attempts, job.key, sorted(job.tags)) == (-3, 9, "ann", ["a", "b", "c d"])
    job, _ = await added(every, page, await page.submit(form, None, **GOOD, **{"o.wait": "2.5 min"}))
    assert job.due_at - job.created_at == pytest.approx(timedelta(seconds=150), abs=timedelta(seconds=0.01))


async def test_unique_jobs_are_added_once(every: Client, page: Browser) -> None:
    form = (await page.see(NEW)).main.form("Add the job")
    first, _ = await added(
        every, page, await page.submit(form, None, **GOOD, **{"o.unique": "1", "o.wait": "99"})
    )
    answer = await page.submit(form, None, **GOOD, **{"o.unique": "1", "o.wait": "99"})
    assert answer.status_code == 400
    seen = Document(answer.text)
    assert "There is such a job already" in seen.text
    assert seen.links["Look at it"] == f"/jobs/{first.id}"
    assert await every.jobs.count(queue="every & all") == 1
    await added(
        every, page, await page.submit(form, None, **GOOD, **{"o.unique_key": "other", "o.wait": "99"})
    )


@pytest.mark.parametrize(
    ("name", "typed", "said"),
    [
        ("f.count", "100", "Expected `int` <= 99"),
        ("f.count", "much", "Expected `int`"),
        ("f.text", "", "length"),
        ("f.size", "{", "no JSON"),
        ("f.size", '{"width": "x", "height": 1}', "Expected `int`"),
        ("f.moment", "yesterday", "RFC3339"),
        ("f.mode", "other", "Invalid enum value"),
        ("o.wait", "soon", "no duration"),
        ("o.wait", "-5", "no duration"),
        ("o.at", "soon", "no instant"),
        ("o.priority", "11", "priority"),
        ("o.priority", "x", "whole number"),
        ("o.max_attempts", "0", "max_attempts"),
        ("o.key", "x" * 201, "200"),
        ("o.tags", "x" * 300, "100"),
        ("o.unique_key", "x" * 300, "200"),
    ],
)
async def test_what_is_wrong_is_said_beside_it(
    every: Client, page: Browser, name: str, typed: str, said: str
) -> None:
    form = (await page.see(NEW)).main.form("Add the job")
    kept_text = {"f.long": "kept <as> it is", "o.tags": "q"}
    answer = await page.submit(form, None, **{**GOOD, **kept_text, name: typed})
    assert answer.status_code == 400
    seen = Document(answer.text)
    wrong = seen.find(id="wrong")
    assert wrong.parent is not None
    assert said in wrong.text
    place = wrong
    while place.parent is not None and not [one for one in place.walk() if one.get("name")]:
        place = place.parent
    [field] = [one for one in place.walk() if one.get("name")]
    assert field["name"] == name
    assert field["aria-invalid"] == "true"
    fields = dict(seen.main.form("Add the job").fields)
    assert fields["f.long"] == "kept <as> it is"
    assert fields[name] == typed
    assert await every.jobs.count(queue="every & all") == 0


ABSURD = (
    "", "0", "-1", "9" * 400, "9" * 5_000, "1e999", "NaN", "[NaN]", "0x10", "\u0663", "\x00",
    '"\\ud800"', "null", "[" * 900 + "]" * 900, "[" * 5_000, '{"a":' * 400 + "1" + "}" * 400,
    "9999-12-31T23:59:59", "0001-01-01", "2026-13-45T99:99", "PT9999999999999999S", "true", "{}",
    "[[]]", '{"$ref": 1}', "x" * 10_000,
)  # fmt: skip


KINDS = (
    "f.text f.count f.size f.moment f.maybe f.unsure f.day f.either f.anything f.made"
    " o.wait o.at o.priority o.tags o.unique_key"
).split()
"""An input of each kind."""


async def test_absurd_values_are_refused_or_kept() -> None:
    """In each field, and in each option: no page fails, and what is added can be read."""
    async with world_of(":memory:") as world:
        world.client.register(Every, _run)
        await world.client.pause("every & all")
        form = (await world.page.see(NEW)).main.form("Add the job")
        for name in KINDS:
            for value in ABSURD:
                data = {**dict(form.fields), **GOOD, name: value}
                answer = await world.page.post(NEW, data=data, headers={"Sec-Fetch-Site": "same-origin"})
                assert answer.status_code in (303, 400), (name, value[:50], answer.status_code)
        for job in await world.client.jobs.list(queue="every & all", limit=1000):
            assert msgspec.json.decode(job.payload or b"", type=Every).text


async def test_wait_and_at_are_one_too_many(every: Client, page: Browser) -> None:
    form = (await page.see(NEW)).main.form("Add the job")
    answer = await page.submit(form, None, **GOOD, **{"o.wait": "5", "o.at": "2030-01-01T00:00"})
    assert answer.status_code == 400
    assert "not both" in answer.text


async def test_what_is_larger_than_allowed_is_said(world: World) -> None:
    world.client.register(Every, _run)
    world.client.max_payload = 300
    form = (await world.page.see(NEW)).main.form("Add the job")
    answer = await world.page.submit(form, None, **{**GOOD, "f.anything": "y" * 400})
    assert answer.status_code == 400
    assert Document(answer.text).find("p", cls="warning").text
    assert await world.client.jobs.count(queue="every & all") == 0


async def test_a_type_whose_code_is_elsewhere_has_the_same_form(tmp_path: Any) -> None:
    """Another process has declared it, and is gone."""
    file = str(tmp_path / "app.db")
    async with Client(file, workers=0) as other:
        other.register(Every, _run)
        await other.tasks.list()
    async with Client(file, workers=0) as client, Browser(client) as page:
        form = (await page.see(NEW)).main.form("Add the job")
        _, task = await added(client, page, await page.submit(form, None, **GOOD))
        assert (task.count, task.size, task.made) == (7, Size(3, 4), [1, 2])


async def test_the_address_can_fill_in_the_form(every: Client, page: Browser) -> None:
    form = (await page.see(NEW + "?f.text=<i>&o.tags=t")).main.form("Add the job")
    assert (form["f.text"], form["o.tags"]) == ("<i>", "t")


@pytest.mark.parametrize("access", [Access(write=False), Access(payloads=False)])
async def test_who_may_not_sees_no_form(every: Client, access: Access) -> None:
    async with Browser(every, auth=allow_all(access)) as page:
        assert "Add a job of Every" not in (await page.see("/tasks")).links
        await page.see(NEW, status=403)
        answer = await page.post(NEW, data=GOOD)
        assert answer.status_code == 403
    assert await every.jobs.count(queue="every & all") == 0


async def test_unknown_types_are_not_found(page: Browser) -> None:
    await page.see("/tasks/mail/Nothing/new", status=404)
    await page.see("/tasks/other/Mail/new", status=404)


# -- fields of a schema ---------------------------------------------------------------------------


def schema(cls: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the JSON schema of a type."""
    return msgspec.json.schema(cls)


class Odd(msgspec.Struct, array_like=True):
    """What is encoded as an array."""

    x: int


def test_what_no_schema_names_is_one_field() -> None:
    for odd in (
        None,
        {},
        schema(Odd),
        {"$ref": "#/$defs/x", "$defs": {"x": {"$ref": "#/$defs/x"}}},
        {"properties": 3},
    ):
        [field] = fields_of(odd)
        assert (field.name, field.kind) == ("", "json")
        assert values_of([field], {"": '{"x": 1}'}) == {"x": 1}
        for text in ("", "[]", "{", "[" * 100_000):
            with pytest.raises(ValueError, match=r"."):
                values_of([field], {"": text})


def test_an_error_is_put_beside_the_longest_name_that_it_tells() -> None:
    fields = fields_of(schema(Every))
    assert place_of("Expected `int`, got `str` - at `$.size.width`", fields) == "size"
    assert place_of("Object missing required field `count`", fields) == "count"
    assert place_of("Expected `str` - at `$.tags[0]`", fields) == "tags"
    assert place_of("Object missing required field `width` - at `$.size`", fields) == "size"
    assert place_of("something else", fields) is None
    assert place_of("Expected `int` - at `$.textual`", fields) is None
    several = fields_of({"properties": {"a": {}, "a.b": {}}})
    assert place_of("Expected `int` - at `$.a.b`", several) == "a.b"


def test_a_box_need_not_be_checked() -> None:
    """Or no job could have False in a field without a default."""

    class Sure(msgspec.Struct):
        sure: bool

    [field] = fields_of(schema(Sure))
    assert (field.kind, field.required) == ("checkbox", False)


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "$ref",
                    "type",
                    "enum",
                    "anyOf",
                    "properties",
                    "items",
                    "default",
                    "$defs",
                    "required",
                    "format",
                    "minimum",
                    "exclusiveMinimum",
                    "string",
                    "null",
                    "integer",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=50)
@given(st.dictionaries(st.sampled_from(["$ref", "properties", "$defs", "required", "type"]), json))
def test_no_schema_breaks_the_form(odd: dict[str, Any]) -> None:
    """Whatever another process has stored."""
    fields = fields_of(odd)
    kept(fields, {field.name: "x" for field in fields})
