"""The authors' published files, as a `WeightSpace` or a `WeightDataset`.

Dravid et al. published their space as files of `torch.save`:

| file | shape | used for |
|---|---|---|
| `V.pt` | d × m, float32 | components, as its columns |
| `mean.pt`, `std.pt` | d | mean, std |
| `weight_dimensions.pt` | PEFT key → [[count], shape] | layout |
| `proj_1000pc.pt` | n × k | coefficients of the training models |
| `identity_df.pt` | pickled pandas table of n rows | names and labels |
| `all_weights.pt` | n × d | rows of the dataset; coefficients on all m components |

They are looked for in the folder, its `files/` and its `weights_datasets/identities/`. Nothing in
them is run; see `formats.authors` and `formats.pickled_table`.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from .dataset import WeightDataset
from .errors import InputError
from .formats.authors import (
    LAYOUT_FILE,
    PAPER_BASE,
    PUBLISHED_SPACE,
    load_matrix,
    load_vector,
    published_layout,
    read_layout,
    require_finite,
)
from .formats.pickled_table import read_pickled_table
from .labels import tidy_labels
from .layout import PAPER_ALPHA
from .space import WeightSpace

if TYPE_CHECKING:
    import pandas

PAPER_COMPONENTS = 1000
"""Components along which the paper samples, whatever number its files hold."""

_FOLDERS = ("", "files", "weights_datasets/identities")
_ROWS = 256


def import_published(
    folder: str | Path,
    *,
    components: int | None = None,
    alpha: float = PAPER_ALPHA,
    base: str = PAPER_BASE,
) -> WeightSpace:
    """Read a folder of the authors' files as a space.

    Components stay memory-mapped, so the only memory needed is the page cache of `V.pt`, and of
    `all_weights.pt` if it is there. Save the space to have it laid out for use.

    Args:
        folder: where the files are; see the table above.
        components: number of components to read; default: all.
        alpha: LoRA alpha, which the files do not state.
        base: name of the base model, which the files do not state either.

    Returns:
        the space, which samples along the paper's 1,000 components by default. Its models are named
        as in the table, or by row number where there is no table.

    Raises:
        W2WError: a file is missing, is damaged, has another shape, holds numbers that are not
            finite or anything but tensors, or the table is not a plain pandas table.
    """
    folder = Path(folder)
    layout = read_layout(_find(folder, LAYOUT_FILE), alpha, base)
    mean, std = (
        load_vector(_find(folder, f"{name}.pt"), layout.num_parameters) for name in ("mean", "std")
    )
    std = torch.where(std > 0, std, 1.0)
    space = WeightSpace(
        layout,
        mean,
        std,
        _components(_find(folder, "V.pt"), layout.num_parameters, components),
        metadata={
            "of": "weights",
            "imported": PUBLISHED_SPACE,
            "sampling": {"components": PAPER_COMPONENTS},
        },
    )
    coefficients = _coefficients(folder, space)
    names, labels = _models(folder, len(coefficients))
    return space.with_models(coefficients, names, labels)


def import_published_dataset(
    source: str | Path,
    path: str | Path,
    *,
    alpha: float = PAPER_ALPHA,
    base: str = PAPER_BASE,
    progress: bool = False,
) -> WeightDataset:
    """Read the authors' weights as a dataset of LoRAs; safe to repeat and to continue.

    Args:
        source: a folder with `all_weights.pt`, or any file of n × d weights, such as
            `dog_weights.pt`, whose models are then named by row number.
        path: where the dataset is written.
        alpha: LoRA alpha, which the files do not state.
        base: name of the base model, which the files do not state either.
        progress: show a bar on stderr.

    Raises:
        W2WError: as `import_published`, or the dataset cannot be written.
    """
    source = Path(source)
    folder = source.parent if source.is_file() else source
    weights = source if source.is_file() else _find(folder, "all_weights.pt")
    stated = _find_any(folder, LAYOUT_FILE)
    layout = read_layout(stated, alpha, base) if stated else published_layout(alpha, base)
    rows = load_matrix(weights, columns=layout.num_parameters)
    names, labels = _row_numbers(len(rows)), None
    if not source.is_file():
        names, labels = _models(folder, len(rows))
    recipe = {"origin": PUBLISHED_SPACE}
    dataset = WeightDataset.create(path, layout, labels=labels, recipe=recipe)
    for start in tqdm(range(0, len(rows), _ROWS), unit_scale=_ROWS, disable=not progress):
        part = rows[start : start + _ROWS]
        require_finite(part, weights)
        for name, row in zip(names[start : start + _ROWS], part.float(), strict=True):
            if name not in dataset:
                dataset.write(name, row)
    return dataset


def _components(path: Path, numbers: int, count: int | None) -> Float[Tensor, "m d"]:
    columns = load_matrix(path, rows=numbers)
    if count is not None and not 1 <= count <= columns.shape[1]:
        raise InputError(f"{count} components: expected 1 to {columns.shape[1]} of {path}")
    columns = columns[:, :count]
    require_finite(columns, path)
    return (columns if columns.dtype in (torch.float32, torch.float16) else columns.float()).mT


def _coefficients(folder: Path, space: WeightSpace) -> Float[Tensor, "n k"]:
    weights = _find_any(folder, "all_weights.pt")
    if weights is None:
        path = _find(folder, "proj_1000pc.pt")
        projected = load_matrix(path)[:, : len(space)]
        require_finite(projected, path)
        return projected.float().clone()
    rows = load_matrix(weights, columns=space.num_parameters)
    coefficients = torch.empty(len(rows), len(space))
    for start in range(0, len(rows), _ROWS):
        part = rows[start : start + _ROWS]
        require_finite(part, weights)
        coefficients[start : start + _ROWS] = space.project(part)
    return coefficients


def _models(folder: Path, count: int) -> tuple[list[str], "pandas.DataFrame | None"]:
    """Return the names and labels of the training models."""
    path = _find_any(folder, "identity_df.pt")
    if path is None:
        return _row_numbers(count), None
    table = read_pickled_table(path)
    if len(table) != count:
        raise InputError(f"{path} has {len(table)} rows; expected {count}, one per model")
    names = [str(name) for name in table.index]
    return names, tidy_labels(table.set_axis(names, axis=0), names)


def _row_numbers(count: int) -> list[str]:
    return [str(row) for row in range(count)]


def _find(folder: Path, name: str) -> Path:
    if found := _find_any(folder, name):
        return found
    raise InputError(
        f"{folder} holds no {name}; expected the authors' files in it, in files/ or in"
        " weights_datasets/identities/"
    )


def _find_any(folder: Path, name: str) -> Path | None:
    candidates = (folder / part / name for part in _FOLDERS)
    return next((path for path in candidates if path.is_file()), None)
