"""The battery's runner: every row has its say, and nothing that goes wrong is passed over."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from .kit import Row
from .runner import FULL_MINUTES, HEADER, PLANS, Plan, Report, discover, load, plan, summary, table

ROOT = Path(__file__).resolve().parents[2]

ROWS = {
    "t01_good.py": """
        '''T1: a fault that does no harm.'''
        from tests.torture.kit import Row
        SECONDS, LEAST = 40.0, 7
        def run(budget):
            row = Row("T1", "a fault", trials=1234, unit="points", lost=0, recovery_ms=1499.6)
            row.notes.append(f"{budget.seconds:g} s for {budget.least}")
            return row
        """,
    "t02_missed.py": """
        '''T2: a fault that does.'''
        from tests.torture.kit import Row
        def run(budget):
            row = Row("T2", "a | fault", lost=3)
            row.require("0 lost", row.lost == 0)
            return row
        """,
    "t03_tool.py": """
        '''T3: a fault that needs a tool.'''
        from tests.torture.kit import needs
        def run(budget):
            needs("no-such-tool", "no-such-package")
        """,
    "t04_raises.py": "'''T4: a row that breaks.'''\ndef run(budget):\n    raise ValueError('as planned')\n",
    "t05_dies.py": "'''T5: a row that dies.'''\nimport os\ndef run(budget):\n    os._exit(3)\n",
    "t10_budget.py": """
        '''T10: a row that plans for itself.'''
        from .kit import Budget, Row
        def budget(minutes):
            return Budget(minutes * 2, least=5)
        def run(budget):
            return Row("T10", "none", notes=[f"{budget.seconds:g} s for {budget.least}"])
        """,
    "t11_leaves.py": """
        '''T11: a row that leaves a process.'''
        import subprocess, sys
        from .kit import Row
        def run(budget):
            subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
            return Row("T11", "none")
        """,
    "test_t01_good.py": "raise AssertionError('this is no row')\n",
    "t1_short.py": "raise AssertionError('nor is this')\n",
    "t06_stage.py": "raise AssertionError('this helps a row')\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with rows of all sorts."""
    for name, text in ROWS.items():
        (tmp_path / name).write_text(textwrap.dedent(text).lstrip())
    return tmp_path


def torture(folder: Path, *arguments: str) -> tuple[int, str]:
    """Run the battery over a folder; return its exit status and all that it says."""
    code = (
        f"import sys; sys.path.append({str(ROOT)!r}); from pathlib import Path;"
        f" from tests.torture.__main__ import main; sys.exit(main({arguments!r}, Path({str(folder)!r})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_every_row_has_its_say(folder: Path) -> None:
    """Rows that miss a bar, break, die or lack a tool are shown as such; the others go on."""
    status, said = torture(folder)
    assert status == 1
    assert "| T1 | a fault" in " ".join(said.split())
    assert "| 1,234 points | 0 | - | - | - | 1,500 ms |" in " ".join(said.split())
    assert "T1 (0 s): 40 s for 7" in said
    assert "T10 (0 s): 24 s for 5" in said
    assert "T2 missed: 0 lost" in said
    assert "SKIPPED: needs no-such-tool: apt-get install no-such-package" in said
    assert "T4 missed: ValueError: as planned" in said
    assert "Traceback" in said
    assert "T5 missed: its process died" in said
    assert "T11 (0 s): it left processes behind, which were killed" in said
    assert "7 rows in" in said


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["T1"], 0),
        (["T1", "t10_budget.py"], 0),
        (["T1", "T2"], 1),
        (["T3"], 1),
        (["T3", "--allow-missing"], 0),
        (["T3", "T2", "--allow-missing"], 1),
        (["T99"], 2),
    ],
)
def test_exit_status_tells_whether_all_is_well(folder: Path, arguments: list[str], status: int) -> None:
    """A missed bar or a missing tool is no success, unless missing tools are allowed."""
    found, said = torture(folder, *arguments)
    assert found == status, said


def test_row_without_end_is_killed(tmp_path: Path) -> None:
    """A row that hangs is killed after its limit, and has failed."""
    row = tmp_path / "t07_hangs.py"
    row.write_text("import signal\ndef run(budget):\n    signal.pause()\n")
    code = (
        f"import sys; sys.path.append({str(ROOT)!r}); from pathlib import Path;"
        f" from tests.torture.runner import Entry, run_entry;"
        f" print(run_entry(Entry('T7', Path({str(row)!r})), 10, limit=0.5).missed)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert "no end within 0.5 s; killed" in done.stdout


def test_rows_come_in_the_order_of_their_numbers(folder: Path) -> None:
    """Only `tNN_name.py` is a row, and the tenth comes after the fifth."""
    assert [entry.name for entry in discover(folder)] == ["T1", "T2", "T3", "T4", "T5", "T10", "T11"]


@pytest.mark.parametrize("name", ["T1", "t1", "1", "t01", "t01_good", "t01_good.py", "T01_GOOD"])
def test_row_goes_by_many_names(folder: Path, name: str) -> None:
    """A row can be asked for by its number or its file, and no other one answers."""
    assert [entry.name for entry in discover(folder, [name])] == ["T1"]


def test_unknown_row_is_refused(folder: Path) -> None:
    """Who asks for a row that is not there is told which are."""
    with pytest.raises(LookupError, match=r"no row 't6'; there are T1, T2, T3, T4, T5, T10, T11"):
        discover(folder, ["T6"])


def test_longer_battery_has_more_time_and_a_short_one_needs_less() -> None:
    """Seconds are in proportion; the trials that are needed grow no further, and shrink with the time."""
    made = Plan(60, least=300)
    assert [(made.budget(minutes).seconds, made.budget(minutes).least) for minutes in (12, 36, 6)] == [
        (60, 300),
        (180, 300),
        (30, 150),
    ]
    assert Plan().budget(0.01).least == 1
    quick = made.budget(12, quick=True)
    assert (quick.seconds, quick.least, quick.most) == (3, 1, 40)


def test_battery_fits_into_its_time() -> None:
    """The rows of this folder together take less than a full battery, with some to spare."""
    entries = discover(Path(__file__).parent)
    assert len(entries) > 2
    assert sum(plan(entry, load(entry)).seconds for entry in entries) <= 60 * FULL_MINUTES - 30


def test_plans_are_for_rows_that_there_are() -> None:
    """Nothing is decided for a row that has another number by now."""
    assert PLANS.keys() <= {entry.name for entry in discover(Path(__file__).parent)}


def test_table_is_markdown() -> None:
    """Each line has as many cells as the header, of one width, and bars in a text do not break it."""
    reports = [
        Report("T1", "about", Row("T1", "a | b", 5, "points", lost=1, recovery_ms=2)),
        Report("T2", "about\nit", skipped="needs a tool"),
        Report("T3", "about", trouble="OSError: no\nspace"),
    ]
    lines = table(reports).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert all(line.replace("\\|", "").count("|") == len(HEADER) + 1 for line in lines)
    assert "a \\| b" in lines[2]
    assert "SKIPPED: needs a tool" in lines[3]
    assert "FAILED: OSError: no space" in lines[4]


def test_nothing_run_is_no_success() -> None:
    """A battery without rows has shown nothing."""
    assert summary([], allow_missing=False)[1] == 1
