"""T2: power loss at any moment. Unsynced writes are kept, lost, reordered, torn at 512 bytes.

A real client is recorded with strace: every write, sync, truncation and removal of its files, and among
them what it was told: that jobs were saved, retried, completed. The record is replayed up to a point, and
what a disk may hold after a power loss there is drawn from the changes that no sync covers. SQLite opens
each such image. The bars:

- it is whole;
- every job whose `save()` had returned is there, or has ended; also those of the application's transactions;
- a completion or retry that had been told stays; nothing is there by halves, nothing that was rolled back,
  no completion without what its handler's `job.transaction()` wrote, or the other way round.

Claims are not synced, on purpose, so a claim may be undone. A control with `durability="normal"` loses
some, or this row could not fail. Some images are given to the library, which must run everything that is
left in them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .kit import Budget, Missing, Row, needs
from .programs.t02_disk import TRACED
from .programs.t02_images import Count, Order

RECORDS: dict[str, dict[str, Any]] = {
    "one process": {"role": "alone", "checkpoint": 40, "rounds": 2, "operations": 8},
    "two processes": {"role": "adder", "checkpoint": 60, "rounds": 2, "operations": 8},
    "small pages": {"role": "alone", "checkpoint": 100, "page_size": 512, "operations": 16},
    "rare checkpoints": {"role": "adder", "checkpoint": 1000, "page_size": 1024, "operations": 16},
}
"""What is recorded; a short form has the first only."""

CONTROL = {"role": "alone", "checkpoint": 40, "operations": 8, "durability": "normal"}
LONG = 5000
"""Images from which on this is the long form."""

LIMIT = 120.0
SAMPLES = 50
PROGRAMS = Path(__file__).parent / "programs"


class Hang(Exception):
    """A program did not end in time."""


def run(budget: Budget) -> Row:
    """Record, replay, judge."""
    require_tracing()
    row = Row("T2", "power loss: unsynced writes kept, lost, reordered, torn", unit="images", hangs=0)
    long = budget.least >= LONG
    with tempfile.TemporaryDirectory(dir=memory()) as folder:
        try:
            plans = RECORDS if long else dict(list(RECORDS.items())[:1])
            records = [record(Path(folder, name.replace(" ", "-")), plan) for name, plan in plans.items()]
            control = record(Path(folder, "control"), CONTROL)
            left = budget.began + budget.seconds - time.monotonic()
            order = Order(
                folder,
                budget.least,
                seconds=max(0.0, left - 10.0 if long else left),
                most=budget.most,
                records=list(map(str, records)),
                samples=SAMPLES if long else 4,
            )
            found = check(order, min(os.cpu_count() or 1, 8) if long else 1)
            _judge(row, found, budget.least, len(records))
            few = max(200, budget.least // 20)
            _judge_control(row, check(Order(folder, few, most=few, records=[str(control)]), 1))
            _drain(row, found.samples)
        except Hang as hang:
            row.hangs = (row.hangs or 0) + 1
            row.require(f"every program ends: {hang}", False)
    return row


def require_tracing() -> None:
    """Raise `Missing` where programs cannot be traced."""
    needs("strace", "strace")
    tried = subprocess.run(["strace", "-qq", "-e", "trace=none", "true"], check=False, capture_output=True)
    if tried.returncode:
        raise Missing(f"strace may not trace here: {tried.stderr.decode(errors='replace')[:200]}")


def memory() -> str | None:
    """Return a folder in memory, where there is one: images need no disk."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def record(folder: Path, plan: dict[str, Any]) -> Path:
    """Record a client; return the folder of the record."""
    folder.mkdir()
    order = {**plan, "database": str(folder / "app.db"), "notes": str(folder / "notes")}
    strace = ["strace", "-f", "-y", "-ttt", "-xx", "-s", "1000000", "--seccomp-bpf", "-e", f"trace={TRACED}"]
    program = [sys.executable, str(PROGRAMS / "t02_client.py"), json.dumps(order)]
    with started([*strace, "-o", str(folder / "log"), *program], group=True) as process:
        output(process)
    return folder


def check(order: Order, processes: int) -> Count:
    """Check images in several processes; return the sum of what they found."""
    total = Count()
    modes: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    for count in _checked(order, processes):
        modes.update(count.modes)
        wrong.update(count.wrong)
        total.images += count.images
        total.points += count.points
        total.cases += count.cases
        total.examples |= count.examples
        total.samples += count.samples
        total.events = count.events
    total.modes, total.wrong = dict(modes), dict(wrong)
    return total


