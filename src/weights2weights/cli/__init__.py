"""The command `w2w`: one verb per stage, a thin page that parses, calls the library and prints.

A verb lives in a module of its own, which is imported when the verb is called and not before. The
table below holds its module and its line of help, so that `w2w --help` imports nothing heavy. To
add a verb, write `cli/<module>.py` with a click command named `command` whose docstring begins with
that line, import the library inside the function, and add one row here.

Failures are told in one place, `Program.invoke`: an expected failure is one line on stderr and exit
code 1, bad usage is 2, an interrupt is 130. Anything else is a bug and keeps its traceback.
"""

import difflib
from importlib import import_module

import click

from .. import __version__
from ..errors import W2WError
from ._output import one_line

# verb → (module, line of help), in the order in which data flows, as `w2w --help` lists them.
VERBS: dict[str, tuple[str, str]] = {
    "demo": (
        "demo",
        "Show the whole way, from images of new people to edited models and a LoRA file.",
    ),
    "world": ("world", "Draw subjects of a world: a folder of images for each, and labels.csv."),
    "train": ("train", "Learn a LoRA for every subject folder."),
    "import": ("import_", "Put LoRA files of others into a dataset."),
    "import-published": ("import_published", "Bring the authors' published files into a space."),
    "fit": ("fit", "Fit a space to a dataset of models."),
    "sample": ("sample", "Draw new models from a space."),
    "neighbours": ("neighbours", "Find the training models nearest to a model."),
    "directions": (
        "directions",
        "List the attributes that a space can change, and how well it knows them.",
    ),
    "edit": ("edit", "Change attributes of a model, such as age or a beard."),
    "invert": ("invert", "Find the model of the subject of a photo in a space."),
    "merge": ("merge", "Add a LoRA of another kind, such as a style, to a model."),
    "generate": (
        "generate",
        "Draw images from models: rows are models, columns prompts and seeds.",
    ),
    "export": ("export", "Write a model as a LoRA file for other programs."),
    "evaluate": ("evaluate", "Measure the paper's tables and figures on a space."),
    "info": ("info", "Say what a file or folder holds."),
    "verify": ("verify", "Check every checksum, shape and number of a file or folder."),
}


class Program(click.Group):
    """A group whose commands are the table above, loaded when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order of the table."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of a verb and give its command, or None for an unknown verb."""
        if cmd_name not in VERBS:
            return None
        module, _ = VERBS[cmd_name]
        return import_module(f".{module}", __name__).command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of verbs from the table alone; no verb's module is imported."""
        if VERBS:
            with formatter.section("Verbs"):
                formatter.write_dl([(name, line) for name, (_, line) in VERBS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb; for an unknown one, name the nearest that there is."""
        verb = args[0]
        if verb not in VERBS and not verb.startswith("-"):
            near = difflib.get_close_matches(verb, VERBS, n=1)
            hint = f"did you mean {near[0]}?" if near else "see w2w --help for the list."
            ctx.fail(f"No such verb {verb!r}; {hint}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        """Run a verb and turn what may go wrong into a line on stderr and an exit code."""
        try:
            return super().invoke(ctx)
        except W2WError as error:
            raise click.ClickException(one_line(error)) from error
        except BrokenPipeError:
            raise  # the reader of our output has left; click ends the program without a word
        except OSError as error:
            if error.filename is None:
                raise
            raise click.ClickException(one_line(f"{error.filename}: {error.strerror}")) from error
        except KeyboardInterrupt:
            click.echo("Interrupted; what was written so far is kept.", err=True)
            raise SystemExit(130) from None


@click.command(
    cls=Program,
    subcommand_metavar="VERB [ARGS]...",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, message="weights2weights %(version)s")
def main() -> None:
    """Work in the space of personalised diffusion models.

    Images of a subject become a LoRA, many LoRAs a dataset, the dataset a space; points of the
    space are sampled, edited, found from one photo, drawn and exported.

    Where a verb takes --base or a space, the default is the one embedded in the package, which
    needs no download. Every verb has its own --help.
    """
