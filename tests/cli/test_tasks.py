"""Adding jobs and running handlers, with fields on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import Run


def test_a_job_is_added_where_its_code_is_not(db: Path, run: Run) -> None:
    """By the schema that its application has stored; text becomes what a field is."""
    ran = run("jobs", "add", "Send", "--to", "ada", "--copies=7")
    assert ran.code == 0
    [job] = run("jobs", "show", ran.out.strip(), "--json").data
    assert job["payload"] == {"to": "ada", "copies": 7}
    assert (job["queue"], job["status"]) == ("mail", "pending")


@pytest.mark.parametrize(
    "words",
    [
        ["--to", "ada", "--copies", "2"],
        ["-f", "to=ada", "-f", "copies=2"],
        ["--payload", '{"to": "ada", "copies": 2}'],
        ["--payload", '{"to": "ada"}', "--copies", "2"],
        ["--field", "to=ada", "--copies=2", "--json"],
    ],
)
def test_fields_are_said_in_several_ways(db: Path, run: Run, words: list[str]) -> None:
    """As options, as assignments, as JSON, mixed."""
    [added] = run("jobs", "add", "Send", *words, "--json").data
    assert added["new"] is True
    [job] = run("jobs", "show", added["id"], "--json").data
    assert job["payload"] == {"to": "ada", "copies": 2}


def test_a_field_that_is_given_several_times_is_a_list(shop: str, run: Run) -> None:
    """So is JSON; dashes stand for underscores."""
    for words in (["--copies-to", "ada", "--copies-to=bob"], ["-f", 'copies_to=["ada", "bob"]']):
        added = run("jobs", "add", "Send", "--to", "eve", *words, "--app", shop).out.strip()
        [job] = run("jobs", "show", added, "--db", "shop.db", "--json").data
        assert job["payload"]["copies_to"] == ["ada", "bob"]


def test_options_of_an_add(db: Path, run: Run) -> None:
    """When, how urgent, what is said of it."""
    words = (
        "--wait 2h --priority 5 --key c-1 --tag a --tag b --max-attempts 7 --timeout 30s --id mine".split()
    )
    [added] = run("jobs", "add", "Send", "--to", "ada", *words, "--meta", '{"from": "cli"}', "--json").data
    assert added == {"id": "mine", "new": True}
    [job] = run("jobs", "show", "mine", "--json").data
    shown = {name: job[name] for name in ("priority", "key", "tags", "max_attempts", "timeout", "meta")}
    assert shown == {
        "priority": 5,
        "key": "c-1",
        "tags": ["a", "b"],
        "max_attempts": 7,
        "timeout": 30.0,
        "meta": {"from": "cli"},
    }
    assert run("jobs", "count", "--due-after", "+119m", "--key", "c-1").out == "1\n"
    again = run("jobs", "add", "Send", "--to", "bob", "--id", "mine", "--json")
    assert again.data == [{"id": "mine", "new": False}]
    assert "nothing was added" in again.err


def test_one_of_a_kind(db: Path, run: Run) -> None:
    """A unique key keeps a second job out while the first is live."""
    [first] = run("jobs", "add", "Send", "--to", "ada", "--unique", "u", "--json").data
    [second] = run("jobs", "add", "Send", "--to", "bob", "--unique", "u", "--json").data
    assert second == {"id": first["id"], "new": False}


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["Sned", "--to", "ada"], 3, "did you mean 'Send'?"),
        (["Send", "--too", "ada"], 2, "did you mean 'to'?"),
        (["Send"], 2, "missing required field `to`"),
        (["Send", "--to", "ada", "--copies", "many"], 2, "copies"),
        (["Send", "--to"], 2, "--to needs a value"),
        (["Send", "ada"], 2, "'ada' belongs to no field"),
        (["Send", "-f", "ada"], 2, "write -f FIELD=VALUE"),
        (["Send", "--payload", "{"], 2, "--payload is no JSON"),
        (["Send", "--payload", "[]"], 2, "--payload must be an object"),
        (["Send", "--to", "a", "--meta", "7"], 2, "--meta must be an object"),
        (["Send", "--to", "a", "--wait", "1h", "--at", "+1h"], 2, "one of --wait and --at"),
        (["Send", "--to", "a", "--queue", "other"], 3, "Send"),
    ],
)
def test_what_is_wrong_is_said(db: Path, run: Run, words: list[str], code: int, said: str) -> None:
    """With the name that may have been meant; nothing is added."""
    before = run("jobs", "count").out
    ran = run("jobs", "add", *words)
    assert (ran.code, ran.out) == (code, "")
    assert said in ran.err
    assert "Traceback" not in ran.err
    assert run("jobs", "count").out == before


def test_a_new_database_is_made_for_an_application_only(shop: str, tmp_path: Path, run: Run) -> None:
    """An application says which database it is; a path that is misspelt makes none."""
    assert run("jobs", "add", "Send", "--to", "ada", "--db", "shopp.db").code == 1
    assert not (tmp_path / "shopp.db").exists()
    ran = run("jobs", "add", "Send", "--to", "ada", "--app", shop)
    assert ran.code == 0
    assert run("jobs", "count", "--db", "shop.db").out == "1\n"
    assert run("jobs", "add", "Send", "--to", "ada", "--app", shop, "--db", "shop.db").code == 2


def test_no_database_is_made_for_an_application_that_makes_none(shop: str, tmp_path: Path, run: Run) -> None:
    """Nor brought up to date: it wants that to be done on purpose."""
    module = tmp_path / f"{shop.partition(':')[0]}.py"
    module.write_text(module.read_text().replace("workers=2", "workers=2, install=False"))
    ran = run("jobs", "add", "Send", "--to", "ada", "--app", shop)
    assert (ran.code, ran.out) == (1, "")
    assert "run: backlite migrate" in ran.err
    assert not (tmp_path / "shop.db").exists()
    assert run("migrate", "--db", "shop.db").code == 0
    assert run("jobs", "add", "Send", "--to", "ada", "--app", shop).code == 0


def test_a_handler_runs_here(shop: str, tmp_path: Path, run: Run) -> None:
    """Its value is printed, nothing is stored."""
    ran = run("task", "run", "Send", "--app", shop, "--to", "ada", "--copies", "4")
    assert (ran.code, ran.out, ran.err) == (0, '{\n  "sent": 4\n}\n', "")
    assert run("task", "run", "Send", "--app", shop, "--to", "ada", "--json").data == [
        {"task": "Send", "result": {"sent": 1}}
    ]
    assert not (tmp_path / "shop.db").exists()


def test_a_handler_that_raises(shop: str, run: Run) -> None:
    """Its traceback is its programmer's; the exit status is 1."""
    ran = run("task", "run", "Send", "--app", shop, "--to", "nobody")
    assert (ran.code, ran.out) == (1, "")
    assert 'raise ValueError("no such address")' in ran.err
    assert ran.err.endswith("Error: the handler of Send raised ValueError: no such address\n")


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        ("raise SystemExit(0)", "the handler of Send raised SystemExit: 0"),
        (
            "import asyncio; raise asyncio.CancelledError('by itself')",
            "the handler of Send raised CancelledError: by itself",
        ),
        ("return object()", "the handler of Send returned what is no JSON, which no job keeps: "),
    ],
)
def test_a_handler_that_ends_oddly_has_not_succeeded(
    shop: str, tmp_path: Path, run: Run, raised: str, said: str
) -> None:
    """Nor is its exit status the command's; what it returns is not taken for an error that it raised."""
    module = tmp_path / f"{shop.partition(':')[0]}.py"
    module.write_text(module.read_text().replace("    if task.to ==", f"    {raised}\n    if task.to =="))
    ran = run("task", "run", "Send", "--app", shop, "--to", "ada")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.splitlines()[-1].startswith(f"Error: {said}")


