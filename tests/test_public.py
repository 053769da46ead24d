"""What is public: names, docstrings, the README, and what an import costs."""

from __future__ import annotations

import inspect
import json
import pickle
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import backlite_async

FIXED = {
    "Client", "Task", "QueueConfig", "Backoff", "Retention",
    "Job", "JobContext", "JobStatus",
    "Retry", "Snooze", "Discard",
    "BackliteError", "AlreadyRegistered", "PayloadError", "DatabaseBusy", "LeaseLost",
    "current_client", "current_job", "Rate", "AlreadyExists",
    "chain", "group", "Workflow",
}  # fmt: skip
"""What is promised to be there."""

EXTRAS = {
    "AddOperation", "Added",  # what client.add() and save() return: for annotations
    "CallNext", "Event", "Events",  # what middleware and listeners are given, what client.events() returns
    "HealthReport",  # what client.health() returns: the same
    "Queue",  # what client.queues.list() returns: the same
    "JobPage", "Count", "QueueStats", "Percentiles", "OwnerInfo", "TaskInfo",  # what services return
    "AttemptError", "LogLine",  # what a Job holds: the same
    "Rule",  # what client.schedule(rule=...) takes
    "Schedule", "ScheduleOperation", "ScheduleState",  # what client.schedule() and its like return
    "Finding",  # what client.doctor() returns
    "TaskNotFound",  # the same: of what client.tasks.build() is asked for
    "ScheduleNotFound",  # what callers do differently: there is nothing to edit
    "Clock", "SystemClock",  # Client(clock=...): for tests of applications
    "DatabaseUnavailable", "DatabaseUnusable",  # what callers do differently: try again, or give up
    "DatabaseReplaced", "TransactionTimeout",  # the same: put the file back; take less time
    "InvalidState", "InvalidTask", "InvalidType", "InvalidValue",  # programmers' mistakes
    "Chain", "Group", "Step", "WorkflowId",  # what chain(), group(), w.add() return: for annotations
    "WorkflowRun", "StepRun",  # what client.workflow() returns: the same
    "JobNotFound", "ResultNotFound",  # what callers do differently: there is nothing to wait for
}  # fmt: skip
"""What is there beside it, and why."""

README = Path(__file__).parent.parent / "README.md"


def public() -> list[tuple[str, Any]]:
    return [(name, getattr(backlite_async, name)) for name in backlite_async.__all__]


def documented() -> list[tuple[str, Any]]:
    """Return every public name, and every public method and property of the public classes."""
    found = [("backlite_async", backlite_async), *public()]
    for name, value in public():
        if inspect.isclass(value):
            for member, inner in vars(value).items():
                if not member.startswith("_") and (
                    inspect.isfunction(inner) or isinstance(inner, (property, classmethod, staticmethod))
                ):
                    found.append((f"{name}.{member}", inner))
    return found


def test_the_public_names() -> None:
    """What can be imported is what is promised and the listed extras: no more, no less."""
    assert set(backlite_async.__all__) == FIXED | EXTRAS
    assert not FIXED & EXTRAS


def test_all_is_sorted_and_without_doubles() -> None:
    """The list of names reads like an index."""
    assert backlite_async.__all__ == sorted(set(backlite_async.__all__))


def test_nothing_else_looks_public() -> None:
    """Beside the names in `__all__` there are only modules and private names."""
    others = set(vars(backlite_async)) - set(backlite_async.__all__)
    others = {name for name in others if not name.startswith(("_", "@"))}  # @: pytest's, where it rewrites
    assert others <= {"stores", "web", "cli", "testing", "telemetry", "pytest_plugin"}


