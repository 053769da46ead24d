"""The demo: one job for each Python file of a folder, its figures in a table beside the jobs."""

from __future__ import annotations

import ast
import asyncio
import os
import sys
import sysconfig
import tokenize
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import aiosqlite
import anyio.to_thread

from . import BackliteError, Client, JobStatus, QueueConfig, Retention, Task

__all__ = ["run"]

TABLE = """
CREATE TABLE IF NOT EXISTS demo_files (
    folder TEXT NOT NULL, path TEXT NOT NULL, job_id TEXT NOT NULL,
    lines INTEGER, functions INTEGER, classes INTEGER, imports INTEGER,
    PRIMARY KEY (folder, path)
)
"""
FIGURES = ("lines", "functions", "classes", "imports")
REFRESH = 0.1
"""Seconds between two looks at the progress, for the person who watches."""


class MeasureFile(Task):
    """Count what is in a Python file."""

    config: ClassVar[QueueConfig] = QueueConfig(
        "measure-file",
        max_attempts=2,
        max_crashes=10,  # a demo is there to be killed
        backoff=0.2,
        timeout=60.0,
        retention=Retention(only_failed=True),
    )
    folder: str
    path: str


def run(folder: str | None, database: str, workers: int) -> int:
    """Run the demo on a folder (None: the standard library); return the exit status."""
    root = Path(folder or sysconfig.get_path("stdlib")).resolve()
    if not root.is_dir():
        print(f"demo: {root} is not a folder", file=sys.stderr)
        return 2
    warnings.simplefilter("ignore", SyntaxWarning)  # other people's files
    warnings.simplefilter("ignore", DeprecationWarning)
    try:
        asyncio.run(_demo(root, Path(database), workers))
    except KeyboardInterrupt:
        print("\ninterrupted; run the same command again and it goes on where it was", file=sys.stderr)
        return 130
    except BackliteError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    return 0


async def _demo(root: Path, database: Path, workers: int) -> None:
    client = Client(database, workers=workers, threads=workers, lease=5.0, stop_timeout=5.0)
    async with client, aiosqlite.connect(database, isolation_level=None, timeout=30.0) as connection:
        await connection.execute(TABLE)

        @client.handler(MeasureFile)
        async def measure_file(task: MeasureFile) -> None:
            figures = await anyio.to_thread.run_sync(measure, task.path)
            await connection.execute_fetchall(
                "UPDATE demo_files SET lines = ?, functions = ?, classes = ?, imports = ?"
                " WHERE folder = ? AND path = ?",
                (*figures, task.folder, task.path),
            )

        await _add_once(client, connection, root, database)
        await _show_progress(client, connection, root)
        await _show_result(client, connection, root, database)


async def _add_once(client: Client, connection: aiosqlite.Connection, root: Path, database: Path) -> None:
    """Add the jobs and the rows that they fill in one transaction: both, or neither."""
    await connection.execute("BEGIN IMMEDIATE")
    try:
        known = await _count(connection, root)
        if known:
            print(f"going on with {known:,} files of {root} in {database}; delete it to start over")
        else:
            tasks = [MeasureFile(str(root), path) for path in _python_files(root, database)]
            ids = await client.add(*tasks).tx(connection).save()
            rows = [(task.folder, task.path, job_id) for task, job_id in zip(tasks, ids, strict=True)]
            await connection.executemany(
                "INSERT INTO demo_files (folder, path, job_id) VALUES (?, ?, ?)", rows
            )
            print(
                f"{len(tasks):,} jobs added to {database}: one for each Python file of {root},"
                " and one for a file that cannot be parsed"
            )
        await connection.execute("COMMIT")
    except BaseException:
        await connection.execute("ROLLBACK")
        raise


