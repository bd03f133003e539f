"""The program `w2w`: one command per stage, which parses, calls the library and prints.

A command imports the library inside its function, so that `w2w --help`, which reads the docstrings
of all commands, imports nothing heavy.
"""

import difflib

import click

from .. import __version__
from ..errors import W2WError
from . import (  # noqa: F401, each adds some commands
    dataset,
    demo,
    edit,
    info,
    invert,
    model,
    space,
    study,
    train,
)
from ._output import COMMANDS, one_line

_ORDER = (  # in which data flows
    *("demo", "world", "train", "import", "pack", "import-published", "fit", "sample"),
    *("neighbours", "directions", "edit", "invert", "merge", "generate", "export", "studio"),
    *("evaluate", "study", "info", "verify"),
)
_RESUMABLE = ("train", "import", "import-published", "pack", "demo", "world")


class Program(click.Group):
    """A group of commands that reports their failures.

    An expected failure is one line on stderr and exit code 1, bad usage is 2, an interrupt is 130.
    Anything else is a bug and keeps its traceback.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands in their order."""
        return sorted(self.commands, key=lambda name: (*_ORDER, name).index(name))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; for an unknown one, suggest the closest."""
        name = args[0]
        if name not in self.commands and not name.startswith("-"):
            near = difflib.get_close_matches(name, self.commands, n=1)
            hint = f"did you mean {near[0]}?" if near else "see w2w --help for the list."
            ctx.fail(f"No such command {name!r}; {hint}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        """Run a command; turn expected failures into a line on stderr and an exit code."""
        try:
            return super().invoke(ctx)
        except W2WError as error:
            raise click.ClickException(one_line(error)) from error
        except BrokenPipeError:
            raise  # the reader of our output has left; click ends the program quietly
        except OSError as error:
            if error.filename is None:
                raise
            raise click.ClickException(one_line(f"{error.filename}: {error.strerror}")) from error
        except KeyboardInterrupt:
            kept = "; what was written so far is kept" * (ctx.invoked_subcommand in _RESUMABLE)
            click.echo(f"Interrupted{kept}.", err=True)
            raise SystemExit(130) from None


@click.group(
    cls=Program,
    commands=COMMANDS,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        "show_default": True,
    },
)
@click.version_option(__version__, message="weights2weights %(version)s")
def main() -> None:
    """Work in the weight space of personalised diffusion models.

    Images of a subject become a LoRA, many LoRAs a dataset, and the dataset a space. Points of the
    space are sampled, edited, found from a single photo, drawn as images and exported.

    BASE and SPACE default to the ones embedded in the package, which need no download. Every
    command has its own --help.
    """
