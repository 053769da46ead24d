"""The architecture: imports run downwards only, decisions are pure, SQL lives in .sql files.

around      __main__  cli  _demo  testing  web         imported by nothing
effects     _client  _add  _dispatcher  _worker  ...   see stores only as backlite_async.stores
decisions   _codec  _backoff  _outcome  _plan          no I/O, no clock, no randomness
data        _task  _job  _config  _errors  _clock
stores/     protocol, memory, sqlite                   import data only
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

import backlite_async

PACKAGE = Path(backlite_async.__file__).parent
ROOT = "backlite_async"

LAYERS = {
    "data": "_errors _clock _config _task _job _history _query _stats _graph _recurring _mermaid _carry"
    " _formats _inspection",
    "decisions": "_ahead _codec _backoff _fingerprint _options _plan _outcome _suspects"
    " _declare _filters _letters _zones _cron _rule _recurrence _said _schedule _due _reconcile _steps"
    " _workflow _schema _build _doctor",
    "effects": "_log _context _registry _add _health _completions _leases _maintenance _stop _worker"
    " _deadlines _failure _feed _heed _lapses _queues _reports _sums _solo _starts _takeover _transaction"
    " _wall _threads _dispatcher _life _client"
    " _notes _waits _results _events _middleware _direct _bulk _jobs _owners _catalogue"
    " _schedules _declarations _ticker _inside _workflows _maker _telemetry _checkup",
    "root": "_public",
    "around": "__main__ _bench _demo",
}

BELOW = {
    "data": {"data"},
    "decisions": {"data", "decisions"},
    "stores": {"data", "stores"},
    "effects": {"data", "decisions", "effects", "stores"},
    "root": {"data", "decisions", "effects", "stores", "root"},
    "around": {"data", "decisions", "effects", "stores", "root", "around"},
}

PURE = set(
    "__future__ base64 bisect calendar collections collections.abc dataclasses datetime functools hashlib"
    " inspect itertools math re types typing weakref zoneinfo msgspec cronsim dateutil dateutil.rrule".split()
)
"""What decisions may import: nothing that reads a clock, throws dice, or touches the world."""

DATA_ALSO = {
    "_clock": {"random", "time", "uuid"},  # the one place that reads clocks and takes random bits
    "_job": {"enum"},
    "_recurring": {"enum"},
    "_schema": {"copy", "decimal", "keyword", "uuid"},  # of uuid the type
    "_build": {"difflib"},
}


LOGGING = (f"{ROOT}._log", f"{ROOT}._failure")
"""What is around may use besides the public names: all log lines are declared in one place."""


class Import(NamedTuple):
    """One imported module: absolute name, where, and whether for type checkers or inside a function only."""

    name: str
    line: int
    typing_only: bool
    top_level: bool


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


PATHS = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in PATHS.items()}

each_module = pytest.mark.parametrize("module", PATHS)


def layer(module: str) -> str:
    """Return the layer of a module; a KeyError means: put it into the table above."""
    if module == ROOT:
        return "root"
    first = module.split(".")[1]
    if first == "stores":
        return "stores"
    if first in ("web", "cli", "testing", "telemetry", "pytest_plugin"):
        return "around"
    return {name: layer for layer, names in LAYERS.items() for name in names.split()}[first]


def walk(
    tree: ast.AST, *, typing_only: bool = False, top_level: bool = True
) -> Iterator[tuple[ast.AST, bool, bool]]:
    """Walk over a tree; tell of each node whether it is for type checkers, and not in a function."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            yield from ((inner, True, top_level) for part in node.body for inner in ast.walk(part))
            for part in node.orelse:
                yield part, typing_only, top_level
                yield from walk(part, typing_only=typing_only, top_level=top_level)
            continue
        inside = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        yield node, typing_only, top_level
        yield from walk(node, typing_only=typing_only, top_level=top_level and not inside)


