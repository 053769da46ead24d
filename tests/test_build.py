"""Tasks of plain values, also where their code is not: of a type made of the stored JSON schema."""

from __future__ import annotations

import datetime
import decimal
import enum
import uuid
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal, Union

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Meta, inspect

from backlite_async import (
    Client,
    InvalidType,
    InvalidValue,
    PayloadError,
    QueueConfig,
    Rate,
    Task,
    TaskNotFound,
)
from backlite_async._build import built
from backlite_async._codec import encode
from backlite_async._fingerprint import fingerprint
from backlite_async._schema import made_up
from backlite_async._task import SchemaTask, task_type

PICTURES = QueueConfig(
    "pictures", max_attempts=9, priority=4, concurrency_per_key=2, timeout=5.0, rate=Rate(5, per=60)
)


class Size(msgspec.Struct):
    width: int
    height: int = 600


class Shade(enum.Enum):
    LIGHT = "light"
    DARK = "dark"


class Resize(Task):
    """Make a picture smaller."""

    config: ClassVar[QueueConfig] = PICTURES
    path: str
    size: Size | None = None
    quality: Annotated[int, Meta(ge=1, le=100)] = 80
    shade: Shade = Shade.LIGHT
    tags: list[str] = []


class Renamed(Task, rename="camel"):
    config: ClassVar[QueueConfig] = PICTURES
    task_name: ClassVar[str] = "Crop"
    aliases: ClassVar[tuple[str, ...]] = ("Cut",)
    left_edge: int = 0


class Elsewhere(Task):
    config: ClassVar[QueueConfig] = QueueConfig("paintings")
    task_name: ClassVar[str] = "Resize"


class Sized(Task):
    config: ClassVar[QueueConfig] = PICTURES
    size: Size


def stand_in(cls: type[msgspec.Struct]) -> Any:
    """Return the type that is made of what others know of a task type."""
    kind = task_type(cls)
    schema = kind.schema()
    assert schema is not None
    made = made_up(kind.name, msgspec.json.decode(schema), kind.config, kind.description)
    assert issubclass(made.cls, SchemaTask)
    return made


async def declare(file: str, *tasks: Task) -> None:
    """Have a client that knows these types tell the database of them."""
    async with Client(file, workers=0) as client:
        await client.add(*tasks).save()
        await client.jobs.delete(all=True)


# -- by the client --------------------------------------------------------------------------------


async def test_of_a_type_that_is_known(database: str) -> None:
    """By name or alias, an instance of the type itself; the client need not be started."""
    client = Client(database, workers=0)
    client.registry.meet(task_type(Renamed))
    assert await client.tasks.build("Crop", {"leftEdge": 5}) == Renamed(5)
    assert await client.tasks.build("Cut", {}, queue="pictures") == Renamed()
    async with client:
        assert await client.tasks.build("Crop", {"leftEdge": 6}) == Renamed(6)
        with pytest.raises(TaskNotFound):
            await client.tasks.build("Crop", {}, queue="paintings")


async def test_of_a_type_that_is_not(file: str) -> None:
    """The job is the one that who knows the type would have added, with what its queue gives it."""
    await declare(file, Resize("x"))
    fields = {"path": "a.png", "size": {"width": 5}, "shade": "dark"}
    async with Client(file, workers=0) as client:
        task = await client.tasks.build("Resize", fields)
        assert isinstance(task, SchemaTask)
        [other] = await client.add(task).key("k").unique().save()
        jobs = [await client.get(other)]
        await client.jobs.delete(other)
        assert client.registry.types == {}
        before = await client.tasks.list()
    async with Client(file, workers=0) as client:
        [own] = await client.add(Resize("a.png", Size(5), shade=Shade.DARK)).key("k").unique().save()
        jobs.append(await client.get(own))
        assert await client.tasks.list() == before
        again = await client.add(await client.tasks.build("Resize", fields)).key("k").unique().save()
        assert again.existing == (own,)
    found, known = jobs
    assert found is not None
    assert known is not None
    same = {"id": "", "created_at": known.created_at, "due_at": known.due_at}
    assert msgspec.structs.replace(found, **same) == msgspec.structs.replace(known, **same)
    assert (found.max_attempts, found.priority) == (9, 4)


