"""How verbs open what the user calls a MODEL, so that it means the same everywhere."""

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    from ..models import Model


def open_models(path: Path) -> list[tuple[str, "Model"]]:
    """Return the named models of a model file, a LoRA, a dataset, or one DATASET/NAME.

    Raises:
        W2WError: nothing of these is there.
    """
    from ..dataset import WeightDataset
    from ..models import Model, load_model

    holder = path if path.is_dir() else path.parent
    if not path.is_file() and (holder / "manifest.json").is_file():
        dataset = WeightDataset.open(holder)
        names = dataset.names if path == holder else [path.name]
        if not names:
            raise InputError(f"{path} holds no models yet; train some, or give another")
        rows = dataset[list(names)]
        return [
            (name, Model(dataset.layout, weights=row, base_hash=dataset.base_hash))
            for name, row in zip(names, rows, strict=True)
        ]
    return [(path.stem, load_model(path))]


def open_model(path: Path) -> tuple[str, "Model"]:
    """Return the one named model of a path.

    Raises:
        W2WError: there is none, or there are several.
    """
    models = open_models(path)
    if len(models) > 1:
        raise InputError(f"{path} holds {len(models)} models: expected one; name it, {path}/NAME")
    return models[0]
