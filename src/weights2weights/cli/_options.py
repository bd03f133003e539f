"""Types of arguments, and options that several commands share: one name and default for each."""

from collections.abc import Callable, Mapping
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ..bases import Base

PATH = click.Path(path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
COUNT = click.IntRange(1)
SEED = click.IntRange(0)
FRACTION = click.FloatRange(0, 1)

base_option = click.option(
    "--base",
    default="people",
    show_default=True,
    metavar="BASE",
    help="Base model: the name of an embedded world, a diffusers folder or a hub id.",
)
space_option = click.option(
    "--space", default="people", help="Space: the name of an embedded world, a folder or a hub id."
)
models_space_option = click.option(
    "--space",
    default="people",
    help="Space of any model given as coefficients: an embedded world, a folder or a hub id.",
)
model_file_option = click.option(
    "--out", required=True, type=FILE, help="Model file to write, ending in .safetensors."
)
device_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="DEVICE",
    help="cpu, cuda, cuda:1 or mps; auto picks the best available.",
)
dtype_option = click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    default="float32",
    show_default=True,
    help="Precision of the denoiser; bfloat16 is up to twice as fast where it is supported.",
)


def open_base(base: str, device: str, dtype: str) -> "Base":
    """Load the base that the options --base, --device and --dtype name.

    Raises:
        W2WError: no such base or device.
    """
    import torch

    from ..bases import load_base

    return load_base(base, device, getattr(torch, dtype))


def base_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add --base, --device and --dtype; the command gets `base`, a function that loads the base."""

    @base_option
    @device_option
    @dtype_option
    @wraps(command)
    def with_base(base: str, device: str, dtype: str, **others: Any) -> None:
        command(base=partial(open_base, base, device, dtype), **others)

    return with_base


def config_options(
    fields: Mapping[str, tuple[Any, str]],
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add options for fields of a training configuration, and how to fit it into memory.

    The command gets `changes`, the fields that were given, and `subjects_per_batch`.

    Args:
        fields: names to type and help.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def with_changes(gradient_checkpointing: bool | None, **others: Any) -> None:
            given = {name: others.pop(name) for name in fields}
            given["gradient_checkpointing"] = gradient_checkpointing
            changes = {name: value for name, value in given.items() if value is not None}
            command(changes=changes, **others)

        decorated: Callable[..., None] = click.option(
            "--subjects-per-batch",
            type=COUNT,
            help="Number of subjects per batch.  [default: as many as fit into memory]",
        )(with_changes)
        decorated = click.option(
            "--gradient-checkpointing/--no-gradient-checkpointing",
            default=None,
            help="Use less memory, at the cost of speed.",
        )(decorated)
        for name, (kind, text) in reversed(list(fields.items())):
            option = f"--{name.replace('_', '-')}"
            decorated = click.option(option, type=kind, help=text)(decorated)
        return decorated

    return decorate