def test_a_handler_that_adds_jobs_needs_a_worker(shop: str, tmp_path: Path, run: Run) -> None:
    """Which the error says."""
    module = tmp_path / f"{shop.partition(':')[0]}.py"
    text = module.read_text()
    module.write_text(
        text.replace("    if task.to ==", "    await client.add(Send('b')).save()\n    if task.to ==")
    )
    ran = run("task", "run", "Send", "--app", shop, "--to", "ada")
    assert (ran.code, ran.out) == (1, "")
    assert "a handler that adds jobs needs a worker" in ran.err


def test_what_cannot_be_run(shop: str, run: Run) -> None:
    """A misspelt name has a suggestion."""
    ran = run("task", "run", "Sent", "--app", shop)
    assert ran.code == 3
    assert ran.err == "Error: the application has no task type 'Sent'. Did you mean 'Send'?\n"


def test_task_types_of_an_application(shop: str, run: Run) -> None:
    """Those of its database; an application names it, too, and makes it only where something is added."""
    ran = run("task", "list", "--app", shop)
    assert (ran.code, ran.out) == (1, "")
    assert "does not exist; run: backlite migrate" in ran.err
    assert run("jobs", "add", "Send", "--to", "ada", "--app", shop).code == 0
    assert {info["name"] for info in run("task", "list", "--app", shop, "--json").data} == {"Send", "Hold"}
    assert run("task", "show", "Hold", "--app", shop, "--json").data[0]["queue"] == "held"
    ran = run("task", "show", "Hald", "--app", shop)
    assert (ran.code, ran.err) == (3, "Error: there is no task type 'Hald'. Did you mean 'Hold'?\n")
