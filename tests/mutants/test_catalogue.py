"""Every mutant fits the library as it is now, and the frame tells killed from survived."""

from __future__ import annotations

from pathlib import Path

import pytest

from .__main__ import chosen, main, stale
from .catalogue import FOLDER, MUTANTS, parse
from .mutant import PACKAGE, ROOT, Mutant, Stale, copy_package
from .runner import Baseline, judge, measure

EXAMPLE = """
# Some words.

file: _plan.py
tests: tests/test_plan.py

first-one: breaks this
-    room = min(workers_free, writes_free)
+    room = workers_free

second-one: breaks that
tests: tests/test_worker.py -k plan
@@ def plan_claim
     lanes = []
-    room = 1
"""


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """Return a file for tests."""
    return tmp_path / "test_example.py"


def plain(old: str, new: str, *, within: str = "", tests: str = "") -> Mutant:
    return Mutant("example", "nothing", "_plan.py", old, new, tests, within)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_fits(mutant: Mutant) -> None:
    """Its lines stand where they should, once; the result is another program, and is one."""
    text = (PACKAGE / mutant.file).read_text()
    changed = mutant.changed(text)
    assert changed != text
    if mutant.file.endswith(".py"):
        compile(changed, mutant.file, "exec")
    for part in mutant.tests.split():
        assert part.startswith("tests/")
        file, _, name = part.partition("::")
        assert (ROOT / file).exists(), part
        assert name.split("[")[0] in (ROOT / file).read_text() if name else True, part


def test_there_are_many_with_names_of_their_own() -> None:
    """At least forty, in every part of the store and the engine."""
    assert len(MUTANTS) == len({mutant.name for mutant in MUTANTS}) >= 40
    files = {mutant.file for mutant in MUTANTS}
    assert {
        "_dispatcher.py",
        "_worker.py",
        "_leases.py",
        "_completions.py",
        "_outcome.py",
        "_plan.py",
    } <= files
    assert {"queries.sql", "commits.py", "database.py", "locks.py"} <= {Path(file).name for file in files}
    assert len(list(FOLDER.glob("*.diff"))) > 1


def test_catalogue_is_read() -> None:
    """Settings hold for what follows; lines that stay are in both texts."""
    first, second = parse(EXAMPLE)
    assert first == Mutant(
        "first-one",
        "breaks this",
        "_plan.py",
        "    room = min(workers_free, writes_free)\n",
        "    room = workers_free\n",
        "tests/test_plan.py",
    )
    assert (second.tests, second.within) == ("tests/test_worker.py -k plan", "def plan_claim")
    assert (second.old, second.new) == ("    lanes = []\n    room = 1\n", "    lanes = []\n")


@pytest.mark.parametrize("text", ["no title", "name: breaks\nunmarked line"])
def test_catalogue_that_cannot_be_read_is_an_error(text: str) -> None:
    """What is no diff is not passed over."""
    with pytest.raises(ValueError, match=r"no mutant|no line of a diff"):
        list(parse(text))


@pytest.mark.parametrize(
    ("mutant", "found"),
    [
        (plain("no such line\n", ""), "stand 0 times"),
        (plain("x = 1\n", "x = 2\n"), "stand 2 times"),
        (plain("x = 1\n", "x = 1\n", within="def g"), "changes nothing"),
        (plain("x = 1\n", "", within="def h"), "'def h' begins 0 lines"),
        (plain("x = 1\n", "", within="x"), "'x' begins 2 lines"),
    ],
)
def test_mutant_that_does_not_fit_is_stale(mutant: Mutant, found: str) -> None:
    """A mutant that cannot be made, or would be none, is an error that names it."""
    with pytest.raises(Stale, match=found):
        mutant.changed("def f():\nx = 1\ndef g():\nx = 1\n")


def test_section_ends_with_its_function() -> None:
    """`within` tells functions and statements apart that have the same lines."""
    code = "def f():\n    x = 1\n\n\ndef g():\n    x = 1\n"
    assert plain("    x = 1\n", "    x = 2\n", within="def f").changed(code) == code.replace("1", "2", 1)
    sql = "-- name: a\nSELECT 1\n\n-- name: b\nSELECT 1\n"
    mutant = Mutant("a", "b", "x.sql", "SELECT 1\n", "SELECT 2\n", "", "-- name: a")
    assert mutant.changed(sql) == sql.replace("1", "2", 1)


