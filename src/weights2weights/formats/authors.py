"""Files that the paper's authors wrote with `torch.save`: tensors, their layout, single models.

They are read with `weights_only=True`, which builds only tensors and plain containers, and after
checking the checksums inside the file, which torch ignores.
"""

import zipfile
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import InputError, shown
from ..layout import PAPER_ALPHA, LoRAModule, WeightLayout

PAPER_BASE = "stablediffusionapi/realistic-vision-v51"
"""The base model of the published space."""

PUBLISHED_SPACE = "weights2weights, Dravid 2024"
"""What an imported space calls itself, and the space of a single model of the authors."""

MODEL_SUFFIX = ".pt"
LAYOUT_FILE = "weight_dimensions.pt"


def load_authors_model(
    path: str | Path, alpha: float | None = None
) -> tuple[WeightLayout, Float[Tensor, " k"]]:
    """Read one model of the authors: a file of k or 1 × k floating-point numbers.

    Args:
        path: the file. A `weight_dimensions.pt` in its folder or in `files/` there is its layout;
            without one, it is that of the published space.
        alpha: LoRA alpha, which the files do not state; default: 27, as in the paper.

    Returns:
        the layout, and float32 numbers: weights if k is the layout's d, otherwise coefficients on
        the first k components of the published space.
    """
    path, alpha = Path(path), PAPER_ALPHA if alpha is None else alpha
    candidates = [path.parent / LAYOUT_FILE, path.parent / "files" / LAYOUT_FILE]
    stated = next((file for file in candidates if file.is_file()), None)
    layout = read_layout(stated, alpha) if stated else published_layout(alpha)
    return layout, load_vector(path)


def published_layout(alpha: float = PAPER_ALPHA, base: str = PAPER_BASE) -> WeightLayout:
    """Return the layout of the published space: to_q and to_v of Stable Diffusion 1.5, rank 1."""
    widths = {"down_blocks.0": (320, 2), "down_blocks.1": (640, 2), "down_blocks.2": (1280, 2)}
    widths |= {"mid_block": (1280, 1), "up_blocks.1": (1280, 3)}
    widths |= {"up_blocks.2": (640, 3), "up_blocks.3": (320, 3)}
    modules = (
        LoRAModule(
            f"{block}.attentions.{index}.transformer_blocks.0.{layer}",
            768 if layer == "attn2.to_v" else width,
            width,
        )
        for block, (width, count) in widths.items()
        for index in range(count)
        for layer in ("attn1.to_q", "attn1.to_v", "attn2.to_q", "attn2.to_v")
    )
    return WeightLayout(tuple(modules), 1, alpha, base)


def read_layout(path: Path, alpha: float = PAPER_ALPHA, base: str = PAPER_BASE) -> WeightLayout:
    """Read PEFT key → [[count], shape], and check that its order is that of our layouts."""
    dimensions = _load(path)
    try:
        shapes = {str(key): tuple(map(int, value[1])) for key, value in dimensions.items()}
    except (AttributeError, TypeError, ValueError, LookupError) as error:
        raise InputError(
            f"{path} cannot be read ({shown(str(error))}); expected name → [[count], shape]"
        ) from error
    layout = WeightLayout.from_shapes(shapes, alpha, base=base)
    if list(shapes) != [entry.key for entry in layout.entries]:
        raise InputError(f"{path} lists its tensors in another order than PEFT does")
    return layout


def _load(path: Path) -> Any:
    """Load tensors and plain containers, memory-mapped."""
    try:
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():
                raise ValueError(f"damaged at {damaged}")
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # damage can break the reader anywhere
        reason = shown(str(error).split("\n")[0])
        raise InputError(
            f"{path} cannot be read as tensors ({type(error).__name__}: {reason}); download it"
            " again, or save it with a current torch"
        ) from error
    return loaded.detach() if isinstance(loaded, Tensor) else loaded


def load_matrix(path: Path, rows: int | None = None, columns: int | None = None) -> Tensor:
    """Load a matrix of floating-point numbers, memory-mapped; a vector counts as one row.

    Raises:
        InputError: the file is damaged, or holds anything else or another number of rows or
            columns.
    """
    found = _load(path)
    fits = (
        isinstance(found, Tensor)
        and found.layout == torch.strided
        and found.device.type == "cpu"
        and found.is_floating_point()
        and 1 <= found.ndim <= 2
        and found.numel() * found.element_size() <= path.stat().st_size  # no number twice
        and rows in (None, *torch.atleast_2d(found).shape[:1])
        and columns in (None, found.shape[-1])
    )
    if fits:
        return torch.atleast_2d(found)
    what = f"a {type(found).__name__}"
    if isinstance(found, Tensor):
        what = f"{str(found.dtype).removeprefix('torch.')} {list(found.shape)}"
    raise InputError(
        f"{path} holds {what}; expected floating-point numbers of shape"
        f" [{rows or 'any'}, {columns or 'any'}]"
    )


def load_vector(path: Path, length: int | None = None) -> Float[Tensor, " d"]:
    """Load one row of finite numbers as float32; as `load_matrix`."""
    vector = load_matrix(path, 1, length)[0].float().clone()
    require_finite(vector, path)
    return vector


def require_finite(tensor: Tensor, what: str | Path) -> None:
    """Raise InputError if any number is NaN or infinite, without a temporary copy."""
    # A NaN anywhere makes both extremes NaN.
    if tensor.numel() and not all(extreme.isfinite() for extreme in tensor.aminmax()):
        raise InputError(
            f"{what} holds NaN or infinite numbers; the training diverged or the file is damaged"
        )
