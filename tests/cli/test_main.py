"""The command line as a whole: its table, its errors, its exit codes, what it costs to start."""

from __future__ import annotations

import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from jimmy_manager.cli.main import ALIASES, COMMANDS, SECTIONS, main

Jimmy = Callable[..., Result]
SUBCOMMANDS = {"list_entries", "add", "rename", "remove"}  # of schema


def command(name: str) -> click.Command:
    found = main.get_command(click.Context(main), name)
    assert found is not None
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_says_of_each_command_what_the_command_says_of_itself(name: str) -> None:
    assert COMMANDS[name].summary == (command(name).help or "").partition("\n\n")[0].replace("\n", " ").strip()
    assert COMMANDS[name].section in SECTIONS
    assert command(name).name == name


def test_no_command_is_missing_from_the_table() -> None:
    folder = Path(sys.modules["jimmy_manager.cli"].__path__[0])
    decorated = re.compile(r"^@click\.(?:command|group)\(.*\n(?:@.*\n|    .*\n|\).*\n)*def (\w+)\(", re.MULTILINE)
    found = {name.rstrip("_") for path in folder.glob("*.py") for name in decorated.findall(path.read_text())}
    assert {name.replace("_", "-") for name in found - {"main", *SUBCOMMANDS}} == set(COMMANDS)


def test_an_alias_is_the_command_itself() -> None:
    assert [command(alias) for alias in ALIASES] == [command(name) for name in ALIASES.values()]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_text_can_be_read_in_eighty_columns(name: str) -> None:
    result = CliRunner().invoke(main, [name, "--help"], terminal_width=80)
    assert result.exit_code == 0
    assert max(map(len, result.output.splitlines())) <= 80


def test_help_documents_every_exit_code() -> None:
    text = CliRunner().invoke(main, ["--help"]).output
    assert all(re.search(rf"^ +{code} ", text, re.MULTILINE) for code in (0, 1, 2, 3, 4, 130))


def test_an_error_is_one_line_on_stderr(jimmy: Jimmy) -> None:
    result = jimmy("show", "ffffffff", code=1)
    assert result.stderr == "error: no run has the key 'ffffffff'\n"
    assert result.stdout == ""


def test_an_error_has_its_traceback_with_debug(store: Path) -> None:
    result = CliRunner().invoke(main, ["--debug", "show", "ffffffff", "--store", str(store)])
    assert type(result.exception).__name__ == "KeyNotFound"


def test_an_error_in_our_own_code_is_never_hidden(jimmy: Jimmy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jimmy_manager.cli.listing.read_table", lambda store: 1 / 0)
    with pytest.raises(AssertionError):
        jimmy("ls")


@pytest.mark.parametrize("arguments", [["shwo", "x"], ["show"], ["ls", "--nonsense"], ["retry"], ["pop"]])
def test_a_wrong_command_line_is_exit_code_2(jimmy: Jimmy, arguments: list[str]) -> None:
    jimmy(*arguments, code=2)


def test_a_mistyped_command_gets_a_suggestion(jimmy: Jimmy) -> None:
    assert "did you mean 'workers'?" in jimmy("worekrs", code=2).stderr


@pytest.mark.parametrize("arguments", [["ls"], ["show", "ab"], ["workers"], ["errors"], ["check"], ["schema", "list"]])
def test_a_store_that_is_not_there_is_a_clear_error_and_is_not_made(tmp_path: Path, arguments: list[str]) -> None:
    result = CliRunner().invoke(main, [*arguments, "--store", str(tmp_path / "stoer")])
    assert (result.exit_code, list(tmp_path.iterdir())) == (1, [])
    assert "stoer" in result.stderr


def test_a_reader_that_goes_away_is_no_error(store: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [sys.executable, "-m", "jimmy_manager.cli", "ls", "--store", str(store)]
    done = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, text=True)
    os.close(write_end)
    assert (done.stderr, done.returncode) == ("", 128 + signal.SIGPIPE)


def test_looking_loads_neither_torch_nor_pandas_nor_rich(store: Path) -> None:
    code = (
        "import sys; from jimmy_manager.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: print(*{n.partition('.')[0] for n in sys.modules} & {'torch', 'pandas', 'rich', 'numpy'})"
    )
    for arguments in (["ls"], ["ls", "--all", "--json"], ["errors"], ["workers"], ["why", "0", "1"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments, "--store", str(store)], capture_output=True, text=True
        )
        assert done.stdout.splitlines()[-1].strip() == "", (arguments, done.stdout)


def test_help_costs_little_more_than_click_itself() -> None:
    def seconds(*arguments: str) -> float:
        took = []
        for _ in range(5):
            started = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
            took.append(time.perf_counter() - started)
        return statistics.median(took)

    # 1.3 was measured; importing the store alone would make it 3.
    assert seconds("-m", "jimmy_manager.cli", "--help") < 2 * seconds("-c", "import click")
