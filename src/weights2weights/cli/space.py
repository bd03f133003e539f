"""`w2w fit`, `sample`, `neighbours` and `evaluate`: make a space, use it and measure it."""

import time
from pathlib import Path
from typing import Any

import click
from click import argument, option

from ._options import COUNT, FOLDER, PATH, SEED, labels_option, space_option
from ._output import Outcome, as_text, one_line, verb


@verb("fit")
@argument("weights", type=PATH)
@option("--out", required=True, type=FOLDER, help="Folder of the new space.")
@option("--components", type=COUNT, default=1000, help="Number of components to keep.")
@labels_option("CSV or Parquet table to use in place of the labels of WEIGHTS.")
@option(
    "--sampling",
    type=(COUNT, click.FloatRange(0)),
    metavar="COMPONENTS SCALE",
    help="Sampling defaults to store with the space; see w2w sample.  [default: all, 1]",
)
@option(
    "--oversampling",
    type=click.IntRange(0),
    help="Extra directions that speed up convergence.  [default: a tenth of --components]",
)
@option(
    "--tolerance",
    type=click.FloatRange(0),
    default=1e-3,
    help="Stop when at most this fraction of the captured variance can be missing.",
)
@option(
    "--max-passes",
    type=click.IntRange(4),
    default=16,
    help="Maximum number of passes over the data.",
)
@option("--seed", type=SEED, default=0, help="Seed of the random start.")
@option(
    "--dtype",
    type=click.Choice(["float32", "float16", "int8"]),
    default="float32",
    help="Storage of the components; coefficients take float16 or float32.",
)
@option("--device", default="cpu", help="Device to compute on: cpu, cuda or cuda:1.")
def fit_command(
    weights: Path, out: Path, sampling: Any, seed: int, dtype: str, **options: Any
) -> dict[str, Any]:
    """Fit a space to a dataset of models.

    Reads WEIGHTS about six times. Memory grows with components × parameters, not with the number
    of models. The result can be sampled, searched, edited and shared.

    \b
    Example: w2w fit weights --components 1000 --out space
    """
    from dataclasses import replace

    import torch

    from ..dataset import WeightDataset
    from ..space import WeightSpace

    start = time.perf_counter()
    options["generator"] = torch.Generator().manual_seed(seed)
    space = WeightSpace.fit(WeightDataset.open(weights), progress=True, **options)
    if sampling is not None:
        defaults = {"components": sampling[0], "scale": sampling[1]}
        space = replace(space, metadata={**space.metadata, "sampling": defaults})
    space.save_pretrained(out, dtype=getattr(torch, dtype))
    return {
        "path": out,
        "models": len(space.names),
        "numbers": space.num_parameters,
        "components": len(space),
        **space.metadata,
        "labels": list(space.labels.columns),
        "space": space.hash,
        "seconds": time.perf_counter() - start,
    }


@verb("sample")
@argument("space", default="people")
@option("-n", "--count", type=COUNT, default=8, help="Number of models.")
@option("--seed", type=SEED, default=0, help="Random seed.")
@option("--out", required=True, type=FOLDER, help="Folder for the new models and report.json.")
@option(
    "--components",
    type=COUNT,
    help="Number of leading components to draw along.  [default: the space's own, else all]",
)
@option(
    "--scale",
    type=click.FloatRange(0),
    help="Factor on the training models' standard deviations; below 1 gives more typical models."
    "  [default: the space's own, else 1]",
)
def sample_command(space: str, count: int, seed: int, out: Path, **options: Any) -> Outcome:
    """Draw new models from a space.

    Writes one file per model, and report.json, which compares them with the training models. Model
    i depends on the seed and on i only.

    \b
    Example: w2w sample people -n 16 --seed 3 --out people
    """
    from .._files import make_folder, write_atomic
    from .._json import canonical_json, plain
    from ..evaluate.samples import report_samples
    from ..models import save_model
    from ..sampling import sample, sampling_of
    from ..space import WeightSpace

    opened = WeightSpace.from_pretrained(space)
    components, scale = sampling_of(opened, **options)
    points = sample(opened, count, seed=seed, components=components, scale=scale)
    make_folder(out)
    files = []
    for row, point in enumerate(points):
        origin = {"verb": "sample", "seed": seed, "row": row, "scale": scale}
        model = opened.model(point, {**origin, "components": components})
        files.append(save_model(out / f"sample-{seed}-{row:04d}.safetensors", model))
    facts = {
        "space": opened.hash,
        "seed": seed,
        "scale": scale,
        **plain(report_samples(opened, points)),
        "drawn_components": components,
    }
    write_atomic(out / "report.json", [canonical_json(facts)])
    return Outcome({"path": out, "files": files, **facts}, {"path": out, **facts})


@verb("neighbours")
@argument("models", nargs=-1, required=True, type=PATH)
@space_option
@option("-n", "--count", type=COUNT, default=5, help="Neighbours per model.")
def neighbours_command(models: tuple[Path, ...], space: str, count: int) -> Outcome:
    """Find the training models nearest to a model.

    MODELS are model files or LoRAs of any format. Similarity is the cosine of the coefficients; a
    copy of a training model has a neighbour at 1.

    \b
    Example: w2w neighbours people/sample-3-0000.safetensors
    """
    from ..opening import load_models
    from ..space import WeightSpace

    opened = WeightSpace.from_pretrained(space)
    found, shown = {}, []
    for path in models:
        read = load_models(path)
        whole = len(read) > 1 or (path / "dataset.json").is_file()
        for model in read:
            name = str(path / model.name if whole else path)
            near = opened.neighbours(opened.coefficients_of(model), count)
            pairs = zip(near.indices.tolist(), near.similarities.tolist(), strict=True)
            nearest = [(opened.names[row], cosine) for row, cosine in pairs]
            found[name] = [{"name": other, "similarity": value} for other, value in nearest]
            shown += [one_line(name), as_text({one_line(other): x for other, x in nearest})]
    return Outcome({"space": opened.hash, "neighbours": found}, "\n".join(shown))


@verb("evaluate")
@argument("measure", type=click.Choice(["samples", "components", "directions", "entanglement"]))
@space_option
@option("--out", type=FOLDER, help="Folder for MEASURE.json.")
@option("--seed", default=0, type=SEED, help="Seed of the samples and of cross-validation.")
def evaluate_command(measure: str, space: str, out: Path | None, seed: int) -> dict[str, Any]:
    """Measure a space, given nothing but the space.

    \b
    samples       are samples new models, and are coefficients near Gaussian?
    components    how much variance do the first components capture?
    directions    how well does each label's direction classify held-out models?
    entanglement  how much do the directions of different labels overlap?

    \b
    Example: w2w evaluate directions --space people
    """
    from .._files import make_folder, write_atomic
    from .._json import canonical_json, plain
    from ..evaluate.measures import MEASURES
    from ..space import WeightSpace

    opened = WeightSpace.from_pretrained(space)
    facts = {
        "measure": measure,
        "space": space,
        "space_hash": opened.hash,
        "base_hash": opened.base_hash,
        "seed": seed,
        **MEASURES[measure](opened, seed=seed),
    }
    if out is not None:
        make_folder(out)
        write_atomic(out / f"{measure}.json", [canonical_json(plain(facts))])
    return facts
