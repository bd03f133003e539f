"""The pages are true: examples run, names exist, links resolve, the command page is current.

`python tests/test_docs.py` writes docs/commands.md.
"""

import glob
import os
import re
import shlex
import subprocess
from importlib import import_module
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from weights2weights import cli

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    page for pattern in ("*.md", "docs/*.md", "experiments/**/*.md") for page in ROOT.glob(pattern)
)
COMMANDS = ROOT / "docs" / "commands.md"

_NAME = re.compile(r"`([a-z0-9_]+(?:\.[A-Za-z0-9_]+)+)`")
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def commands_page() -> str:
    """Return docs/commands.md: what `w2w --help` and every command's --help print."""
    width = {"terminal_width": 88, "max_content_width": 88}
    context = click.Context(cli.main, info_name="w2w", **cli.main.context_settings | width)
    parts = helps(cli.main, context, **width)
    blocks = [f"## {title}\n\n```\n{text.rstrip()}\n```\n" for title, text in parts]
    head = "# Commands\n\nWhat every command prints with `--help`. This page is generated.\n"
    return "\n".join([head, *blocks])


def helps(command: click.Command, context: click.Context, **width: int) -> list[tuple[str, str]]:
    """Return the title and help of a command and of all commands in it."""
    parts = [(context.command_path, command.get_help(context))]
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            below = click.Context(inner, info_name=name, parent=context, **width)
            parts += helps(inner, below, **width)
    return parts


def test_page_of_commands_is_the_programs():
    assert COMMANDS.read_text(encoding="utf-8") == commands_page(), (
        "run python tests/test_docs.py to update docs/commands.md"
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = _LINK.findall(page.read_text(encoding="utf-8"))
    lost = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not lost


_BLOCK = re.compile(r"^(<!-- not run: [^\n]+ -->\n)?^```(python|bash)\n(.*?)^```", re.M | re.S)
EXAMPLES = [page for page in PAGES if page.parent in (ROOT, ROOT / "docs")]
EXAMPLES = [page for page in EXAMPLES if _BLOCK.search(page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("page", EXAMPLES, ids=lambda page: page.name)
def test_examples_run_as_pasted(page, tmp_path, monkeypatch):
    """A page is a session: its blocks share a working directory, variables and Python names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("W2W_CACHE", str(tmp_path / "cache"))
    names: dict[str, object] = {}
    for reason, language, code in _BLOCK.findall(page.read_text(encoding="utf-8")):
        if reason:
            continue
        if language == "python":
            exec(compile(code, str(page), "exec"), names)
        else:
            run_bash(code, monkeypatch)


def run_bash(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the lines of a block, those of `w2w` in this process, which has loaded torch already."""
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(os.path.expandvars(line), comments=True)
        if words and words[0] == "w2w":
            args = [match for word in words[1:] for match in sorted(glob.glob(word)) or [word]]
            result = CliRunner().invoke(cli.main, args, prog_name="w2w")
            assert result.exit_code == 0, f"{line}\n{result.output}{result.stderr}"
        elif len(words) == 1 and re.fullmatch(r"\w+=\S*", words[0]):
            monkeypatch.setenv(*words[0].split("=", 1))
        elif words:
            subprocess.run(["bash", "-euc", line], check=True)


def test_few_examples_are_left_out():
    marked = [m for page in EXAMPLES for m in _BLOCK.findall(page.read_text(encoding="utf-8"))]
    assert len(marked) >= 30
    assert sum(bool(reason) for reason, _, _ in marked) <= 12


def test_names_on_the_page_of_the_paper_exist():
    names = _NAME.findall((ROOT / "docs" / "paper.md").read_text(encoding="utf-8"))
    assert len(names) > 30
    for name in names:
        assert resolves(name), name


def resolves(name: str) -> bool:
    """Whether a dotted name is a module, or an attribute or field in one.

    Names below the package leave out its name; those of experiments do not.
    """
    parts = name.split(".")
    root = [] if parts[0] == "experiments" else ["weights2weights"]
    for split in range(len(parts), 0, -1):
        try:
            found = import_module(".".join([*root, *parts[:split]]))
        except ModuleNotFoundError:
            continue
        for part in parts[split:]:
            fields = getattr(found, "__dataclass_fields__", {})
            if not hasattr(found, part) and part not in fields:
                return False
            found = getattr(found, part, None)
        return True
    return False


def test_unknown_names_do_not_resolve():
    assert resolves("inversion.PRESETS") and resolves("training.DreamBoothConfig.seed")
    assert not resolves("inversion.NOTHING") and not resolves("nowhere.at_all")


if __name__ == "__main__":
    COMMANDS.write_text(commands_page(), encoding="utf-8")
