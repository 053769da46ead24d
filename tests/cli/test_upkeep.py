"""migrate, backup, prune, doctor, demo, bench."""

from __future__ import annotations

import asyncio
import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest

from backlite_async import Client

from .conftest import Ids, Run


@pytest.fixture
def sound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A computer on which nothing is wrong."""
    monkeypatch.setattr("backlite_async.stores.sqlite.inspect.is_affected", lambda _: False)
    monkeypatch.setattr("backlite_async.stores.sqlite.inspect.network_file_system", lambda _: "")


def test_migrate_makes_a_database(tmp_path: Path, run: Run) -> None:
    """From nothing to the newest version; again, there is nothing to do."""
    path = tmp_path / "new.db"
    [made] = run("migrate", "--db", path, "--json").data
    assert (made["database"], made["from"]) == (str(path), 0)
    assert made["to"] > 0
    assert run("migrate", "--db", path).out == f"{path}: schema version {made['to']}: nothing to do\n"
    assert run("jobs", "list", "--db", path).code == 0


def test_migrate_tells_from_where_to_where(tmp_path: Path, run: Run) -> None:
    """Of a file that an application has made already, too."""
    path = tmp_path / "app.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE orders (id)")
    connection.close()
    assert "schema version 0 -> " in run("migrate", "--db", path).out
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM orders").fetchone() == (0,)
    connection.close()


def test_reading_leaves_a_foreign_database_as_it_is(tmp_path: Path, run: Run) -> None:
    """Not even its journal mode is changed."""
    path = tmp_path / "foreign.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE orders (id)")
    connection.close()
    before = path.read_bytes()
    for line in ("jobs list", "jobs cancel --all --yes", "stats", "task list", "jobs add X"):
        ran = run(*line.split(), "--db", path)
        assert ran.code == 1
        assert "has no Backlite schema; run: backlite migrate --db" in ran.err
    assert path.read_bytes() == before


def test_an_older_schema_is_told_how_to_migrate(db: Path, run: Run) -> None:
    """Reading does not bring it up to date."""
    with sqlite3.connect(db) as connection:
        connection.execute("UPDATE backlite_schema SET version = version - 1")
    connection.close()
    ran = run("jobs", "list")
    assert ran.code == 1
    assert "has schema version" in ran.err
    assert f"run: backlite migrate --db {db}" in ran.err


@pytest.mark.parametrize("line", ["jobs list", "jobs cancel --all --yes", "task list", "ui --port 0"])
def test_a_newer_schema_is_told_how_to_go_on(db: Path, run: Run, line: str) -> None:
    """Nothing is made beside it, and no page is served that could show nothing."""
    with sqlite3.connect(db) as connection:
        connection.execute("UPDATE backlite_schema SET version = version + 1")
    connection.close()
    ran = run(*line.split())
    assert (ran.code, ran.out) == (1, "")
    assert "was written by a newer backlite_async" in ran.err
    assert [entry.name for entry in db.parent.iterdir()] == [db.name]


def test_a_backup_is_a_database(db: Path, tmp_path: Path, run: Run) -> None:
    """With all jobs; a file that is there is not written over."""
    copy = tmp_path / "copy.db"
    [made] = run("backup", copy, "--json").data
    assert made == {"path": str(copy), "bytes": copy.stat().st_size}
    assert run("jobs", "count", "--db", copy).out == run("jobs", "count").out
    assert run("backup", copy).code == 1


def test_prune_deletes_completed_jobs(db: Path, ids: Ids, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pending ones stay, and steps of workflows; younger ones and other states, if so said."""
    pending = run("jobs", "count", "--state", "pending").out
    assert run("prune", "--older-than", "1h", "--yes", "--json").data == [{"action": "prune", "count": 0}]
    assert run("prune", "--queue", "reports", "--yes", "--json").data == [{"action": "prune", "count": 0}]
    assert run("prune", "--older-than", "200000w", "--yes").out == "deleted: 0 jobs\n"
    ran = run("prune", "--state", "failed")
    assert ran.code == 2
    assert "say --yes" in ran.err
    assert run("prune", "--state", "failed", "--yes").out == "deleted: 1 job\n"
    assert run("jobs", "show", ids.failed).code == 3
    vacuum, vacuumed = Client.vacuum, []

    async def noted(client: Client) -> None:
        vacuumed.append(client)
        await vacuum(client)

    monkeypatch.setattr(Client, "vacuum", noted)
    ran = run("prune", "--vacuum", "--yes", "--json")
    assert "backlite workflow delete" in ran.err
    [pruned] = ran.data
    assert len(vacuumed) == 1
    assert pruned == {"action": "prune", "count": 1, "vacuumed": True}
    assert run("jobs", "show", ids.succeeded).code == 3
    assert run("workflow", "show", ids.order).code == 0
    assert run("jobs", "count", "--state", "pending").out == pending