async def test_a_job_is_edited(file: str) -> None:
    """The task takes the place of that of a pending job; what was made is made once."""
    await declare(file, Resize("x"))
    async with Client(file, workers=0) as client:
        first = await client.tasks.build("Resize", {"path": "a.png"})
        second = await client.tasks.build("Resize", {"path": "b.png"})
        assert type(first) is type(second)
        [job_id] = await client.add(first).save()
        assert await client.jobs.edit(job_id, second) == 1
        job = await client.get(job_id)
        assert job is not None
        assert job.payload == msgspec.json.encode(Resize("b.png"))


async def test_it_does_not_stand_in_the_way_of_the_real_one(file: str) -> None:
    """Who meets the type later meets nothing else, and the database is told of the real one only."""
    await declare(file, Resize("x"))
    async with Client(file, workers=0) as client:
        await client.add(await client.tasks.build("Resize", {"path": "a.png"})).save()
        await client.add(Resize("b.png")).save()
        assert client.registry.types["pictures", "Resize"].cls is Resize
        assert type(await client.tasks.build("Resize", {"path": "c.png"})) is Resize
        [info] = await client.tasks.list()
        assert (info.title, info.limits["priority"]) == ("Make a picture smaller.", 4)


async def test_a_type_that_has_changed_is_made_anew(file: str) -> None:
    """As last declared, not as first looked at."""
    await declare(file, Resize("x"))

    class Later(Task):
        config: ClassVar[QueueConfig] = PICTURES
        task_name: ClassVar[str] = "Resize"
        name: str

    async with Client(file, workers=0) as client:
        await client.tasks.build("Resize", {"path": "a.png"})
        await declare(file, Later("x"))
        task = await client.tasks.build("Resize", {"name": "a"})
        assert msgspec.json.encode(task) == b'{"name":"a"}'


async def test_names_that_are_not_known(file: str) -> None:
    """The error is a LookupError, and suggests what may be meant; of several queues, one must be said."""
    await declare(file, Resize("x"), Renamed())
    async with Client(file, workers=0) as client:
        with pytest.raises(TaskNotFound, match=r"'Resise' is known; did you mean 'Resize'\?") as caught:
            await client.tasks.build("Resise", {})
        assert isinstance(caught.value, LookupError)
        assert isinstance(caught.value, InvalidValue)
        with pytest.raises(TaskNotFound, match="there is 'Crop', 'Resize'"):
            await client.tasks.build("Nothing", {})
        with pytest.raises(TaskNotFound, match="there is none"):
            await client.tasks.build("Resize", {}, queue="empty")
        await declare(file, Elsewhere())
        with pytest.raises(
            InvalidValue, match=r"in several queues: 'paintings', 'pictures'; say which: build"
        ):
            await client.tasks.build("Resize", {})
        client.registry.meet(task_type(Elsewhere))
        with pytest.raises(InvalidValue, match="in several queues"):
            await client.tasks.build("Resize", {})
        assert await client.tasks.build("Resize", {}, queue="paintings") == Elsewhere()
        with pytest.raises(InvalidType):
            await client.tasks.build(5, {})  # type: ignore[arg-type]


async def test_a_schema_that_cannot_be_followed(file: str) -> None:
    """Says so, and what to do; so does a type that has none."""
    with pytest.raises(InvalidValue, match=r"'X' cannot be followed .* where its type is imported"):
        made_up("X", {"type": "object", "properties": {"a": {"type": "knot"}}}, PICTURES)

    class Bare(Task):
        config: ClassVar[QueueConfig] = PICTURES
        raw: msgspec.Raw = msgspec.Raw(b"1")

    await declare(file, Bare())
    async with Client(file, workers=0) as client:
        with pytest.raises(InvalidValue, match="has no JSON schema"):
            await client.tasks.build("Bare", {})


# -- what is wrong with fields --------------------------------------------------------------------

WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "Object missing required field `path`"),
    ({"path": 5}, r"Expected `str`, got `int` - at `\$\.path`"),
    ({"path": "a", "size": {}}, r"missing required field `width` - at `\$\.size`"),
    ({"path": "a", "size": {"width": "5"}}, r"Expected `int`, got `str` - at `\$\.size\.width`"),
    ({"path": "a", "quality": 500}, r"Expected `int` <= 100 - at `\$\.quality`"),
    ({"path": "a", "quality": float("nan")}, r"JSON has no nan - at `\$\.quality`"),
    ({"path": "a", "size": {"width": float("inf")}}, r"JSON has no inf - at `\$\.size\.width`"),
    ({"path": "a", "shade": "grey"}, r"at `\$\.shade`; it must be one of 'dark', 'light'"),
    ({"path": "a", "tags": ["x", None]}, r"Expected `str`, got `null` - at `\$\.tags\[1\]`"),
    ({"pth": "a"}, r"unknown field `pth` - at `\$`; did you mean 'path'\?"),
    ({"path": "a", "Quality": 5}, r"unknown field `Quality` - at `\$`; did you mean 'quality'\?"),
    ({"path": "a", "size": {"width": 5, "heigth": 5}}, r"`heigth` - at `\$\.size`; did you mean 'height'\?"),
    ({"path": object()}, "its fields cannot be encoded"),
]


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(("fields", "message"), WRONG)
def test_wrong_fields_are_named(known: bool, fields: dict[str, Any], message: str) -> None:
    """With their path and what they must be, whether the type is known here or made of a schema."""
    kind = task_type(Resize) if known else stand_in(Resize)
    with pytest.raises(PayloadError, match=message):
        built(kind, fields, text=False)


def test_fields_must_be_a_mapping() -> None:
    """A list of values has no names."""
    with pytest.raises(InvalidType, match="must be a mapping"):
        built(task_type(Resize), ["a.png"], text=False)  # type: ignore[arg-type]


def test_choices_are_sorted_as_they_are_written(file: str) -> None:
    """Also where some of them are numbers, or nothing."""

    class Choice(Task):
        config: ClassVar[QueueConfig] = PICTURES
        one: Literal["b", 1] | None = None

    for kind in (task_type(Choice), stand_in(Choice)):
        with pytest.raises(PayloadError, match=r"must be one of 'b', 1$"):
            built(kind, {"one": "c"}, text=False)


# -- the text of a form ---------------------------------------------------------------------------


class Form(Task):
    config: ClassVar[QueueConfig] = PICTURES
    text: str = "default"
    maybe: str | None = "default"
    number: int = 7
    ratio: float = 0.5
    flag: bool = True
    either: int | str | None = None
    when: datetime.datetime | None = None
    day: datetime.date | None = None
    items: list[int] = []
    table: dict[str, int] = {}
    size: Size | None = None
    shade: Shade = Shade.LIGHT
    amount: decimal.Decimal = decimal.Decimal(7)
    anything: Any = "default"
    needed: Annotated[str | None, Meta(description="nothing")] = None


NOON = datetime.datetime(2030, 5, 1, 12)

MEANT: list[tuple[str, str, Any]] = [
    ("text", "5", "5"),
    ("text", "", ""),
    ("text", " a ", " a "),
    ("text", "[1]", "[1]"),
    ("maybe", "", "default"),
    ("maybe", "null", "null"),
    ("number", "5", 5),
    ("number", " 5 ", 5),
    ("number", "+05", 5),
    ("number", "", 7),
    ("ratio", "5", 5.0),
    ("ratio", ".5", 0.5),
    ("ratio", "1e3", 1000.0),
    ("flag", "on", True),
    ("flag", "FALSE", False),
    ("flag", "0", False),
    ("flag", "", True),
    ("either", "5", "5"),
    ("either", "", None),
    ("when", "2030-05-01T12:00", NOON),
    ("when", "2030-05-01T12:00:00", NOON),
    ("day", "2030-05-01", datetime.date(2030, 5, 1)),
    ("items", "[1, 2]", [1, 2]),
    ("items", "", []),
    ("table", '{"a": 1}', {"a": 1}),
    ("size", '{"width": 1}', Size(1)),
    ("size", "", None),
    ("shade", "dark", Shade.DARK),
    ("amount", "1.50", decimal.Decimal("1.50")),
    ("anything", "5", 5),
    ("anything", "five", "five"),
    ("anything", "", "default"),
]


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(("name", "text", "value"), MEANT)
def test_text_means_what_its_field_takes(known: bool, name: str, text: str, value: Any) -> None:
    """Numbers, words for true and false, JSON for what is more than that, nothing for the default."""
    kind = task_type(Form) if known else stand_in(Form)
    task = built(kind, {name: text}, text=True)
    assert msgspec.json.encode(task) == msgspec.json.encode(Form(**{name: value}))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"number": "five"}, r"Expected `int`, got `str` - at `\$\.number`"),
        ({"number": "1e999"}, r"Expected `int`, got `str`"),
        ({"ratio": "inf"}, r"Expected `float`, got `str`"),
        ({"items": "1, 2"}, r"Expected `array`, got `str`"),
        ({"size": '{"width": 1, "hight": 2}'}, r"unknown field `hight` - at `\$\.size`"),
        ({"size": "[["}, r"Expected `object \| null`, got `str`"),
        ({"nmber": "5"}, r"did you mean 'number'"),
    ],
)
def test_text_that_means_nothing(fields: dict[str, str], message: str) -> None:
    """The error is the one of the text itself."""
    with pytest.raises(PayloadError, match=message):
        built(task_type(Form), fields, text=True)


