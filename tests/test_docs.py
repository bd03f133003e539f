"""The pages are true: names exist, links lead somewhere, the page of commands is the program's.

`python tests/test_docs.py` writes docs/commands.md.
"""

import re
from importlib import import_module
from pathlib import Path

import click
import pytest

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
    parts = [("w2w", cli.main.get_help(context))]
    for name in cli.main.list_commands(context):
        command = cli.main.get_command(context, name)
        inner = click.Context(command, info_name=name, parent=context, **width)
        parts.append((f"w2w {name}", command.get_help(inner)))
    blocks = [f"## {title}\n\n```\n{text.rstrip()}\n```\n" for title, text in parts]
    head = "# Commands\n\nWhat every command prints with `--help`. This page is generated.\n"
    return "\n".join([head, *blocks])


def test_page_of_commands_is_the_programs():
    assert COMMANDS.read_text(encoding="utf-8") == commands_page(), (
        "run python tests/test_docs.py to update docs/commands.md"
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = _LINK.findall(page.read_text(encoding="utf-8"))
    lost = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not lost


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