def test_lines_are_whole_lines() -> None:
    """The end of a line is no line."""
    with pytest.raises(Stale, match="stand 0 times"):
        plain("x = 1\n", "").changed("    x = 1\n")


def test_copy_has_the_defect_and_nothing_else(tmp_path: Path) -> None:
    """A copy differs from the package in one file."""
    mutant = next(mutant for mutant in MUTANTS if mutant.file == "_plan.py")
    copy = copy_package(tmp_path, mutant) / PACKAGE.name
    files = [path.relative_to(PACKAGE) for path in PACKAGE.rglob("*") if path.suffix in {".py", ".sql"}]
    differing = [str(path) for path in files if (copy / path).read_text() != (PACKAGE / path).read_text()]
    assert differing == ["_plan.py"]


def test_defect_that_a_test_notices_is_killed(example: Path) -> None:
    """A mutant is killed by a failing test, survives passing ones, and what fails anyway does not count."""
    example.write_text(
        "from backlite_async._plan import plan_claim\n"
        "def test_room():\n"
        "    assert plan_claim([], workers_free=1, threads_free=1, writes_free=1) == []\n"
        "def test_wrong_anyway():\n"
        "    assert plan_claim is None\n"
    )
    tests = str(example)
    baseline = measure([tests, f"{tests}::test_room"])
    assert [name.split("::")[1] for name in baseline.failing] == ["test_wrong_anyway"]
    assert baseline.troubles == []
    noticed = plain("    lanes = []\n", "    lanes = [1]\n", tests=tests)
    verdict = judge(noticed, noticed.tests, baseline)
    assert (verdict.outcome, verdict.by.split("::")[1]) == ("killed", "test_room")
    hidden = plain("    lanes = []\n", "    lanes = list(())\n", tests=tests)
    assert judge(hidden, hidden.tests, baseline).outcome == "survived"


def test_limit_goes_by_how_long_the_tests_take() -> None:
    """Of the tests that are asked for, and no others."""
    seconds = {
        "tests/test_a.py::test_x": 1.0,
        "tests/test_a.py::test_y[1]": 2.0,
        "tests/test_b.py::test_x": 4.0,
    }
    baseline = Baseline(seconds, least=10.0)
    assert baseline.limit("tests/test_a.py") == 25.0
    assert baseline.limit("tests/test_a.py::test_y tests/test_b.py -k something") == 40.0
    assert baseline.limit("tests/test_c.py") == 10.0


def test_defect_that_hangs_is_noticed(example: Path) -> None:
    """A mutant that never ends is not waited for."""
    example.write_text("import backlite_async._plan\ndef test_nothing():\n    pass\n")
    tests = str(example)
    endless = plain("import msgspec\n", "import msgspec\nwhile True: pass\n", tests=tests)
    assert judge(endless, tests, Baseline(least=1.0)).outcome == "hangs"


def test_tests_that_cannot_be_run_are_no_measure(example: Path) -> None:
    """A file that cannot be collected is a trouble, and nothing is judged by it."""
    example.write_text("import no_such_module\n")
    assert len(measure([str(example)]).troubles) == 1


def test_what_tests_print_may_be_anything(example: Path) -> None:
    """It need not be UTF-8."""
    example.write_text(
        "import atexit, os\natexit.register(os.write, 1, b'\\x80')\ndef test_nothing():\n    pass\n"
    )
    assert measure([str(example)]).troubles == []


def test_mutants_are_chosen_by_name_or_file(capsys: pytest.CaptureFixture[str]) -> None:
    """No name means all; a file means all of its mutants; an unknown name is an error."""
    assert chosen([]) == MUTANTS
    assert {mutant.file for mutant in chosen(["_plan.py"])} == {"_plan.py"}
    assert main(["no-such-mutant"]) == 2
    assert main(["--list", "_plan.py"]) == 0
    assert "no mutant 'no-such-mutant'" in capsys.readouterr().err


def test_stale_mutants_are_named() -> None:
    """All that do not fit are named at once, also where their file is gone."""
    gone = Mutant("gone", "nothing", "no_such_file.py", "a\n", "b\n", "")
    assert len(stale([plain("no such line\n", ""), gone])) == 2
    assert stale(MUTANTS) == []