def test_values_that_are_no_text_stay() -> None:
    """Beside text there may be what is JSON already; what must be given must be."""
    assert built(task_type(Form), {"items": [1], "number": "5"}, text=True) == Form(items=[1], number=5)
    with pytest.raises(PayloadError, match=r"Expected `object`, got `str` - at `\$\.size`"):
        built(task_type(Sized), {"size": ""}, text=True)
    assert built(task_type(Resize), {"path": ""}, text=True) == Resize("")


# -- every type -----------------------------------------------------------------------------------


class Cat(msgspec.Struct, tag=True, frozen=True):
    name: str


class Dog(msgspec.Struct, tag="dog", frozen=True):
    age: int = 3


class Point(msgspec.Struct, array_like=True, frozen=True):
    x: int
    y: float = 0.5


class Left(msgspec.Struct, array_like=True, tag="left"):
    by: int


class Right(msgspec.Struct, array_like=True, tag="right"):
    by: str


class Tree(msgspec.Struct):
    value: int
    children: list[Tree] = []
    parent: Branch | None = None


class Branch(msgspec.Struct):
    trees: dict[str, Tree]


class Grade(enum.IntEnum):
    GOOD = 1
    BAD = 2


class Strict(msgspec.Struct, forbid_unknown_fields=True, rename={"kind": "kind-of", "cls": "class"}):
    kind: int
    cls: str = "x"


TYPES: list[Any] = [
    int, float, str, bool, None, bytes, Any,
    Annotated[int, Meta(ge=-5, lt=9, multiple_of=2)], Annotated[float, Meta(gt=0.5, le=3)],
    Annotated[str, Meta(min_length=1, max_length=4, title="T", description="D", examples=["a"])],
    Annotated[str, Meta(pattern="^[a-c]+$")],
    datetime.date, datetime.timedelta, uuid.UUID, decimal.Decimal, datetime.datetime, datetime.time,
    Annotated[datetime.datetime, Meta(tz=True)], Annotated[datetime.time, Meta(tz=False)],
    Shade, Grade, Literal["a", 1] | None, Literal["only"],
    Cat, Dog, Cat | Dog, Cat | Dog | int | None, Point, Left | Right, Tree, Branch, Strict,
    list[Point], tuple[int, str], tuple[()], tuple[Point, ...], set[int], frozenset[str],
    dict[str, Cat | Dog], dict[int, float], dict[Annotated[str, Meta(max_length=3)], Any],
    Annotated[list[int], Meta(min_length=1, max_length=3)], Annotated[dict[str, int], Meta(max_length=2)],
    int | str | float | bool | None, Shade | int, list | None, dict, list[Tree] | dict[str, Tree] | str,
]  # fmt: skip
NAMES = ["a", "config", "from", "_x", "task-name", "long name", "é", "copy", "struct_0", "type"]

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=3,
)
PLAIN: dict[type, st.SearchStrategy[Any]] = {
    inspect.AnyType: ANYTHING,
    inspect.NoneType: st.none(),
    inspect.BoolType: st.booleans(),
    inspect.BytesType: st.binary(max_size=5),
    inspect.DateType: st.dates(),
    inspect.TimeDeltaType: st.timedeltas(datetime.timedelta(-99), datetime.timedelta(99)),
    inspect.UUIDType: st.uuids(),
    inspect.DecimalType: st.decimals(-99, 99, places=2),
}


