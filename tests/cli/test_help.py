"""Help, examples, completion, the page of documentation: made to stay true."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from backlite_async import __version__
from backlite_async.cli._app import root
from backlite_async.cli._base import Command, Settings

from .conftest import Run

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


def commands(group: click.Group = root, *names: str) -> Iterator[tuple[str, click.Command]]:
    """Yield every command that does something, by its whole name."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, *names, name)
        else:
            yield " ".join([*names, name]), command


ALL = dict(commands())
each_command = pytest.mark.parametrize("name", ALL)


def test_alone_it_prints_help(run: Run) -> None:
    """And so does each group."""
    for words in ([], ["jobs"], ["queues"], ["workflow"], ["schedules"], ["task"]):
        ran = run(*words)
        assert (ran.code, ran.err) == (0, "")
        assert "Commands:" in ran.out
    assert run("--help").code == 0
    assert run("-h").out == run("--help").out


def test_the_version(run: Run) -> None:
    """It is that of the package."""
    assert run("--version").out == f"backlite_async {__version__}\n"


@each_command
def test_help_has_options_and_examples(run: Run, name: str) -> None:
    """Every command says in a sentence what it does, has the options that stand anywhere, and an example."""
    ran = run(*name.split(), "--help")
    assert ran.code == 0
    assert re.search(r"^  [A-Z].*", ran.out, re.MULTILINE)
    for option in ("--db PATH", "--json", "Example"):
        assert option in ran.out
    for parameter in ALL[name].params:
        assert not isinstance(parameter, click.Option) or parameter.help, parameter.name


@each_command
def test_examples_can_be_said(name: str) -> None:
    """Each example is of its command, and its words are understood."""
    command = ALL[name]
    assert isinstance(command, Command)
    assert command.examples
    for example in command.examples:
        line = example.removeprefix('eval "$(').removesuffix(')"')
        words = shlex.split(line.split(" | ")[0])
        assert words[0] == "backlite"
        assert words[1 : 1 + len(name.split())] == name.split()
        command.make_context(name, words[1 + len(name.split()) :], obj=Settings())


@each_command
def test_the_page_tells_of_every_command_and_option(name: str) -> None:
    """A command has its heading, with each option of its own below it."""
    text = PAGE.read_text(encoding="utf-8")
    found = re.search(rf"^### `backlite {name}`\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"docs/cli.md has no heading for backlite {name}"
    shared = {"--db", "--json", "--verbose", "-v"}
    own = {option for parameter in ALL[name].params for option in parameter.opts if option.startswith("--")}
    if "[filters]" in found[1]:
        text = found[1] + text[text.index("## Which jobs") : text.index("## Commands")]
    else:
        text = found[1]
    for option in own - shared:
        assert re.search(rf"{option}\b", text), f"docs/cli.md does not tell of {option} of backlite {name}"


@pytest.mark.parametrize("file", ["README.md", "docs/page.md", "docs/cli.md"])
def test_commands_in_the_documentation_can_be_said(file: str) -> None:
    """Each line, and each piece of code in a sentence, that begins with `backlite`."""
    text = (PAGE.parents[1] / file).read_text(encoding="utf-8")
    found = re.findall(r"(?:^|\| )(backlite [^|#`\n]*)", text, re.MULTILINE)
    found += re.findall(r"`(backlite [^`|\[]*)", text)
    assert found
    for line in found:
        words = shlex.split(line)[1:]
        assert not {"--db", "--app"} <= {*words}, f"{line}: --app names the database, too"
        rest = words[2:] if words[:1] == ["--db"] else words
        command: click.Command | None = root
        while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
            command, rest = command.commands.get(rest[0]), rest[1:]
        assert command is not None, line
        if rest and command is not root:
            command.make_context(line, rest, obj=Settings())


def test_the_page_tells_of_no_other_commands() -> None:
    """What it has headings for is there."""
    headings = re.findall(r"^### `backlite (.*?)`$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(headings) == sorted(ALL)
    assert len(headings) == len(set(headings))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(run: Run, shell: str) -> None:
    """What a shell is to source is not empty, and asks this program."""
    ran = run("completion", shell)
    assert ran.code == 0
    assert "_BACKLITE_COMPLETE" in ran.out


@pytest.mark.parametrize(
    ("words", "expected"),
    [("backlite jobs re", "plain,retry"), ("backlite jobs list --state f", "plain,failed")],
)
def test_completion_works(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: str,
    expected: str,
) -> None:
    """Asked as a shell asks, it knows commands, and the states of a filter."""
    monkeypatch.setenv("_BACKLITE_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    with pytest.raises(SystemExit):
        run()
    assert expected in capsys.readouterr().out.splitlines()
