"""Models for other programs: LoRA files, and LoRAs loaded into a diffusers pipeline."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from . import formats
from .errors import InputError, ResourceError
from .formats import LoRAFile, LoRAFormat
from .layout import WeightLayout
from .models import is_model
from .opening import Models, Space, one_model, stack_models


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
        model: one model in any form that `generate` takes, or what `load_lora` read. The dtype and
            the header's strings of a LoRA file are kept.
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
    strings = {**lora.metadata, **(metadata or {})}
    return formats.write_lora_file(path, lora.weights, lora.layout, format, strings)


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
    if isinstance(model, str | Path) and _is_lora(Path(model)):
        return formats.load_lora(model, alpha)
    one = one_model(model, space=space, layout=layout)
    if alpha not in (None, one.layout.alpha):
        raise InputError(
            f"{one.name or 'the model'} states alpha {one.layout.alpha:g}, and {alpha:g} was given:"
            " expected one"
        )
    weights = stack_models(one, space=space).weights[0]
    return LoRAFile(one.layout, weights.detach(), "diffusers")


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
        InputError: as `save_lora`; layers that the pipeline's denoiser lacks.
        ResourceError: peft is not installed.

    Example:
        pipe = w2w.load_into(pipe, "ada.safetensors")
        pipe("a photo of sks person").images[0]
    """
    if find_spec("peft") is None:
        raise ResourceError("diffusers needs peft to load a LoRA; pip install peft")
    lora = read_lora(model, space=space, layout=layout)
    _require_layers(pipeline, lora.layout)
    loaded = {name for names in pipeline.get_list_adapters().values() for name in names}
    if adapter_name in loaded:
        pipeline.delete_adapters(adapter_name)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "lora.safetensors"
        formats.write_lora_file(path, lora.weights, lora.layout, "diffusers")
        with _quiet():
            pipeline.load_lora_weights(folder, weight_name=path.name, adapter_name=adapter_name)
    pipeline.set_adapters(adapter_name, scale)
    return pipeline


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep diffusers from warning that the LoRA has no part for the text encoder."""
    from diffusers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _is_lora(path: Path) -> bool:
    """Say whether a path is a LoRA of another program, of which more can be kept than a model."""
    if path.is_dir():
        return not any((path / name).is_file() for name in ("dataset.json",))
    return path.is_file() and not is_model(path)


def _require_layers(pipeline: Any, layout: WeightLayout) -> None:
    denoiser = getattr(pipeline, "unet", None) or getattr(pipeline, "transformer", None)
    if denoiser is None:
        raise InputError(
            f"a {type(pipeline).__name__} has no unet or transformer; expected a diffusers pipeline"
        )
    layers = dict(denoiser.named_modules())
    for module in layout.modules:
        layer = layers.get(module.name)
        layer = getattr(layer, "base_layer", layer)  # that of PEFT, where a LoRA is loaded already
        found = getattr(layer, "in_features", None), getattr(layer, "out_features", None)
        if found != (module.in_features, module.out_features):
            raise InputError(
                f"the pipeline's {type(denoiser).__name__} has no layer {module.name} of"
                f" {module.in_features} to {module.out_features}: expected the base that the model"
                f" was made for{f', {layout.base}' if layout.base else ''}"
            )
