"""Types of arguments, and options that several commands share: one name and default for each."""

from collections.abc import Callable
from functools import partial, reduce, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click import option

if TYPE_CHECKING:
    from ..bases import Base

PATH = click.Path(path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
COUNT = click.IntRange(1)
SEED = click.IntRange(0)

base_option = option(
    "--base",
    default="people",
    metavar="BASE",
    help="Base model: the name of an embedded world, a diffusers folder or a hub id.",
)
space_option = option(
    "--space", default="people", help="Space: the name of an embedded world, a folder or a hub id."
)
models_space_option = option(
    "--space",
    default="people",
    help="Space of any model given as coefficients: an embedded world, a folder or a hub id.",
)
model_file_option = option(
    "--out", required=True, type=FILE, help="Model file to write, ending in .safetensors."
)
device_option = option(
    "--device",
    default="auto",
    metavar="DEVICE",
    help="cpu, cuda, cuda:1 or mps; auto picks the best available.",
)
dtype_option = option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    default="float32",
    help="Precision of the denoiser; bfloat16 is up to twice as fast where it is supported.",
)
size_option = option(
    "--size",
    type=COUNT,
    help="Side of the images in pixels.  [default: what the base was made for]",
)
offload_option = option(
    "--offload",
    is_flag=True,
    help="Keep the VAE and the text encoders on the CPU while they do not work.",
)


def open_base(
    base: str, device: str, dtype: str, size: int | None = None, offload: bool = False
) -> "Base":
    """Load the base that the options of `base_options` name.

    Raises:
        W2WError: no such base or device.
    """
    import torch

    from ..bases import load_base

    return load_base(base, device, getattr(torch, dtype), size, offload)


def base_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --base and how to load it; the command gets `base`, a function that loads the base."""

    @base_option
    @device_option
    @dtype_option
    @size_option
    @offload_option
    @wraps(command)
    def with_base(
        base: str, device: str, dtype: str, size: int | None, offload: bool, **others: Any
    ) -> Any:
        return command(base=partial(open_base, base, device, dtype, size, offload), **others)

    return with_base


def several(*options: Callable[..., Any]) -> Callable[..., Any]:
    """Join options into one decorator, listed in this order."""
    return lambda command: reduce(lambda inner, add: add(inner), reversed(options), command)


memory_options = several(
    option(
        "--subjects-per-batch",
        type=COUNT,
        help="Number of subjects per batch.  [default: as many as fit into memory]",
    ),
    option(
        "--gradient-checkpointing/--no-gradient-checkpointing",
        default=None,
        help="Use less memory, at the cost of speed.",
    ),
)


def labels_option(text: str) -> Callable[..., Any]:
    """Add --labels; the command gets the table in the file."""

    def read(_: click.Context, __: click.Parameter, path: Path | None) -> Any:
        from ..labels import read_labels

        return None if path is None else read_labels(path)

    return option("--labels", type=FILE, callback=read, help=text)


def given(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that were given, so that the library's defaults apply to the others."""
    return {name: value for name, value in options.items() if value is not None}
