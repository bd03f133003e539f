"""`w2w fit`, `sample`, `neighbours` and `evaluate`: make a space, use it and measure it."""

import time
from pathlib import Path
from typing import Any

import click
from click import argument, option

from ._options import COUNT, FILE, FOLDER, PATH, SEED, labels_option, space_option
from ._output import Outcome, as_text, one_line, verb


@verb("fit")
@argument("weights", type=PATH)
@option("--out", required=True, type=FOLDER, help="Folder of the new space.")
@option(
    "--of",
    "kind",
    type=click.Choice(["weights", "updates"]),
    default="weights",
    help="updates takes LoRAs of any rank, alpha, seed and trainer, as a folder of files.",
)
@option("--components", type=COUNT, default=1000, help="Number of components to keep.")
@option(
    "--rank",
    type=COUNT,
    help="Rank of the LoRAs that points of a space of updates become.  [default: 32]",
)
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
    weights: Path, out: Path, kind: str, sampling: Any, seed: int, dtype: str, **options: Any
) -> Outcome:
    """Fit a space to a dataset of models.

    Reads WEIGHTS about six times. Memory grows with components × parameters, not with the number
    of models. The result can be sampled, searched, edited and shared.

    With --of updates, WEIGHTS is any folder of LoRAs of one base, from different trainers. Files
    that cannot be used are reported and left out. Without a label table, labels come from file
    names and the tags in kohya headers. --oversampling, --tolerance, --max-passes and --seed have
    no effect.

    \b
    Example: w2w fit weights --components 1000 --out space
    Example: w2w fit downloads --of updates --out space
    """
    from dataclasses import replace

    import torch

    from ..dataset import WeightDataset
    from ..space import WeightSpace

    start = time.perf_counter()
    refused: dict[str, str] = {}
    rank = options.pop("rank")
    if kind == "updates":
        if dtype == "int8":
            raise click.UsageError("--dtype int8 does not apply to --of updates")
        space, refused = _fit_updates(weights, rank, **options)
    else:
        options["generator"] = torch.Generator().manual_seed(seed)
        space = WeightSpace.fit(WeightDataset.open(weights), progress=True, **options)
    if sampling is not None:
        defaults = {"components": sampling[0], "scale": sampling[1]}
        space = replace(space, metadata={**space.metadata, "sampling": defaults})
    space.save_pretrained(out, dtype=getattr(torch, dtype))
    facts = {
        "path": out,
        "models": len(space.names),
        "numbers": space.num_parameters,
        "components": len(space),
        **space.metadata,
        "labels": list(space.labels.columns),
        "space": space.hash,
        "seconds": time.perf_counter() - start,
    }
    if kind == "weights":
        return Outcome(facts)
    shown = {**facts, "refused": len(refused)}
    return Outcome({**facts, "refused": refused}, shown, tuple(refused.values()), 0)


def _fit_updates(folder: Path, rank: int | None, **options: Any) -> tuple[Any, dict[str, str]]:
    from ..labels import find_labels, read_labels
    from ..space import fit_updates
    from ..updates import labels_from_headers, read_updates

    found, refused = read_updates([folder], progress=True)
    labels, table = options["labels"], find_labels(folder)
    if labels is None:
        labels = labels_from_headers(found) if table is None else read_labels(table)
    space = fit_updates(
        found,
        options["components"],
        labels=labels,
        rank=rank,
        device=options["device"],
        progress=True,
    )
    return space, refused


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
@argument("models", nargs=-1, type=PATH)
@space_option
@option(
    "--among",
    type=FOLDER,
    help="Folder of LoRAs of any rank and trainer to search, instead of a space.",
)
@option("-n", "--count", type=COUNT, default=5, help="Neighbours per model.")
@option("--map", "sheet", type=FILE, help="With --among: image file for a map of the folder.")
def neighbours_command(
    models: tuple[Path, ...], space: str, among: Path | None, count: int, sheet: Path | None
) -> Outcome:
    """Find the training models nearest to a model, or LoRAs that are alike.

    MODELS are model files or LoRAs of any format. Similarity is the cosine of the coefficients; a
    copy of a training model has a neighbour at 1.

    With --among it is the cosine of the updates themselves, which does not depend on rank, alpha or
    trainer; without MODELS, the LoRAs of the folder are compared with each other and near copies
    are listed.

    \b
    Example: w2w neighbours people/sample-3-0000.safetensors
    Example: w2w neighbours --among downloads --map map.png
    """
    if among is not None:
        return _neighbours_among(models, among, count, sheet)
    if not models or sheet:
        raise click.UsageError("give MODELS, or a folder with --among; --map needs --among")
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


def _neighbours_among(
    models: tuple[Path, ...], among: Path, count: int, sheet: Path | None
) -> Outcome:
    """Compare models with the LoRAs of a folder, or these with each other."""
    from ..sheets import write_image
    from ..updates import draw_map, gram, near_copies, products, read_updates

    others, refused = read_updates([among])
    names = [update.name for update in others]
    facts: dict[str, Any] = {"among": among, "refused": refused}
    if sheet is not None:
        facts["map"] = write_image(sheet, draw_map(others))
    if models:
        asked, unread = read_updates(models)
        refused |= unread
        cosines = products(asked, others)
        for rows, norms in ((cosines, asked), (cosines.mT, others)):
            rows /= rows.new_tensor([update.norm() for update in norms])[:, None]
    else:
        asked, found = others, gram(others)
        cosines = found.cosines.clone()
        facts |= {"near_copies": near_copies(cosines, names), "error": found.error}
        cosines.fill_diagonal_(-2)
    nearest = cosines.topk(min(count, len(others) - (not models)), dim=1)
    facts["neighbours"] = {
        update.name: [
            {"name": names[i], "similarity": value}
            for i, value in zip(indices.tolist(), values.tolist(), strict=True)
        ]
        for update, indices, values in zip(asked, nearest.indices, nearest.values, strict=True)
    }
    lines = [
        f"{one_line(' = '.join(pair['names']))}  {pair['similarity']:.4f}"
        for pair in facts.get("near_copies", ())
    ]
    for name, listed in facts["neighbours"].items():
        similar = {one_line(item["name"]): item["similarity"] for item in listed}
        lines += [one_line(name), as_text(similar)]
    return Outcome(facts, "\n".join(lines), tuple(refused.values()), 0)


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
