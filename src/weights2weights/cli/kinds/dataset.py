"""A dataset of weights: the folder that `w2w train` and `w2w import` make."""

import json
from pathlib import Path
from typing import Any


def recognise(place: str) -> bool:
    """Take folders whose manifest says that they are a dataset, or is too damaged to say."""
    try:
        facts = json.loads((Path(place) / "manifest.json").read_bytes())
    except OSError:
        return False
    except ValueError:
        return (Path(place) / "shards").is_dir()
    return isinstance(facts, dict) and facts.get("format") == "weights2weights-dataset"


def describe(place: str) -> dict[str, Any]:
    """Return size, layout, base, labels, and what failed or is still to come."""
    from ...dataset import WeightDataset

    dataset = WeightDataset.open(place)
    layout = dataset.layout
    return {
        "models": len(dataset),
        "numbers": layout.num_parameters,
        "layout": layout.hash,
        "rank": layout.rank,
        "alpha": layout.alpha,
        "modules": len(layout.modules),
        "base": layout.base,
        "base_hash": dataset.base_hash,
        "dtype": str(dataset.dtype).removeprefix("torch."),
        "labels": dataset.label_names,
        "failed": len(dataset.failed),
        "failures": dataset.failed,
        "pending": len(dataset.pending()),
        "finished": dataset.finished,
        "recipe": dataset.recipe,
    }


def verify(place: str) -> list[str]:
    """Read everything; a line for each file that is missing, damaged or not finite."""
    from ...dataset import WeightDataset
    from ...errors import W2WError

    try:
        return [str(problem) for problem in WeightDataset.open(place).verify()]
    except W2WError as error:
        return [str(error)]
