"""What is tested is what is installed."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

import pytest

import backlite_async

CHECKOUT = Path(__file__).parents[1]


@pytest.mark.skipif("BACKLITE_TEST_WHEEL" not in os.environ, reason="set by nox, which installs the wheel")
def test_the_wheel_is_under_test() -> None:
    """The package comes from the installed wheel, not from the checkout."""
    assert not Path(backlite_async.__file__).is_relative_to(CHECKOUT / "backlite_async")


def test_everything_is_in_the_package() -> None:
    """The SQL files and the marker for type checkers are installed with the code."""
    package = files("backlite_async")
    sql = "stores/sqlite/sql"
    for name in ("py.typed", f"{sql}/queries.sql", f"{sql}/service.sql", f"{sql}/migrations/0001_jobs.sql"):
        assert package.joinpath(name).is_file()