def _python_files(root: Path, database: Path) -> Iterator[str]:
    """Yield the folder's Python files, and one that cannot be parsed."""
    broken = database.with_suffix(".broken.py")
    broken.write_text("def this is not Python:\n", encoding="utf-8")
    yield str(broken.resolve())
    installed = {os.fspath(root / "site-packages"), os.fspath(root / "dist-packages")}
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if os.path.join(folder, name) not in installed)
        for name in sorted(files):
            path = os.path.join(folder, name)
            if name.endswith(".py") and path.isprintable() and path != str(broken.resolve()):
                yield path


def measure(path: str) -> tuple[int, int, int, int]:
    """Return a file's lines, functions, classes and imports; raises what Python says of a broken file."""
    with tokenize.open(path) as file:
        source = file.read()
    functions = classes = imports = 0
    for node in ast.walk(ast.parse(source, path)):
        functions += isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        classes += isinstance(node, ast.ClassDef)
        imports += isinstance(node, (ast.Import, ast.ImportFrom))
    return source.count("\n"), functions, classes, imports


async def _count(connection: aiosqlite.Connection, root: Path, where: str = "") -> int:
    rows = await connection.execute_fetchall(
        "SELECT count(*) FROM demo_files WHERE folder = ? " + where, (str(root),)
    )
    return int(next(iter(rows))[0])


async def _show_progress(client: Client, connection: aiosqlite.Connection, root: Path) -> None:
    """Show how far it is, until every job is over."""
    rows = await connection.execute_fetchall(
        "SELECT job_id FROM demo_files WHERE folder = ? ORDER BY rowid DESC", (str(root),)
    )
    left = [str(row[0]) for row in rows]
    total, last = len(left), -1
    while True:
        while left and await client.status(left[-1]) not in (JobStatus.PENDING, JobStatus.RUNNING):
            left.pop()
        done = await _count(connection, root, "AND lines IS NOT NULL") if left else total
        if sys.stdout.isatty():
            bar = "█" * (40 * done // max(total, 1))
            print(f"\r  {bar:<40} {done:,} of {total:,} files", end="", flush=True)
        elif 10 * done // max(total, 1) > last:
            last = 10 * done // max(total, 1)
            print(f"  {done:,} of {total:,} files done", flush=True)
        if not left:
            print()
            return
        await asyncio.sleep(REFRESH)


async def _unmeasured(connection: aiosqlite.Connection, root: Path) -> list[tuple[str, str]]:
    rows = await connection.execute_fetchall(
        "SELECT path, job_id FROM demo_files WHERE folder = ? AND lines IS NULL ORDER BY path", (str(root),)
    )
    return [(str(row[0]), str(row[1])) for row in rows]


async def _show_result(client: Client, connection: aiosqlite.Connection, root: Path, database: Path) -> None:
    rows = await connection.execute_fetchall(
        "SELECT path, lines, functions, classes, imports FROM demo_files"
        " WHERE folder = ? AND lines IS NOT NULL",
        (str(root),),
    )
    totals: dict[str, list[int]] = {}
    for path, *figures in rows:
        inside = Path(path).relative_to(root).parts if Path(path).is_relative_to(root) else (path,)
        group = f"{inside[0]}/" if len(inside) > 1 else "(top level)"
        for name in (group, "total"):
            sums = totals.setdefault(name, [0] * 5)
            totals[name] = [a + b for a, b in zip(sums, (1, *figures), strict=True)]
    total = totals.pop("total", [0] * 5)
    largest = sorted(totals.items(), key=lambda item: -item[1][1])
    rest = [sum(column) for column in zip(*(sums for _, sums in largest[12:]), strict=True)]
    table = [*largest[:12], *([("(others)", rest)] if rest else []), ("total", total)]
    print(f"{'':<24}{'files':>8}" + "".join(f"{name:>12}" for name in FIGURES))
    for name, sums in table:
        print(f"{name[:24]:<24}{sums[0]:>8,}" + "".join(f"{value:>12,}" for value in sums[1:]))
    failed = await _unmeasured(connection, root)
    if failed:
        print(f"\n{len(failed)} could not be parsed:")
    for path, job_id in failed:
        job = await client.get(job_id)
        error = job.error if job is not None else None
        print(f"  {path}\n    {error}")
