"""T14: the disk is full, then freed. Nothing is lost, nothing new is claimed meanwhile, all goes on.

Each program lives in a mount namespace with a small tmpfs of its own, which is gone when it ends.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from .kit import Budget, Ledger, Missing, Row, Verdict, audit, needs
from .pulse import START, STEADY, Beats, Pulse
from .t01_kill_points import crowded, disobeyed

__all__ = ["LEAST", "SECONDS", "judge", "run", "small_disk"]

SECONDS, LEAST = 12.0, 10

PROGRAM = Path(__file__).parent / "programs" / "t14_disk.py"
SIZE = "12m"
LIMIT = 320.0
"""Seconds after which a program counts as hung."""

UNDER_WAY = 0.1
"""Seconds after trouble was noticed in which claims that were under way may still be made, and start."""

STOP_LIMIT = 4.0
"""Seconds that a stop may take: 0.2 asked for, 2 of grace for writes that fail, and the rest."""

RECOVERY = 6_000.0
"""Milliseconds until everything has drained: writes are tried again every 5 seconds at the least."""

ENDED = ("succeeded", "failed", "cancelled")

Events = list[dict[str, Any]]


def small_disk() -> list[str]:
    """Return the command before FOLDER PROGRAM ... that gives a program a small disk at FOLDER."""
    needs("unshare", "util-linux")
    mount = f'mount -t tmpfs -o size={SIZE} tmpfs "$0" && exec "$@"'
    for rights in ([], ["--user", "--map-root-user"]):
        command = ["unshare", *rights, "--mount", "--propagation", "private", "sh", "-c", mount]
        folder = tempfile.mkdtemp()
        try:
            if subprocess.run([*command, folder, "true"], capture_output=True, check=False).returncode == 0:
                return command
        finally:
            shutil.rmtree(folder)
    raise Missing("needs the right to mount a tmpfs: run as root, or allow user namespaces")


def plan(number: int) -> dict[str, Any]:
    """Return the outages of one program. Every third one has a second process beside it."""
    chance = random.Random(number)
    longest = 2.5 * (number % 3 == 1) or 0.8  # beyond the lease, where another process could take jobs
    outages: list[dict[str, Any]] = [
        {
            "kind": "outage",
            "spare": chance.choice([0, 4, 16]) if number else 16,
            "seconds": chance.uniform(0.3, longest) if number > 2 else longest,
            "fails": number == 0 or chance.random() < 0.7,
            "adders": chance.choice([0, 2, 4]) if number else 2 * turn,
        }
        for turn in range(1 if longest > 1 else 2)
    ]
    orders = {"kind": "orders", "seconds": chance.uniform(0.3, 0.8), "spare": chance.choice([0, 4, 12])}
    if number % 3 == 2:
        restart = {"kind": "restart", "seconds": 0.3, "spare": chance.choice([0, 10, 20])}
        return {"peer": False, "steps": [outages[0], orders, restart]}
    return {"peer": number % 3 == 1, "steps": [*outages, {"kind": "backlog", "seconds": 0.4}, orders]}


def run(budget: Budget) -> Row:
    """Fill and free disks under running programs, three at a time."""
    disk = small_disk()
    row = Row("T14", "disk full, then freed", unit="outages", lost=0, doubles=0, corrupt=0, hangs=0)
    row.recovery_ms = 0.0
    done, figures = 0, defaultdict[str, float](float)
    with tempfile.TemporaryDirectory() as name, Pulse(Path(name)) as pulse, ThreadPoolExecutor(3) as pool:
        while budget.more(row.trials):
            for events, trouble in pool.map(lambda number: live(disk, number), range(done, done + 3)):
                judge(row, events, figures, pulse.beats())
                row.failures += trouble
            done += 3
    row.require(f"{figures['noticed']:.0f} outages hit a write of an outcome", figures["noticed"] >= done / 3)
    for what in ("lost", "doubles", "corrupt", "hangs"):
        row.require(f"{what}: {getattr(row, what)}", getattr(row, what) == 0)
    counts = {what: f"{figures[what]:.0f}" for what in ("noticed", "refused", "cancelled")}
    row.notes.append(
        "{noticed} met outcomes, {refused} calls refused, {cancelled} cancelled".format(**counts)
    )
    row.notes += [f"longest stop {figures['stop']:.1f} s"]
    return row


def live(disk: list[str], number: int) -> tuple[Events, list[str]]:
    """Run one program; return its ledger, and what was wrong with its end."""
    with tempfile.TemporaryDirectory() as folder:
        mount, ledger = Path(folder, "disk"), Path(folder, "ledger")
        mount.mkdir()
        arguments = ["main", str(mount), str(ledger), json.dumps(plan(number))]
        command = [*disk, str(mount), sys.executable, str(PROGRAM), *arguments]
        try:
            ended = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
        except subprocess.TimeoutExpired:
            return [{"what": "hang", "waiting": "the program's end"}], [f"program {number} did not end"]
        trouble = []
        if ended.returncode != 0 or ended.stderr:
            trouble = [f"program {number} ended with {ended.returncode}: {ended.stderr[-1500:]}"]
        return Ledger.read(ledger), trouble


def judge(row: Row, events: Events, figures: dict[str, float], beats: Beats = STEADY) -> Verdict:
    """Add what one program's ledger says to the row."""
    finals = [event["job"] for event in events if event.get("status") in ENDED]
    verdict = audit(events, finals)
    row.trials += sum(event["what"] == "freed" for event in events)
    row.lost = (row.lost or 0) + len(verdict.lost)
    row.doubles = (row.doubles or 0) + len(verdict.unexplained)
    row.failures += [f"run twice: {what}" for what in verdict.unexplained[:3]]
    for event in events:
        what = event["what"]
        if what == "intact":
            row.corrupt = (row.corrupt or 0) + (event["rows"] != [["ok"]])
        elif what == "hang":
            row.hangs = (row.hangs or 0) + 1
            row.failures.append(f"never came: {event['waiting']} {event.get('jobs', '')}")
        elif what == "drained":
            row.recovery_ms = max(row.recovery_ms or 0.0, event["ms"])
            took = 1000 * beats.charged(event["at"] - event["ms"] / 1000, event["at"], START)
            row.require(f"a recovery took {took:.0f} ms", took < RECOVERY)
        elif what == "stopped":
            figures["stop"] = max(figures["stop"], event["seconds"])
            took = beats.charged(event["at"] - event["seconds"], event["at"], START)
            row.require(f"a stop took {took:.1f} s", took < STOP_LIMIT)
            row.require(
                "a stop said True with unwritten outcomes", not (event["clean"] and event["unwritten"])
            )
        elif what == "wrong":
            row.failures.append(event["text"])
        elif what in ("noticed", "refused", "cancelled"):
            figures[what] += 1
    row.failures += [*started_meanwhile(events), *repeated(events)]
    row.failures += [*disobeyed(events), *crowded(events), *uncancelled(events)]
    return verdict


