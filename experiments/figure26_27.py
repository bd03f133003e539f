"""Figures 26 and 27: coefficients are near Gaussian one by one, and near independent in pairs.

This justifies sampling new models coefficient by coefficient from Gaussians.
"""

from dataclasses import asdict

import torch
from torch import Tensor

from weights2weights.evaluate.samples import (
    ks_distance,
    mean_correlation,
    report_samples,
    standardised,
)
from weights2weights.sampling import sample

from .plots import COLORS, plot
from .result import Check, Result, Sheet, Table
from .setting import ExperimentSetting

QUICK = {"samples": 100}


def figure26_27(setting: ExperimentSetting, *, samples: int = 1000, shown: int = 8) -> Result:
    """Measure the marginals and joints of the training models' coefficients, and of samples.

    Args:
        setting: setting with the space.
        samples: number of samples compared with the training models.
        shown: components in the plots.
    """
    space = setting.space
    known = space.coefficients.shape[1]
    points = sample(space, samples, seed=setting.seed, components=known, scale=1.0)
    report = asdict(report_samples(space, points))
    standard = standardised(space.coefficients)
    first = standard[:, :100]
    figures = {
        **report,
        "ks_distance_first_100": float(ks_distance(first).mean()),
        "correlation_first_100": mean_correlation(first),
    }
    rows = [
        [
            "distance to a Gaussian (Kolmogorov-Smirnov)",
            report["ks_distance"],
            report["ks_expected"],
        ],
        ["skewness, mean absolute", report["skewness"], 0.0],
        ["excess kurtosis, mean absolute", report["kurtosis"], 0.0],
        [
            "correlation of pairs, mean absolute",
            report["correlation"],
            report["correlation_expected"],
        ],
        [
            "rank correlation of magnitudes",
            report["rank_correlation"],
            report["correlation_expected"],
        ],
    ]
    return Result(
        "figure26-27",
        "Figures 26 and 27: the coefficients of the training models",
        "along each component the coefficients of the training models are near Gaussian, and pairs"
        " of components near independent, so new models are drawn from independent Gaussians.",
        [
            Check(
                "Marginals are near Gaussian: the Kolmogorov-Smirnov distance exceeds that of"
                " Gaussian samples by less than 0.05",
                report["ks_distance"] < report["ks_expected"] + 0.05,
                [report["ks_distance"], report["ks_expected"]],
            ),
            Check(
                "Pairs are near independent: mean rank correlation of magnitudes below 0.1",
                report["rank_correlation"] < 0.1,
                report["rank_correlation"],
            ),
        ],
        figures,
        [Table("Over all components", ["", "training models", "if Gaussian, independent"], rows)],
        [_marginals(standard[:, :shown]), _joints(standard[:, : min(shown, 5)])],
    )


def _marginals(standard: Tensor) -> Sheet:
    count = standard.shape[1]
    columns = min(count, 4)
    lines = -(-count // columns)
    grid = torch.linspace(-4, 4, 200)
    gaussian = torch.exp(-grid.square() / 2) / (2 * torch.pi) ** 0.5
    with plot(
        lines, columns, size=(9.0, 2.2 * lines), sharex=True, sharey=True, squeeze=False
    ) as p:
        for i, axes in enumerate(p.axes.flat):
            if i >= count:
                axes.set_visible(False)
                continue
            axes.hist(standard[:, i], bins=30, range=(-4, 4), density=True, color="#9cc6e4")
            axes.plot(grid, gaussian, color=COLORS[1], lw=1.2)
            axes.set_title(f"component {i + 1}", fontsize=9)
        p.figure.supxlabel("standard deviations", fontsize=9)
    caption = "Coefficients of the training models (bars) and the unit Gaussian (line)."
    return Sheet("marginals", p.image, caption, 620)


def _joints(standard: Tensor) -> Sheet:
    count = standard.shape[1]
    with plot(count, count, size=(7.2, 7.2), sharex=True, sharey=True, squeeze=False) as p:
        for i, line in enumerate(p.axes):
            for j, axes in enumerate(line):
                axes.set_xlim(-4, 4)
                axes.set_ylim(-4, 4)
                if j >= i:
                    axes.set_visible(False)
                    continue
                axes.plot(standard[:, j], standard[:, i], ".", ms=1.5, alpha=0.5, color=COLORS[0])
                axes.set_aspect("equal")
                if i == count - 1:
                    axes.set_xlabel(str(j + 1), fontsize=9)
                if j == 0:
                    axes.set_ylabel(str(i + 1), fontsize=9)
    caption = "Pairs of the first components, in standard deviations: round clouds, no structure."
    return Sheet("joints", p.image, caption, 480)
