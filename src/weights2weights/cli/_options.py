"""Options that several commands share, so that one thing has one name and one default."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ..bases import Base

base_option = click.option(
    "--base",
    default="people",
    show_default=True,
    metavar="BASE",
    help="Base model: the name of an embedded world, a diffusers folder or a hub id.",
)

space_option = click.option(
    "--space",
    default="people",
    show_default=True,
    help="Space: the name of an embedded world, a folder or a hub id.",
)

models_space_option = click.option(
    "--space",
    default="people",
    show_default=True,
    help="Space of any model given as coefficients: an embedded world, a folder or a hub id.",
)

model_file_option = click.option(
    "--out",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Model file to write, ending in .safetensors.",
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
