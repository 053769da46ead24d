"""Where click, or what the page needs, is not installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BLOCKED = """
import sys


class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)


sys.meta_path.insert(0, Missing())
"""


def without(names: set[str], code: str) -> subprocess.CompletedProcess[str]:
    """Run code where these modules cannot be imported."""
    return subprocess.run(
        [sys.executable, "-P", "-c", BLOCKED.format(names=names) + code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "BACKLITE_DB": ""},
    )


def test_without_click() -> None:
    """One line says what to install, with exit status 2; the import is no error."""
    ran = without({"click"}, "from backlite_async.cli import main\nsys.exit(main(['jobs', 'list']))")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == "backlite: the command line needs click: pip install 'backlite_async[cli]'\n"


def test_without_click_as_a_module() -> None:
    """`python -m backlite_async` says the same."""
    ran = without({"click"}, "import runpy\nrunpy.run_module('backlite_async', run_name='__main__')")
    assert ran.returncode == 2
    assert ran.stderr.count("\n") == 1


def test_a_click_that_is_broken_is_no_missing_one() -> None:
    """Its error is told as it is."""
    code = """
class Broken(Missing):
    def find_spec(self, name, path=None, target=None):
        if name == "click":
            raise ModuleNotFoundError("No module named 'under_it'", name="under_it")


sys.meta_path.insert(0, Broken())
from backlite_async.cli import main

main(["--version"])
"""
    ran = without(set(), code)
    assert ran.returncode == 1
    assert ran.stderr.endswith("ModuleNotFoundError: No module named 'under_it'\n")


def test_importing_the_command_line_loads_nothing() -> None:
    """Neither click nor rich, nor the library."""
    code = "import backlite_async.cli; print({'click', 'rich', 'backlite_async._client'} & {*sys.modules})"
    ran = without(set(), code)
    assert (ran.stdout, ran.stderr) == ("set()\n", "")


@pytest.mark.parametrize("name", ["uvicorn", "starlette"])
def test_without_the_page(tmp_path: Path, name: str) -> None:
    """`ui` says in one line what to install."""
    path = tmp_path / "app.db"
    path.touch()
    code = f"from backlite_async.cli import main\nsys.exit(main(['ui', '--db', {str(path)!r}]))"
    ran = without({name}, code)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == "Error: the page needs its extra: pip install 'backlite_async[web]'\n"