def uncancelled(events: Events) -> list[str]:
    """Return jobs whose end is not what was promised, or was asked for by nobody."""
    asked = {event["job"] for event in events if event["what"] == "cancelling"}
    answered = {event["job"] for event in events if event["what"] == "cancelled"}
    finals = {event["job"]: event["status"] for event in events if event["what"] == "final"}
    wrong = [
        f"{job} was cancelled and has {end}"
        for job, end in finals.items()
        if job in answered and end != "cancelled"
    ]
    return wrong + [
        f"{job} was never cancelled" for job, end in finals.items() if end == "cancelled" and job not in asked
    ]


def started_meanwhile(events: Events) -> list[str]:
    """Return the jobs that were started while outcomes could not be written."""
    found, since, process, last = [], None, None, 0
    for event in events:
        if event["what"] == "noticed":
            since, process, last = event["at"], event["pid"], event["fence"]
        elif event["what"] == "written":
            since = None
        elif event["what"] == "start" and since is not None and event["pid"] == process:
            after = event["at"] - since
            if after > UNDER_WAY and event["fence"] > last:  # what was claimed before may start whenever
                found.append(f"{event['job']} started {after:.2f} s into the outage")
    return found


def repeated(events: Events) -> list[str]:
    """Return trouble that a client said twice without a change between, or whose end it did not say.

    A peer may be told to end before its next try.
    """
    found = []
    whole = {event["pid"] for event in events if event["what"] == "intact"}
    trouble: dict[int, bool] = {}
    for event in events:
        if event["what"] == "new client":
            trouble[event["pid"]] = False
        elif event["what"] == "log" and event["event"] in ("store.failing", "store.recovered"):
            now = event["event"] == "store.failing"
            if trouble.get(event["pid"], False) is now:
                found.append(f"said again: {event['event']} {event['doing']}: {event['error']}")
            trouble[event["pid"]] = now
    left = [process for process, still in trouble.items() if still and process in whole]
    return found + ["never said to be over"] * len(left)
