"""T16 in short; and that it notices payloads that run as they should not."""

from __future__ import annotations

import datetime
import decimal
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest

from .children import doctored
from .kit import Budget
from .programs.t16_types import Bounded, Circle, Colour, Nested, Plain, Point, Square, fits
from .t16_payloads import Plan, run

SHORT = Plan(programs=1, least=800, examples=10)


def test_every_payload_fails_at_once_or_runs() -> None:
    """Good and bad payloads of every type, behind the client's back."""
    row = run(Budget(0), SHORT)
    assert row.failures == []
    assert (row.lost, row.corrupt, row.hangs) == (0, 0, 0)
    assert row.trials >= 800


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("_task.py", "msgspec.json.Decoder(cls)", "msgspec.json.Decoder(cls, strict=False)"),
        ("_worker.py", "error=text, final=True", "error=text, final=False"),
        (
            "_codec.py",
            "    except Exception as error:  # MsgspecError, Uni",
            "    except msgspec.MsgspecError as error:  #",
        ),
    ],
)
def test_a_weaker_library_is_noticed(tmp_path: Path, module: str, old: str, new: str) -> None:
    """A lax decoder, undecodable payloads that are tried again, errors that nobody expects."""
    plan = Plan(programs=1, least=500, examples=0, giants=0, library=doctored(tmp_path, module, old, new))
    assert run(Budget(0), plan).failures != []


GOOD = [
    (1, int),
    (None, str | None),
    (1.5, float),
    ([Circle(1.0), Square(2)], list[Circle | Square]),
    ({"a": Point(1)}, dict[str, Point]),
    ((1, "a"), tuple[int, str]),
    ((1.0, 2.0), tuple[float, ...]),
    (Colour.RED, Colour),
    (decimal.Decimal("NaN"), decimal.Decimal),
    (Nested([], pair=None), Nested),
    (Bounded(100), Bounded),
    (object(), Any),
]
BAD = [
    (True, int),
    (1, float),
    (float("nan"), float),
    (float("inf"), float | None),
    ("\ud800", str),
    ([1, "2"], list[int]),
    ({1: 1}, dict[str, int]),
    ((1, "a", 2), tuple[int, str]),
    ("red", Colour),
    (datetime.datetime(2024, 1, 1), datetime.date),
    (Plain("1", "a"), Plain),  # type: ignore[arg-type]
    (Bounded(101), Bounded),
    (Nested([], points={"a": Point("x")}), Nested),  # type: ignore[arg-type]
    ("abc", Annotated[str, msgspec.Meta(max_length=2)]),
]


@pytest.mark.parametrize(("value", "hint"), GOOD)
def test_values_of_their_types_fit(value: object, hint: Any) -> None:
    """The judge agrees with the annotations."""
    assert fits(value, hint)


@pytest.mark.parametrize(("value", "hint"), BAD)
def test_values_of_other_types_do_not_fit(value: object, hint: Any) -> None:
    """The judge sees what is wrong, however deep."""
    assert not fits(value, hint)
