"""Where training starts: a random A, or the one stored with the base."""

from jaxtyping import Float
from torch import Tensor

from .._noise import derive_seed, initial_weights
from ..bases import Base, find_start_file
from ..errors import InputError
from ..layout import WeightLayout
from ..models import load_model
from ._config import DreamBoothConfig


def start_weights(
    base: Base, layout: WeightLayout, config: DreamBoothConfig, name: str = ""
) -> Float[Tensor, " d"]:
    """Return the weights that the training of the subject `name` starts with.

    Raises:
        InputError: the settings ask for the base's own start, and it has none of this layout.
    """
    if config.start == "own":
        return initial_weights(layout, derive_seed(config.seed, name))
    if config.start == "random":
        return initial_weights(layout, config.seed)
    path = find_start_file(base)
    if path is None:
        raise InputError(
            f"base {base.id!r} has no LoRA to start from: expected start.safetensors in its folder;"
            " set start to random"
        )
    model = load_model(path)
    layout.require_equal(model.layout, f"{path}, where training starts; set start to random if not")
    if model.weights is None or model.base_hash != base.hash:
        raise InputError(f"{path} was made for another base than {base.id}; set start to random")
    return model.weights
