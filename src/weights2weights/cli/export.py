"""`w2w export`: write a LoRA for another program."""

from pathlib import Path

import click

from ._output import json_option, report


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
@json_option
def command(model: Path, kind: str, out: Path, alpha: float | None, as_json: bool) -> None:
    """Write a model as a LoRA file for other programs.

    MODEL is a LoRA file or folder of any format. Every number, rank, alpha and the name of the base
    are kept.

    \b
    Example: w2w export somebody --format kohya --out somebody.safetensors
    """
    from ..formats import read_lora, write_lora

    lora = read_lora(model, alpha)
    path = write_lora(out, lora.weights, lora.layout, kind, lora.metadata)  # type: ignore[arg-type]
    layout = lora.layout
    facts = {"path": path, "format": kind, "rank": layout.rank, "alpha": layout.alpha}
    report(facts, as_json)