def imports_of(module: str, tree: ast.AST, *, is_package: bool) -> list[Import]:
    """Return what a module imports, as absolute names; `from . import x` is x where that is a module."""
    found = []
    for node, typing_only, top_level in walk(tree):
        if isinstance(node, ast.Import):
            found += [Import(alias.name, node.lineno, typing_only, top_level) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                parts = parts[: len(parts) - node.level + is_package]
                base = ".".join([*parts, base] if base else parts)
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                found.append(Import(inner if inner in PATHS else base, node.lineno, typing_only, top_level))
    return found


IMPORTS = {
    name: imports_of(name, TREES[name], is_package=PATHS[name].name == "__init__.py") for name in PATHS
}


def own(module: str) -> list[Import]:
    return [found for found in IMPORTS[module] if found.name.split(".")[0] == ROOT]


def foreign(module: str, *, typing_only: bool = False) -> set[str]:
    return {
        found.name
        for found in IMPORTS[module]
        if found.name.split(".")[0] != ROOT and (typing_only or not found.typing_only)
    }


def in_layer(*names: str) -> list[str]:
    return [module for module in PATHS if layer(module) in names]


# -- direction ------------------------------------------------------------------------------------


@each_module
def test_every_module_has_a_layer(module: str) -> None:
    """A new module is put into the table, which is the architecture."""
    assert layer(module) in BELOW


def test_the_table_has_no_modules_that_are_gone() -> None:
    """What the table names exists."""
    names = {f"{ROOT}.{name}" for names in LAYERS.values() for name in names.split()}
    assert names <= set(PATHS)


@each_module
def test_imports_run_downwards_only(module: str) -> None:
    """No module imports from a layer above its own, not even for type checkers."""
    wrong = [
        (found.name, found.line) for found in own(module) if layer(found.name) not in BELOW[layer(module)]
    ]
    assert wrong == []


@pytest.mark.parametrize("module", in_layer("effects", "root"))
def test_effects_see_stores_by_their_front_door(module: str) -> None:
    """Effects know the protocol, not the SQLite store, nor the memory store's module."""
    seen = {found.name for found in own(module) if layer(found.name) == "stores"}
    assert seen <= {f"{ROOT}.stores"}


@pytest.mark.parametrize("module", in_layer("stores"))
def test_only_the_factory_picks_the_sqlite_store(module: str) -> None:
    """Outside of stores.sqlite nothing imports it but the factory, and that only when it is asked to."""
    sqlite = f"{ROOT}.stores.sqlite"
    if module.startswith(sqlite):
        return
    seen = [found for found in own(module) if found.name.startswith(sqlite)]
    if module == f"{ROOT}.stores":
        assert [found.name for found in seen] == [f"{sqlite}.store"]
        assert not seen[0].top_level
    else:
        assert seen == []


@pytest.mark.parametrize("module", in_layer("around"))
def test_what_is_around_uses_the_public_names(module: str) -> None:
    """The demo is an application like any other: it imports the package, not its private modules."""
    if module.startswith(f"{ROOT}.testing"):
        return  # which looks behind them, for those who do not
    for found in own(module):
        assert found.name in (ROOT, f"{ROOT}._demo", *LOGGING, *in_layer("around"))


def test_no_module_imports_in_a_circle() -> None:
    """At run time the modules can be put into an order, so that each is understood by those before it."""
    graph = {
        module: {found.name for found in own(module) if found.top_level and not found.typing_only} - {module}
        for module in PATHS
    }
    assert set(TopologicalSorter(graph).static_order()) == set(PATHS)


# -- purity ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", in_layer("decisions", "data"))
def test_decisions_and_data_import_nothing_impure(module: str) -> None:
    """No I/O, no clock, no randomness, no event loop: what they need are arguments."""
    allowed = PURE | DATA_ALSO.get(module.rpartition(".")[2], set())
    assert foreign(module, typing_only=True) - allowed == set()


@pytest.mark.parametrize("module", in_layer("decisions", "data"))
def test_decisions_and_data_ask_for_no_time_and_touch_nothing(module: str) -> None:
    """Nothing calls `datetime.now()` and its like, opens, or prints."""
    if module == f"{ROOT}._clock":
        return  # SystemClock is what it is for
    called = set()
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Call):
            function = node.func
            called.add(function.attr if isinstance(function, ast.Attribute) else ast.unparse(function))
    assert (
        called & {"now", "utcnow", "today", "open", "print", "input", "time", "monotonic", "sleep"} == set()
    )


@pytest.mark.parametrize("module", in_layer("decisions"))
def test_decisions_are_synchronous(module: str) -> None:
    """A decision does not wait."""
    waits = (ast.AsyncFunctionDef, ast.Await, ast.AsyncWith, ast.AsyncFor)
    assert not [node for node in ast.walk(TREES[module]) if isinstance(node, waits)]


@pytest.mark.parametrize("module", in_layer("stores"))
def test_stores_read_no_clock_and_throw_no_dice(module: str) -> None:
    """Times are arguments. Only patience, which is measured, looks at a clock; a name is dice."""
    name = module.rpartition(".")[2]
    allowed = {"database": {"time"}, "locks": {"time"}, "blocks": {"time"}, "backup": {"secrets"}}
    assert foreign(module) & {"time", "random", "secrets", "uuid", "datetime"} <= allowed.get(name, set())


# -- who knows what -------------------------------------------------------------------------------


