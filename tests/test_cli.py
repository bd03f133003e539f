"""The frame of the command line: lazy commands, exit codes, output."""

import json
import math
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from weights2weights import __version__, cli
from weights2weights.cli import _output
from weights2weights.cli._options import base_option
from weights2weights.errors import W2WError


def run(*args: str):
    return CliRunner().invoke(cli.main, list(args), prog_name="w2w")


@pytest.fixture
def verb(monkeypatch):
    """Add a command "act" that does what the test says."""

    def register(act, *options):
        def command(**arguments):
            """Act as the test says."""
            return act(**arguments) or {}

        for option in options:
            command = option(command)
        monkeypatch.setitem(cli.main.commands, "act", _output.verb("act", {})(command))

    return register


def fail_with(error: BaseException):
    def act():
        raise error

    return act


@pytest.mark.parametrize("name", cli.main.commands)
def test_every_command_explains_itself(name):
    result = run(name, "--help")
    assert result.exit_code == 0, result.output
    assert "\\b" not in result.output, "write the docstring without r, so that click sees \\b"
    assert "Example" in result.output


def test_help_lists_every_command_with_the_first_line_of_its_docstring():
    text = " ".join(run("--help").output.split())
    for name in cli.main.commands:
        command = cli.main.get_command(click.Context(cli.main), name)
        assert f"{name} {command.help.splitlines()[0]}" in text


def test_commands_are_listed_in_their_order(verb):
    verb(lambda: None)
    listed = cli.main.list_commands(click.Context(cli.main))
    assert " ".join(listed) == (
        "demo world train import pack import-published fit sample neighbours directions edit invert"
        " merge generate export evaluate study info verify act"
    )
    assert " ".join(run("--help").output.split()).endswith("act Act as the test says.")


def test_version():
    assert run("--version").output == f"weights2weights {__version__}\n"


def test_expected_failure_is_one_line_on_stderr_and_exit_1(verb):
    verb(fail_with(W2WError("a file\nof two lines:\n  expected one")))
    result = run("act")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == "Error: a file of two lines: expected one\n"


def test_names_from_files_cannot_steer_the_terminal(verb):
    verb(fail_with(W2WError("key '\x1b[2Jto_q': expected ×")))
    assert run("act").stderr == "Error: key '\ufffd[2Jto_q': expected ×\n"


def test_failure_of_the_file_system_names_the_file(verb):
    verb(lambda: Path("/nowhere/at/all").read_text())
    result = run("act")
    assert result.exit_code == 1
    assert result.stderr == "Error: /nowhere/at/all: No such file or directory\n"


def test_a_bug_keeps_its_traceback(verb):
    verb(fail_with(ZeroDivisionError("ours")))
    assert isinstance(run("act").exception, ZeroDivisionError)


def test_interrupt_exits_130(verb):
    verb(fail_with(KeyboardInterrupt()))
    result = run("act")
    assert result.exit_code == 130
    assert result.stderr.splitlines() == ["Interrupted."]


@pytest.mark.parametrize("args", [["act", "--unknown"], ["act", "too", "many"], ["nothing"]])
def test_bad_usage_exits_2(verb, args):
    verb(lambda: None)
    result = run(*args)
    assert result.exit_code == 2
    assert result.stdout == ""


def test_an_unknown_command_suggests_the_closest(verb):
    verb(lambda: None)
    assert "did you mean act?" in run("atc").stderr
    assert "see w2w --help" in run("zzz").stderr


def test_base_defaults_to_the_embedded_world(verb):
    bases = []
    verb(lambda base: bases.append(base), base_option)
    run("act")
    run("act", "--base", "folder")
    assert bases == ["people", "folder"]


FACTS = {
    "models": np.int64(64974),
    "alpha": 27.0,
    "spread": torch.tensor([0.5, 1.0]),
    "loss": math.nan,
    "path": Path("a/b"),
    "resumed": True,
    "space": None,
    "captured": {"variance": np.float32(0.5), "names": ["Bald", "Young"]},
}


def test_json_is_one_object_of_plain_values(verb):
    verb(lambda: FACTS)
    assert json.loads(run("act", "--json").stdout) == {
        "models": 64974,
        "alpha": 27.0,
        "spread": [0.5, 1.0],
        "loss": None,
        "path": "a/b",
        "resumed": True,
        "space": None,
        "captured": {"variance": 0.5, "names": ["Bald", "Young"]},
    }


def test_facts_for_a_person_are_aligned_lines(verb):
    verb(lambda: FACTS)
    assert run("act").stdout.splitlines() == [
        "models    64,974",
        "alpha     27",
        "spread    0.5, 1",
        "loss      -",
        "path      a/b",
        "resumed   yes",
        "space     -",
        "captured",
        "  variance  0.5",
        "  names     Bald, Young",
    ]


def test_facts_from_files_cannot_steer_the_terminal(verb):
    verb(lambda: {"na\x9bme": "\x1b[2J"})
    assert run("act").stdout == "na\ufffdme  \ufffd[2J\n"
    assert run("act", "--json").stdout == '{"na\\u009bme": "\\u001b[2J"}\n'


def test_runs_as_a_module():
    result = subprocess.run(
        [sys.executable, "-m", "weights2weights", "--version"], capture_output=True, text=True
    )
    assert result.returncode == 0
    assert result.stdout == f"weights2weights {__version__}\n"


@pytest.mark.parametrize("name", cli.main.commands)
def test_help_of_options_does_not_begin_in_mid_sentence(name):
    options = cli.main.get_command(click.Context(cli.main), name).params
    texts = [option.help or "" for option in options if isinstance(option, click.Option)]
    assert not [text for text in texts if text.startswith(("Of ", "For ", "In "))]


@pytest.mark.parametrize(
    ("command", "option", "home"),
    [
        ("train", "preset", "training.PRESETS"),
        ("invert", "preset", "inversion.PRESETS"),
        ("export", "kind", "formats.FORMATS"),
        ("edit", "method", "directions.METHODS"),
        ("directions", "method", "directions.METHODS"),
    ],
)
def test_choices_are_those_of_the_library(command, option, home):
    module, name = home.split(".")
    known = getattr(import_module(f"weights2weights.{module}"), name)
    found = cli.main.get_command(click.Context(cli.main), command)
    choices = next(each.type.choices for each in found.params if each.name == option)
    assert set(choices) == set(known)