def test_modules_are_private() -> None:
    """Modules have a leading underscore, but those that are meant to be imported by name."""
    package = Path(backlite_async.__file__).parent
    modules = {path.stem if path.is_file() else path.name for path in package.iterdir()}
    assert {name for name in modules if not name.startswith(("_", "."))} <= {
        "py", "stores", "web", "cli", "testing", "telemetry", "pytest_plugin",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"), documented(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_docstring(name: str, value: Any) -> None:
    """Every public name and method says in its first line, which is a sentence, what it is or does."""
    doc = value.__doc__
    assert doc, f"{name} has no docstring"
    first = inspect.cleandoc(doc).splitlines()[0]
    assert re.match(r"[A-Z`]", first), f"{name}: {first}"
    assert first.endswith("."), f"{name}: {first}"
    assert len(first) <= 110
    assert not first.startswith((name.rpartition(".")[2] + "(", "Alias for field")), f"{name}: {first}"


@pytest.mark.parametrize(
    ("name", "value"), documented(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_signature(name: str, value: Any) -> None:
    """Every argument and return value of a public function is annotated."""
    function = getattr(value, "fget", None) or getattr(value, "__func__", value)
    if not inspect.isfunction(function):
        return
    signature = inspect.signature(function)
    assert signature.return_annotation is not signature.empty, name
    for parameter in list(signature.parameters.values())[1 if "." in name else 0 :]:
        assert parameter.annotation is not parameter.empty, f"{name}({parameter.name})"


def test_errors_have_one_root() -> None:
    """Every public exception but those that steer a job derives from BackliteError."""
    errors = {name for name, value in public() if inspect.isclass(value) and issubclass(value, Exception)}
    ours = {
        name for name in errors if issubclass(getattr(backlite_async, name), backlite_async.BackliteError)
    }
    assert errors - ours == {"Retry", "Snooze", "Discard"}
    assert ours >= {"BackliteError", "AlreadyRegistered", "PayloadError", "DatabaseBusy", "LeaseLost"}


def test_the_version() -> None:
    """The package tells the version that it is installed as."""
    assert backlite_async.__version__ == version("backlite_async")


def test_the_readme_mentions_every_public_name() -> None:
    """Nothing is public that the README does not speak of."""
    words = set(re.findall(r"\w+", README.read_text(encoding="utf-8")))
    assert set(backlite_async.__all__) - words == set()


def test_the_readme_imports_only_public_names() -> None:
    """What the README imports can be imported."""
    text = README.read_text(encoding="utf-8")
    imports = re.findall(r"from backlite_async import \(?([\w\s,#.]*?)(?:\)|\n(?!\s))", text + "\n")
    names = {
        name
        for block in imports
        for line in block.splitlines()
        for name in re.findall(r"\w+", line.partition("#")[0])
    }
    assert names
    assert names <= set(backlite_async.__all__) | {"stores", "testing"}


def modules_after(*imports: str) -> set[str]:
    """Return the modules of a fresh interpreter after these imports."""
    code = f"import json, sys; import {', '.join(imports)}; print(json.dumps(sorted(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert run.stderr == ""
    return set(json.loads(run.stdout))


def packages(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


def test_the_public_names_bring_no_more_than_the_four_dependencies() -> None:
    """Using the package loads aiosqlite, msgspec, anyio, structlog and what they need, nothing else."""
    before = packages(modules_after("aiosqlite", "msgspec", "anyio", "anyio.to_thread", "structlog"))
    added = packages(modules_after("backlite_async._public")) - before - set(sys.stdlib_module_names)
    assert added == {"backlite_async"}


def test_an_import_does_not_load_what_is_not_used() -> None:
    """The web pages, the command line and the test helpers are loaded by those who use them."""
    loaded = modules_after("backlite_async._public")
    around = ("_demo", "__main__", "web", "cli", "testing", "pytest_plugin", "stores.sqlite")
    assert loaded & {f"backlite_async.{name}" for name in around} == set()


def test_the_package_alone_loads_nothing() -> None:
    """The names are loaded when the first of them is asked for: pytest imports the package in every run."""
    plain = modules_after("typing")
    assert modules_after("backlite_async") - plain == {"backlite_async"}


def test_the_names_are_there_however_they_are_asked_for() -> None:
    """Attribute, import, star import, dir() and the version, each as the first thing that is asked for."""
    for code in (
        "import backlite_async; backlite_async.Client",
        "from backlite_async import Client",
        "from backlite_async import *; Client, current_job",
        "import backlite_async; assert {'Client', '__all__', '__doc__'} <= {*dir(backlite_async)}",
        "import backlite_async; backlite_async.__version__",
        "from backlite_async import stores; stores.Store",
    ):
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert (run.returncode, run.stderr) == (0, ""), code


def test_a_name_that_is_not_there_is_an_error() -> None:
    """As of any module; whatever the name."""
    for name in ("Nothing", "_nothing", "__wrapped__", "annotations"):
        with pytest.raises(AttributeError, match=f"module 'backlite_async' has no attribute '{name}'"):
            getattr(backlite_async, name)
    with pytest.raises(ImportError, match="cannot import name 'Nothing'"):
        from backlite_async import Nothing  # type: ignore[attr-defined]  # noqa: F401


def test_public_classes_can_be_pickled() -> None:
    """They are found again by the name that they tell."""
    for name, value in public():
        if inspect.isclass(value):
            assert pickle.loads(pickle.dumps(value)) is value, name