@pytest.mark.usefixtures("sound")
def test_the_doctor_finds_nothing(tmp_path: Path, run: Run) -> None:
    """Then the exit status is 0."""
    path = tmp_path / "well.db"
    assert run("migrate", "--db", path).code == 0
    ran = run("doctor", "--db", path)
    assert (ran.code, ran.out, ran.err) == (0, "", "nothing is wrong\n")
    assert run("doctor", "--db", path, "--json").out == ""


@pytest.mark.usefixtures("sound")
def test_the_doctor_finds_something(db: Path, run: Run) -> None:
    """With what to do about it; the exit status is 1."""
    asyncio.run(_add_one(db))
    ran = run("doctor")
    assert (ran.code, ran.err) == (1, "")
    assert "queue_unhandled (reports)" in ran.out
    assert "Start a worker process" in ran.out
    [found, *_] = [found for found in run("doctor", "--json").data if found["code"] == "queue_unhandled"]
    assert found["subject"] in ("mail", "reports")
    assert found["remedy"]


async def _add_one(db: Path) -> None:
    from .conftest import Report

    async with Client(db, workers=0) as client:
        await client.add(Report()).wait(timedelta(0)).save()


@pytest.mark.usefixtures("sound")
def test_the_doctor_looks_at_databases_that_are_none(tmp_path: Path, run: Run) -> None:
    """Without making one."""
    empty = tmp_path / "empty.db"
    empty.touch()
    ran = run("doctor", "--db", empty, "--json")
    assert ran.code == 1
    assert [found["code"] for found in ran.data] == ["schema_missing"]
    assert empty.stat().st_size == 0


def test_the_demo_has_a_database_of_its_own(
    db: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not that of the environment, which is an application's; an option says another."""
    monkeypatch.chdir(tmp_path)
    code = tmp_path / "code"
    code.mkdir()
    (code / "one.py").write_text("import os\n")
    before = db.read_bytes()
    ran = run("demo", code)
    assert ran.code == 0
    assert "2 jobs added to backlite-demo.db" in ran.out
    assert db.read_bytes() == before
    assert run("--db", tmp_path / "d.db", "demo", code).code == 0
    assert (tmp_path / "d.db").exists()
    ran = run("demo", tmp_path / "nothing")
    assert ran.code == 2
    assert "nothing is not a folder" in ran.err
    assert run("demo", code, "--workers", "0").code == 2


def test_bench_measures_beside_plain_inserts(run: Run) -> None:
    """In one run, in a folder that is gone afterwards."""
    found = {figure["what"]: figure for figure in run("bench", "--jobs", "200", "--json").data}
    assert [*found] == [
        "SQLite: inserts, one a commit",
        "SQLite: inserts, 1,000 a commit",
        "add, one after the other",
        "add, 10 at once",
        "add, 1,000 a call",
        "run to the end",
    ]
    assert all(figure["a_second"] > 0 for figure in found.values())
    assert found["run to the end"]["number"] == 200 + 2 * found["add, 10 at once"]["number"]