def values(info: Any, depth: int = 0) -> st.SearchStrategy[Any]:
    """Return what a type takes, as JSON."""
    plain = PLAIN.get(type(info))
    if plain is not None:
        return plain.map(msgspec.to_builtins)
    return OF_TYPES[type(info)](info, depth)


def _of_text(info: Any, depth: int) -> st.SearchStrategy[Any]:
    least, most = info.min_length or 0, info.max_length or 5
    if info.pattern is not None:
        return st.just("ab")
    return TEXT.filter(lambda text: least <= len(text) <= most)


def _of_times(info: Any, depth: int) -> st.SearchStrategy[Any]:
    zones = st.just(datetime.UTC) if info.tz else st.none()
    times = st.times if isinstance(info, inspect.TimeType) else st.datetimes
    return times(timezones=zones).map(msgspec.to_builtins)


def _of_lists(info: Any, depth: int) -> st.SearchStrategy[Any]:
    return st.lists(
        values(info.item_type, depth + 1), min_size=info.min_length or 0, max_size=info.max_length or 2
    )


def _of_dicts(info: Any, depth: int) -> st.SearchStrategy[Any]:
    keys = values(info.key_type, depth).map(str)
    return st.dictionaries(keys, values(info.value_type, depth + 1), max_size=info.max_length or 2)


@st.composite
def struct_values(draw: st.DrawFn, info: inspect.StructType, depth: int) -> Any:
    """Return what a Struct takes: with or without what need not be given."""
    found = {} if info.tag_field is None else {info.tag_field: info.tag}
    for field in info.fields:
        if field.required or info.array_like or (depth < 3 and draw(st.booleans())):
            found[field.encode_name] = draw(values(field.type, depth + 1))
    return list(found.values()) if info.array_like else found


OF_TYPES: dict[type, Callable[[Any, int], st.SearchStrategy[Any]]] = {
    inspect.Metadata: lambda info, depth: values(info.type, depth),
    inspect.IntType: lambda info, _: st.sampled_from([-4, 0, 8]) if info.multiple_of else st.integers(-9, 9),
    inspect.FloatType: lambda info, _: (
        st.floats(-9 if info.gt is None else 1, info.le or 9) | st.integers(1, 3)
    ),
    inspect.StrType: _of_text,
    inspect.DateTimeType: _of_times,
    inspect.TimeType: _of_times,
    inspect.LiteralType: lambda info, _: st.sampled_from(info.values),
    inspect.EnumType: lambda info, _: st.sampled_from([member.value for member in info.cls]),
    inspect.UnionType: lambda info, depth: st.one_of([values(option, depth) for option in info.types]),
    inspect.ListType: _of_lists,
    inspect.SetType: _of_lists,
    inspect.FrozenSetType: _of_lists,
    inspect.VarTupleType: _of_lists,
    inspect.TupleType: lambda info, depth: st.tuples(
        *(values(item, depth + 1) for item in info.item_types)
    ).map(list),
    inspect.DictType: _of_dicts,
    inspect.StructType: struct_values,
}


DEFAULTS: dict[Any, Any] = {
    int: 5, float: 1, str: "x", bool: True, bytes: b"x", datetime.date: datetime.date(2030, 1, 2),
    Shade: Shade.DARK, Grade: Grade.BAD, Point: Point(1), decimal.Decimal: decimal.Decimal("1.50"),
    tuple[int, str]: (1, "x"), list[Point]: msgspec.field(default_factory=list),
    dict: msgspec.field(default_factory=dict),
}  # fmt: skip


@st.composite
def task_types(draw: st.DrawFn) -> type[msgspec.Struct]:
    """Return a task type with some fields, of any type and name."""
    names = draw(st.lists(st.sampled_from(NAMES), max_size=4, unique=True))
    kinds = [draw(st.sampled_from(TYPES)) for _ in names]
    fields: list[Any] = [(f"field_{place}", kind) for place, kind in enumerate(kinds)]
    for place, (name, kind) in enumerate(fields):
        try:
            with_default = kind in DEFAULTS and draw(st.booleans())
        except TypeError:  # what cannot be hashed
            continue
        if with_default:
            fields[place] = (name, kind, DEFAULTS[kind])
        elif draw(st.booleans()):
            fields[place] = (name, Union[kind, None], None)  # noqa: UP007 - None | None is none
    tag: Any = None if "type" in names or draw(st.booleans()) else draw(st.sampled_from(["tag", 5]))
    in_array = draw(st.booleans()) and not any(len(field) == 3 for field in fields)
    return msgspec.defstruct(
        "Made",
        fields,
        namespace={"config": PICTURES, "task_name": "made"},
        rename={f"field_{place}": name for place, name in enumerate(names)},
        forbid_unknown_fields=draw(st.booleans()),
        kw_only=not in_array,
        array_like=in_array,
        tag=tag,
    )