def _checked(order: Order, processes: int) -> Iterator[Count]:
    with contextlib.ExitStack() as stack:
        running = []
        for share in range(processes):
            folder = tempfile.mkdtemp(dir=order.folder)
            most = None if order.most is None else -(-order.most // processes)
            part = dataclasses.replace(
                order,
                folder=folder,
                images=-(-order.images // processes),
                most=most,
                share=share,
                shares=processes,
                samples=-(-order.samples // processes),
            )
            command = [sys.executable, "-m", f"{__package__}.programs.t02_images"]
            text = json.dumps(dataclasses.asdict(part))
            running.append(stack.enter_context(started([*command, text], cwd=PROGRAMS.parents[2])))
        for process in running:
            yield Count(**json.loads(output(process, limit=LIMIT + order.seconds)))


@contextlib.contextmanager
def started(
    command: Sequence[str], cwd: Path | None = None, *, group: bool = False
) -> Iterator[subprocess.Popen[str]]:
    """Start a program, which ends with the block, whatever it is doing; as a group, with its children."""
    process = subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=group
    )
    with process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                if group:
                    os.killpg(process.pid, signal.SIGKILL)
                else:
                    process.kill()


def output(process: subprocess.Popen[str], limit: float = LIMIT) -> str:
    """Wait for a program's end; return what it printed. Raises `Hang` after the limit."""
    try:
        printed, errors = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired as error:
        raise Hang(" ".join(map(str, process.args))[:200]) from error  # type: ignore[arg-type]
    if process.returncode:
        raise RuntimeError(f"{process.args!r} has failed with {process.returncode}: {errors[-2000:]}")
    return printed


def _judge(row: Row, found: Count, least: int, records: int) -> None:
    events = found.events
    row.notes.append(
        f"{events['events']:,} events, {events['sync']} syncs, {events['note']} notes,"
        f" {events['checkpoints']} checkpoints of {records} records"
    )
    row.require("the log is written back while clients are recorded", events["checkpoints"] >= records)
    row.trials = found.images
    row.lost = found.cases
    row.corrupt = found.wrong.get("corrupt", 0) + found.wrong.get("half", 0)
    undone = found.wrong.get("undone", 0)
    modes = ", ".join(f"{mode} {number:,}" for mode, number in found.modes.items())
    row.notes.append(f"{found.points:,} points; images by unsynced changes: {modes}")
    lost, examples = found.wrong.get("lost", 0), found.examples
    row.require(f"at least {least:,} images: {found.images:,}", found.images >= least)
    row.require(f"no acknowledged save is lost: in {lost} images, {examples.get('lost')}", not lost)
    row.require(f"no told outcome is undone: in {undone} images, {examples.get('undone')}", not undone)
    row.require(f"every image is whole: {row.corrupt} are not, {examples}", not row.corrupt)


def _judge_control(row: Row, found: Count) -> None:
    lost = found.wrong.get("lost", 0)
    bad = found.wrong.get("corrupt", 0) + found.wrong.get("half", 0)
    row.notes.append(f'control, durability="normal": {lost} of {found.images} images lost acknowledged saves')
    row.require(f"images can lose saves, as the control does: {lost} of {found.images}", lost > 0)
    row.require(f"the control's images are whole: {bad} are not; {found.examples}", not bad)


def _drain(row: Row, samples: Sequence[str]) -> None:
    """Let the library go on with some images: everything that is left in them must run."""
    order = {"role": "drain", "folders": list(samples)}
    with started([sys.executable, str(PROGRAMS / "t02_client.py"), json.dumps(order)]) as process:
        answers: list[dict[str, Any]] = json.loads(output(process))
    bad = [answer for answer in answers if answer["error"] or answer["again"] or answer["missing"]]
    stuck = [answer for answer in answers if answer["left"]]
    row.hangs = (row.hangs or 0) + len(stuck)
    row.recovery_ms = 1000 * max((answer["seconds"] for answer in answers), default=0.0)
    row.notes.append(f"{len(answers)} images drained by the library")
    row.require(f"the library runs everything in an image, nothing that had ended: {bad[:3]}", not bad)
    row.require(f"every image drains: {stuck[:3]}", not stuck)
