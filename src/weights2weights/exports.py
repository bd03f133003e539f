"""Models for other programs: LoRA files, and LoRAs loaded into a diffusers pipeline."""

from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from . import formats
from .adapter import find_layers
from .bases import quiet
from .dataset import is_dataset
from .errors import InputError, ResourceError
from .formats import LoRAFile, LoRAFormat
from .layout import WeightLayout
from .models import is_model
from .opening import Models, Space, files_in, one_model, stack_models


def save_lora(
    path: str | Path,
    model: Models | LoRAFile,
    *,
    space: Space | None = None,
    layout: WeightLayout | None = None,
    format: LoRAFormat = "diffusers",
    alpha: float | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write a model as a LoRA file, so that the programs of its format load it at full strength.

    Args:
        path: a `.safetensors` file; for peft a folder.
        model: one model in any form, or what `load_lora` read, whose dtype and strings are kept.
        space: of a point.
        layout: of weights that come as an array.
        format: "diffusers" for `load_lora_weights`, "kohya" for A1111 and ComfyUI, "peft" for
            `PeftModel`.
        alpha: LoRA alpha of a file that does not state it.
        metadata: further strings for the header.

    Returns:
        the path to hand to the other program: the folder for peft, the file otherwise.

    Raises:
        InputError: several models; as `stack_models`; layer names that the format cannot express.
        W2WError: the path cannot be written.
    """
    lora = read_lora(model, space=space, layout=layout, alpha=alpha)
    strings, weights, layout = {**lora.metadata, **(metadata or {})}, lora.weights, lora.layout
    if format == "diffusers" and layout.of_transformer:
        weights, layout = _folded(weights, layout)
    return formats.write_lora_file(path, weights, layout, format, strings)


def _folded(weights: Tensor, layout: WeightLayout) -> tuple[Tensor, WeightLayout]:
    """Return a LoRA with its factor alpha / rank in B, which ComfyUI takes for 1."""
    weights = weights.clone()
    if layout.scale != 1:
        for _, _, B in layout.slices():
            weights[B] = (weights[B].float() * layout.scale).to(weights.dtype)
    return weights, replace(layout, alpha=float(layout.rank))


def read_lora(
    model: Models | LoRAFile,
    *,
    space: Space | None = None,
    layout: WeightLayout | None = None,
    alpha: float | None = None,
) -> LoRAFile:
    """Return one model, in any form, as a LoRA file holds it; arguments as for `save_lora`."""
    if isinstance(model, LoRAFile):
        return model
    if isinstance(model, str | Path):  # of another program's LoRA more can be kept than a model
        path = Path(model)
        ours = is_dataset(path) or any(map(is_model, [path, *files_in(path)]))
        if (path.is_file() or path.is_dir()) and not ours:
            return formats.load_lora(path, alpha)
    one = one_model(model, space=space, layout=layout)
    if alpha not in (None, one.layout.alpha):
        raise InputError(
            f"{one.name or 'the model'} states alpha {one.layout.alpha:g}, and {alpha:g} was given:"
            " expected one"
        )
    layout, weights = stack_models(one, space=space)
    return LoRAFile(layout, weights[0].detach(), "diffusers")


def load_into(
    pipeline: Any,
    model: Models,
    *,
    space: Space | None = None,
    layout: WeightLayout | None = None,
    adapter_name: str = "w2w",
    scale: float = 1.0,
) -> Any:
    """Load a model into a diffusers pipeline, by diffusers' own `load_lora_weights`.

    Args:
        pipeline: of the base that the model personalises; changed in place. A LoRA of the same
            `adapter_name` is replaced, others stay loaded but inactive.
        model: one model in any form that `generate` takes.
        space: of a point.
        layout: of weights that come as an array.
        adapter_name: for `pipeline.set_adapters` and `pipeline.delete_adapters`.
        scale: strength of the LoRA; 1 is the model as it is.

    Returns:
        the pipeline.

    Raises:
        InputError: as `save_lora`; a pipeline whose denoiser lacks a layer.
        ResourceError: peft is not installed.

    Example:
        pipe = w2w.load_into(pipe, "ada.safetensors")
        pipe("a photo of sks person").images[0]
    """
    if find_spec("peft") is None:
        raise ResourceError("diffusers needs peft to load a LoRA; pip install peft")
    lora = read_lora(model, space=space, layout=layout)
    denoiser = getattr(pipeline, "unet", None) or getattr(pipeline, "transformer", None)
    if denoiser is None:
        raise InputError(
            f"a {type(pipeline).__name__} has no unet or transformer; expected a diffusers pipeline"
        )
    find_layers(denoiser, lora.layout)
    if any(adapter_name in names for names in pipeline.get_list_adapters().values()):
        pipeline.delete_adapters(adapter_name)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "lora.safetensors"
        formats.write_lora_file(path, lora.weights, lora.layout, "diffusers")
        with quiet():  # diffusers warns that there is no part for the text encoder
            pipeline.load_lora_weights(folder, weight_name=path.name, adapter_name=adapter_name)
    pipeline.set_adapters(adapter_name, scale)
    return pipeline
