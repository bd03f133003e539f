"""Figure 4: models sampled from the space, and the training models nearest to them.

A sample should be a new person, the same in every image, and not a copy of a training model.
"""

import torch

from weights2weights.evaluate.samples import report_samples
from weights2weights.metrics.verification import verification_auc
from weights2weights.sampling import sample, sampling_of
from weights2weights.sheets import image_grid

from .estimates import estimate
from .plots import COLORS, plot
from .result import Check, Result, Sheet, Table
from .setting import ExperimentSetting

QUICK = {"samples": 12}


def figure4(
    setting: ExperimentSetting,
    *,
    samples: int = 100,
    prompts: int = 2,
    seeds: int = 2,
    shown: int = 6,
) -> Result:
    """Sample new models and compare their identity with that of the nearest training models.

    Args:
        setting: setting with the space.
        samples: number of samples.
        prompts: prompts of the images.
        seeds: seeds of the images.
        shown: models on the sheet.
    """
    space = setting.space
    points = sample(space, samples, seed=setting.seed)
    components, scale = sampling_of(space)
    found = space.neighbours(points, 1)
    nearest = space.coefficients[found.indices[:, 0]]
    texts, noises = setting.prompts[:prompts], list(range(seeds))
    of_samples = setting.generate(space.to_weights(points), texts, noises)
    of_nearest = setting.generate(space.to_weights(nearest), texts, noises)
    one = of_samples.identity.flatten(1, 2)
    other = of_nearest.identity.flatten(1, 2)
    numbers = torch.arange(samples).repeat_interleave(one.shape[1])
    within = (one @ one.mT)[:, *torch.triu_indices(one.shape[1], one.shape[1], 1)]
    to_nearest = (one * other).sum(-1)  # of the same prompt and seed
    auc = verification_auc(one.flatten(0, 1), numbers)
    report = report_samples(space, points)
    figures = {
        "samples": samples,
        "components": components,
        "scale": scale,
        "cosine_to_nearest": estimate(found.similarities),
        "training_cosine_to_nearest": report.training_nearest,
        "largest_cosine_to_nearest": report.nearest_largest,
        "id_score_within_a_sample": estimate(within),
        "id_score_to_nearest": estimate(to_nearest),
        "verification_auc": auc,
    }
    rows = [
        ["cosine of coefficients, sample to nearest training model", figures["cosine_to_nearest"]],
        ["cosine, training model to nearest other one", report.training_nearest],
        ["ID score of two images of one sample", figures["id_score_within_a_sample"]],
        ["ID score of a sample and its nearest training model", figures["id_score_to_nearest"]],
        ["verification AUC among samples", auc],
    ]
    return Result(
        "figure4",
        "Figure 4: new people, and the training models nearest to them",
        "models sampled from the space show new, consistent people; the nearest training model, by"
        " cosine of the coefficients, shows somebody else.",
        [
            Check(
                "A sample is the same person in all images: verification AUC above 0.9",
                auc > 0.9,
                auc,
            ),
            Check(
                "A sample resembles itself more than its nearest training model (ID score)",
                _mean(within) > _mean(to_nearest),
                [_mean(within), _mean(to_nearest)],
            ),
            Check(
                "No sample is a copy: largest cosine below 0.9",
                report.nearest_largest < 0.9,
                report.nearest_largest,
            ),
        ],
        figures,
        [Table(f"{samples} samples", ["", "value"], rows)],
        [
            _sheet(of_samples.images, of_nearest.images, found.similarities[:, 0], shown),
            _histogram(within.flatten(), to_nearest.flatten()),
        ],
        f"Sampled along the first {components:,} components with {scale:g} times the standard"
        " deviation of the training models, as this space recommends.",
    )


def _mean(values: torch.Tensor) -> float:
    return float(values.mean())


def _sheet(
    samples: torch.Tensor, nearest: torch.Tensor, cosines: torch.Tensor, shown: int
) -> Sheet:
    table = torch.cat([samples[:shown].flatten(1, 2), nearest[:shown].flatten(1, 2)], 1)
    images = samples.shape[1] * samples.shape[2]
    columns = ["sample"] * images + ["nearest training model"] * images
    rows = [f"cosine {float(cosine):.2f}" for cosine in cosines[:shown]]
    return Sheet(
        "samples",
        image_grid(table, rows, columns),
        "Each row: a sample on the left, its nearest training model on the right, with the same"
        " prompts and seeds.",
        900,
    )


def _histogram(within: torch.Tensor, to_nearest: torch.Tensor) -> Sheet:
    with plot(size=(6.4, 3.2)) as p:
        options = {"bins": 40, "range": (-0.5, 1), "density": True, "alpha": 0.6}
        p.axes.hist(within, color=COLORS[0], label="two images of one sample", **options)
        p.axes.hist(to_nearest, color=COLORS[1], label="sample and nearest model", **options)
        p.axes.set_xlabel("ID score")
        p.axes.set_ylabel("density")
        p.axes.legend()
    return Sheet(
        "id", p.image, "ID scores within a sample, and between a sample and its nearest model."
    )
