"""Help of every command: quick, complete, and with an example that parses."""

import shlex
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from pf_stream.cli import ALONE, NOUNS, _build

# typer brings its own click, whose types it does not publish.
COMMAND: Any = typer.main.get_command(_build())


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if not hasattr(command, "commands"):
        yield path
        return
    for name, sub in command.commands.items():
        yield from commands(sub, (*path, name))


ALL = list(commands(COMMAND))


def find(path: tuple[str, ...]) -> Any:
    command = COMMAND
    for name in path:
        command = command.commands[name]
    return command


def examples(path: tuple[str, ...]) -> Iterator[list[str]]:
    """Arguments of each call of the command in its examples."""
    for line in find(path).epilog.split("\n\n")[1:]:
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&<>();")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, "|"]:
            if not set(word) & set("|&<>();$") or (words[:1] == ["pf"] and not set(word) <= set("|&<>();$")):
                words.append(word)
                continue
            if words[: len(path) + 1] == ["pf", *path]:
                yield words[len(path) + 1 :]
            words = []


def test_every_noun_has_a_verb() -> None:
    assert {path[0] for path in ALL if len(path) == 2} == set(NOUNS)
    assert [path for path in ALL if len(path) != 2] == [(name,) for name in ALONE]


@pytest.mark.slow
def test_each_fits_sixty_columns(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("NO_COLOR", "1")
    for path in ALL:
        with pytest.raises(SystemExit) as ended:
            COMMAND.main([*path, "--help"], "pf")
        shown = capsys.readouterr()
        assert (ended.value.code, shown.err) == (0, ""), path
        assert max(map(len, shown.out.splitlines())) <= 60, path


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_each_says_what_it_does_with_an_example_that_parses(path: tuple[str, ...]) -> None:
    command = find(path)
    assert (command.help or "").strip()
    unexplained = [p.name for p in command.params if not getattr(p, "help", None)]
    assert not unexplained
    assert command.epilog.startswith("Examples:\n\n")
    calls = list(examples(path))
    assert calls, "none of itself"
    for arguments in calls:
        command.make_context(" ".join(path), arguments)


@pytest.mark.slow
def test_help_loads_no_kafka_client() -> None:
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from pf_stream.cli import _build\n"
        "assert CliRunner().invoke(_build(), ['--help']).exit_code == 0\n"
        "heavy = {'aiokafka', 'biscuit_auth', 'confluent_kafka', 'faust', 'ruamel', 'structlog'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_misspelt_noun_suggests_the_near_one() -> None:
    done = CliRunner().invoke(_build(), ["topolgy", "show"])
    assert done.exit_code == 2
    assert "Did you mean 'topology'?" in done.stderr
