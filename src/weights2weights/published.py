"""The authors' published files, as a `WeightSpace` or a `WeightDataset`.

| file | shape | used for |
|---|---|---|
| `V.pt` | d × m, float32 | components, as its columns |
| `mean.pt`, `std.pt` | d | mean, std |
| `weight_dimensions.pt` | PEFT key → [[count], shape] | layout |
| `proj_1000pc.pt` | n × k | coefficients of the training models |
| `identity_df.pt` | pickled pandas table of n rows | names and labels |
| `all_weights.pt` | n × d | rows of the dataset; coefficients on all m components |

Nothing in them is run; see `formats.authors` and `formats.pickled_table`.
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
"""Number of components along which the paper samples, however many its files hold."""

_FOLDERS = ("", "files", "weights_datasets/identities")
_ROWS = 256


def import_published(
    folder: str | Path,
    *,
    components: int | None = None,
    alpha: float = PAPER_ALPHA,
    base: str = PAPER_BASE,
) -> WeightSpace:
    """Read a folder of the authors' files as a space, which samples along 1,000 components.

    Components stay memory-mapped; save the space to have it laid out for use. Models are named as
    in the label table, or by row number where there is none.

    Args:
        folder: where the files are: here, in `files/` or in `weights_datasets/identities/`.
        components: number of components to read; default: all.
        alpha: LoRA alpha, which the files do not state.
        base: name of the base model, which the files do not state either.

    Raises:
        W2WError: a file is missing or damaged, or holds something else.
    """
    folder = Path(folder)
    layout = read_layout(_find(folder, LAYOUT_FILE), alpha, base)
    d = layout.num_parameters
    mean, std = (load_vector(_find(folder, name), d) for name in ("mean.pt", "std.pt"))
    path = _find(folder, "V.pt")
    columns = load_matrix(path, rows=d)
    if components is not None and not 1 <= components <= columns.shape[1]:
        raise InputError(f"{components} components: expected 1 to {columns.shape[1]} of {path}")
    columns = columns[:, :components]
    require_finite(columns, path)
    stored = columns.dtype in (torch.float32, torch.float16)
    sampling = {"components": PAPER_COMPONENTS}
    metadata = {"of": "weights", "imported": PUBLISHED_SPACE, "sampling": sampling}
    std = torch.where(std > 0, std, 1.0)
    axes = (columns if stored else columns.float()).mT
    space = WeightSpace(layout, mean, std, axes, metadata=metadata)
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
        alpha: as for `import_published`.
        base: as for `import_published`.
        progress: show a bar on stderr.
    """
    source = Path(source)
    folder = source.parent if source.is_file() else source
    weights = source if source.is_file() else _find(folder, "all_weights.pt")
    stated = _find_any(folder, LAYOUT_FILE)
    layout = read_layout(stated, alpha, base) if stated else published_layout(alpha, base)
    rows = load_matrix(weights, columns=layout.num_parameters)
    names, labels = _models(None if source.is_file() else folder, len(rows))
    recipe = {"origin": PUBLISHED_SPACE}
    dataset = WeightDataset.create(path, layout, labels=labels, recipe=recipe)
    for start in tqdm(range(0, len(rows), _ROWS), unit_scale=_ROWS, disable=not progress):
        part = rows[start : start + _ROWS]
        require_finite(part, weights)
        for name, row in zip(names[start : start + _ROWS], part.float(), strict=True):
            if name not in dataset:
                dataset.write(name, row)
    return dataset


def _coefficients(folder: Path, space: WeightSpace) -> Float[Tensor, "n k"]:
    weights = _find_any(folder, "all_weights.pt")
    if weights is None:
        path = _find(folder, "proj_1000pc.pt")
        projected = load_matrix(path)[:, : len(space)]
        require_finite(projected, path)
        return projected.float().clone()
    rows = load_matrix(weights, columns=space.num_parameters)
    coefficients = torch.empty(len(rows), len(space))
    for part, out in zip(rows.split(_ROWS), coefficients.split(_ROWS), strict=True):
        require_finite(part, weights)
        out.copy_(space.project(part))
    return coefficients


def _models(folder: Path | None, count: int) -> tuple[list[str], "pandas.DataFrame | None"]:
    """Return the names and labels of the training models."""
    path = folder and _find_any(folder, "identity_df.pt")
    if path is None:
        return list(map(str, range(count))), None
    table = read_pickled_table(path)
    if len(table) != count:
        raise InputError(f"{path} has {len(table)} rows; expected {count}, one per model")
    names = [str(name) for name in table.index]
    return names, tidy_labels(table.set_axis(names, axis=0), names)


def _find(folder: Path, name: str) -> Path:
    if found := _find_any(folder, name):
        return found
    raise InputError(f"{folder} holds no {name}; expected it there or in {_FOLDERS[1]}")


def _find_any(folder: Path, name: str) -> Path | None:
    candidates = (folder / part / name for part in _FOLDERS)
    return next((path for path in candidates if path.is_file()), None)
