"""`w2w export`: write a LoRA for another program."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import InputError
from ._models import open_model
from ._output import json_option, report

if TYPE_CHECKING:
    from ..formats import LoRAFile


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "kind",
    required=True,
    type=click.Choice(["peft", "diffusers", "kohya"]),
    help="kohya for A1111 and ComfyUI, diffusers for load_lora_weights, peft for PeftModel.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="A .safetensors file; for peft a folder.",
)
@click.option("--alpha", type=float, help="LoRA alpha of a MODEL whose file does not state it.")
@click.option("--space", default="people", show_default=True, help="Of a model that needs its own.")
@json_option
def command(
    model: Path, kind: str, out: Path, alpha: float | None, space: str, as_json: bool
) -> None:
    """Write a model as a LoRA file for other programs.

    MODEL is a model file, a model of a dataset as DATASET/NAME, or a LoRA file or folder of any
    format. Every number, rank, alpha and the name of the base are kept.

    \b
    Example: w2w export older.safetensors --format kohya --out lora.safetensors
    """
    from ..formats import save_lora

    lora = _lora(model, kind, alpha, space)
    path = save_lora(out, lora.weights, lora.layout, lora.format, lora.metadata)
    layout = lora.layout
    facts = {"path": path, "format": kind, "rank": layout.rank, "alpha": layout.alpha}
    report(facts, as_json)


def _lora(path: Path, kind: Any, alpha: float | None, space: str) -> "LoRAFile":
    """Return a model as what a file of the wanted format shall hold."""
    from ..formats import LoRAFile, load_lora
    from ..models import is_model
    from ..space import WeightSpace

    ours = not path.exists() or is_model(path) or (path / "manifest.json").is_file()
    if not ours:  # read here rather than as a model: its header's strings and its dtype stay
        return replace(load_lora(path, alpha), format=kind)
    name, model = open_model(path)
    if alpha not in (None, model.layout.alpha):
        raise InputError(
            f"{name} states alpha {model.layout.alpha:g}, and {alpha:g} was given: expected one"
        )
    weights = model.weights
    if weights is None:
        weights = WeightSpace.from_pretrained(space).weights_of(model)
    return LoRAFile(model.layout, weights, kind)