@settings(max_examples=150)
@given(st.data())
def test_what_is_made_is_encoded_as_the_real_one(data: st.DataObject) -> None:
    """Whatever the type: the same bytes, the same key if it is to be unique, and the same refusals."""
    cls = data.draw(task_types())
    real, made = task_type(cls), stand_in(cls)
    info = inspect.type_info(cls)
    assert isinstance(info, inspect.StructType)
    drawn = data.draw(struct_values(info, 0))
    if info.array_like:  # whose fields have no names in a schema
        own, other = (kind.decoder.decode(msgspec.json.encode(drawn)) for kind in (real, made))
    else:
        own, other = built(real, drawn, text=False), built(made, drawn, text=False)
    assert encode(made, other, 10_000) == encode(real, own, 10_000)
    if "prefixItems" not in str(real.schema()):
        assert fingerprint(made, other) == fingerprint(real, own)
    fields = {} if info.array_like else drawn
    if fields and "only" not in fields.values():  # which may be a tag, and is then not asked for
        less = dict(fields)
        less.pop(data.draw(st.sampled_from(sorted(fields))))
        assert _refused(made, less) == _refused(real, less)


def _refused(kind: Any, fields: Mapping[str, Any]) -> bool:
    try:
        built(kind, fields, text=False)
    except PayloadError:
        return True
    return False


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (bytes, "no base64!"),
        (Annotated[datetime.datetime, msgspec.Meta(tz=True)], "2030-01-02T03:04:05"),
        (Annotated[datetime.datetime, msgspec.Meta(tz=False)], "2030-01-02T03:04:05Z"),
        (Annotated[int, msgspec.Meta(ge=1)], 0),
        (Annotated[str, msgspec.Meta(pattern="^a")], "b"),
        (Annotated[list[int], msgspec.Meta(max_length=1)], [1, 2]),
        (dict[str, Annotated[float, msgspec.Meta(lt=1)]], {"a": 1.0}),
        (Literal["a", "b"], "c"),
        (uuid.UUID, "7"),
    ],
    ids=str,
)
def test_what_the_real_one_refuses_is_refused(kind: Any, value: Any) -> None:
    """Or it would be stored, and fail where it runs."""
    cls = msgspec.defstruct("Made", [("field", kind)], namespace={"config": PICTURES, "task_name": "made"})
    for each in (task_type(cls), stand_in(cls)):
        with pytest.raises(PayloadError, match=r"\$\.field"):
            built(each, {"field": value}, text=False)


def test_tasks_share_no_default() -> None:
    """What one does with its list changes no other."""
    field: Any = ("field", list[int], msgspec.field(default_factory=list))
    made = stand_in(msgspec.defstruct("Made", [field], namespace={"config": PICTURES, "task_name": "made"}))
    first, second = (built(made, {}, text=False) for _ in range(2))
    first.field.append(1)  # type: ignore[attr-defined]
    assert second.field == []  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", TYPES, ids=str)
def test_every_type_can_be_made(kind: Any) -> None:
    """Each of the types above, alone."""
    cls = msgspec.defstruct("Made", [("field", kind)], namespace={"config": PICTURES})
    assert stand_in(cls).decoder is not None


def test_what_a_schema_does_not_tell_is_left_to_who_knows() -> None:
    """A default that is made anew for each task is made where the job runs."""

    class Numbered(Task):
        config: ClassVar[QueueConfig] = PICTURES
        path: str
        number: uuid.UUID = msgspec.field(default_factory=uuid.uuid4)

    task = built(stand_in(Numbered), {"path": "a"}, text=False)
    assert msgspec.json.encode(task) == b'{"path":"a"}'
    assert msgspec.json.decode(msgspec.json.encode(task), type=Numbered).number.version == 4
