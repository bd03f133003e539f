"""`w2w export`: write a LoRA file for another program."""

from pathlib import Path
from typing import Any

import click

from ._options import PATH, models_space_option
from ._output import json_option, report


@click.command()
@click.argument("model", type=PATH)
@click.option(
    "--format",
    "kind",
    required=True,
    type=click.Choice(["peft", "diffusers", "kohya"]),
    help="kohya for A1111 and ComfyUI, diffusers for load_lora_weights, peft for PeftModel.",
)
@click.option("--out", required=True, type=PATH, help="A .safetensors file; for peft a folder.")
@click.option("--alpha", type=float, help="LoRA alpha of a file that does not state it.")
@models_space_option
@json_option
def command(
    model: Path, kind: Any, out: Path, alpha: float | None, space: str, as_json: bool
) -> None:
    """Write a model as a LoRA file for other programs.

    MODEL is a model file, one model of a dataset as DATASET/NAME, or a LoRA file or folder of any
    format. Weights, rank, alpha and the name of the base are preserved exactly.

    \b
    Example: w2w export older.safetensors --format kohya --out lora.safetensors
    """
    from ..exports import read_lora, save_lora

    lora = read_lora(model, space=space, alpha=alpha)
    path = save_lora(out, lora, format=kind)
    facts = {"path": path, "format": kind, "rank": lora.layout.rank, "alpha": lora.layout.alpha}
    report(facts, as_json)