def users_of(name: str, *, typing_only: bool) -> set[str]:
    return {
        module.removeprefix(f"{ROOT}.")
        for module in PATHS
        for found in IMPORTS[module]
        if found.name.split(".")[0] == name and found.typing_only is typing_only
    }


def test_who_knows_aiosqlite() -> None:
    """One module of connections; others name the type of a user's; the demo uses it."""
    assert users_of("aiosqlite", typing_only=False) == {"stores.sqlite.connection", "_demo"}
    assert users_of("aiosqlite", typing_only=True) == {
        "_add",
        "_context",
        "_direct",
        "_transaction",
        "stores.sqlite.blocks",
        "stores.sqlite.callers",
        "stores.sqlite.unique",
    }


def test_who_knows_sqlite3() -> None:
    """Only the SQLite store, and what it is measured beside."""
    users = users_of("sqlite3", typing_only=False) | users_of("sqlite3", typing_only=True)
    assert {user for user in users if not user.startswith("stores.sqlite")} == {"_bench"}


def test_who_knows_structlog_and_logging() -> None:
    """Only the module that declares the events, and the one that sends them to stderr."""
    for name in ("structlog", "logging"):
        users = users_of(name, typing_only=False) | users_of(name, typing_only=True)
        assert users == {"_log", "cli._logs"}


@pytest.mark.parametrize("module", in_layer("data", "decisions", "effects", "stores", "root"))
def test_third_party_modules_are_the_four_dependencies(module: str) -> None:
    """Nothing is imported that the package does not depend on."""
    names = {name.split(".")[0] for name in foreign(module, typing_only=True)}
    known = {"aiosqlite", "anyio", "msgspec", "structlog"} | {"cronsim", "dateutil"}  # and those of an extra
    assert names - set(sys.stdlib_module_names) <= known


# -- SQL ------------------------------------------------------------------------------------------

SQL = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|REPLACE|WITH|CREATE|ALTER|DROP)\s")

STATEMENTS_IN_CODE = {
    # About no table, but whether a caller's connection has done what it was doing: beside the code
    # that explains it.
    "stores.sqlite.connection": ["SELECT 1 WHERE 0"],
}


def statements(tree: ast.AST) -> list[str]:
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and SQL.match(node.value)
    ]


@pytest.mark.parametrize("module", in_layer("data", "decisions", "effects", "stores", "root"))
def test_sql_lives_in_sql_files(module: str) -> None:
    """No statement is written in Python, nor formatted together there, but for the known exception."""
    assert statements(TREES[module]) == STATEMENTS_IN_CODE.get(module.removeprefix(f"{ROOT}."), [])


def test_there_are_sql_files() -> None:
    """The statements are where they are said to be, and are packaged with the code."""
    assert (PACKAGE / "stores" / "sqlite" / "sql" / "queries.sql").is_file()
    assert list((PACKAGE / "stores" / "sqlite" / "sql" / "migrations").glob("*.sql"))


# -- the checks themselves ------------------------------------------------------------------------


def test_the_checks_see_every_form_of_import() -> None:
    """Relative, nested, guarded and aliased imports are all seen for what they are."""
    tree = ast.parse(
        "from typing import TYPE_CHECKING\n"
        "import os.path as p, time\n"
        "from . import _log as log\n"
        "from .stores import Store\n"
        "from .stores.memory import MemoryStore\n"
        "if TYPE_CHECKING:\n    from ._client import Client\n"
        "def f():\n    import random\n"
        "try:\n    import uvloop\nexcept ImportError: pass\n"
    )
    found = imports_of(f"{ROOT}._probe", tree, is_package=False)
    assert [(item.name.removeprefix(f"{ROOT}."), item.typing_only, item.top_level) for item in found] == [
        ("typing", False, True),
        ("os.path", False, True),
        ("time", False, True),
        ("_log", False, True),
        ("stores", False, True),
        ("stores.memory", False, True),
        ("_client", True, True),
        ("random", False, False),
        ("uvloop", False, True),
    ]
    inside = ast.parse("from .._errors import X\nfrom . import Store\nfrom .memory import M\n")
    found = imports_of(f"{ROOT}.stores", inside, is_package=True)
    assert [item.name for item in found] == [f"{ROOT}._errors", f"{ROOT}.stores", f"{ROOT}.stores.memory"]


def test_the_checks_see_statements() -> None:
    """Plain, indented and formatted statements are seen, prose is not."""
    tree = ast.parse('"""Delete nothing."""\na = "\\n  SELECT 1"\nb = f"UPDATE {a} SET x"\nc = "SELECTED"\n')
    assert len(statements(tree)) == 2
