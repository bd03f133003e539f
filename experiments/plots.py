"""Plots in one style, by matplotlib."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from weights2weights.errors import InputError

from .estimates import Estimate
from .result import Sheet

if TYPE_CHECKING:
    from PIL.Image import Image

# Distinguishable with colour blindness and in greyscale (Okabe and Ito 2008).
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")

_STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a949e",
    "axes.labelcolor": "#1c2024",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6eaee",
    "legend.frameon": False,
    "xtick.color": "#5f6b76",
    "ytick.color": "#5f6b76",
}


def require_matplotlib() -> None:
    """Raise W2WError if matplotlib is missing: better now than at the first plot, hours later."""
    if find_spec("matplotlib") is None:
        raise InputError("plots need matplotlib: pip install matplotlib")


@dataclass
class Plot:
    """A matplotlib figure; `image` is set when the block that opened it ends."""

    figure: Any
    axes: Any
    image: "Image" = None  # type: ignore[assignment]  # see `plot`


@contextmanager
def plot(
    rows: int = 1, columns: int = 1, *, size: tuple[float, float] = (6.4, 4.0), **options: Any
) -> Iterator[Plot]:
    """Open axes, `rows` × `columns` of them if more than one; draw them as an image at the end.

    Args:
        rows: of axes.
        columns: of axes.
        size: of all together in inches; 200 pixels each.
        options: of matplotlib's `subplots`.

    Raises:
        W2WError: matplotlib is not installed.
    """
    require_matplotlib()
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    # a figure of its own, not pyplot's: no window system, no list of open figures
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        opened = Plot(figure, figure.subplots(rows, columns, **options))
        yield opened
        buffer = io.BytesIO()
        figure.savefig(buffer, dpi=200, format="png")
    opened.image = Image.open(buffer).convert("RGB")


def line(
    axes: Any,
    x: Sequence[int] | Sequence[float],
    estimates: Sequence[Estimate | None],
    label: str = "",
    color: str = COLORS[0],
) -> None:
    """Plot means and their intervals along a line; missing ones leave a gap."""
    known = [(at, e) for at, e in zip(x, estimates, strict=True) if e is not None]
    places = [at for at, _ in known]
    means = np.array([e["mean"] for _, e in known])
    ends = np.array(
        [[e["mean"] - _end(e, "low"), _end(e, "high") - e["mean"]] for _, e in known]
    ).reshape(-1, 2)
    axes.errorbar(
        places, means, ends.T.clip(min=0), marker="o", ms=4, capsize=2, color=color, label=label
    )


def level(axes: Any, estimate: Estimate | None, label: str, color: str = COLORS[6]) -> None:
    """Plot a mean that does not depend on x as a dashed line, its interval as a band."""
    if estimate is None:
        return
    axes.axhline(estimate["mean"], ls="--", lw=1, color=color, label=label)
    axes.axhspan(_end(estimate, "low"), _end(estimate, "high"), color=color, alpha=0.08, lw=0)


def identity_plot(
    x: Sequence[int], scores: Sequence[Estimate | None], dreambooth: Estimate | None, xlabel: str
) -> Sheet:
    """Plot the ID score of inversions against a number, with DreamBooth on ten for comparison."""
    with plot(size=(6.4, 3.6)) as p:
        line(p.axes, x, scores, "w2w, one image", COLORS[0])
        level(p.axes, dreambooth, "DreamBooth, ten images")
        p.axes.set_xscale("log")
        p.axes.set_xlabel(xlabel)
        p.axes.set_ylabel("ID score")
        p.axes.legend()
    return Sheet("id", p.image, "ID score in new scenes, 95 % intervals over people.")


def _end(estimate: Estimate, name: str) -> float:
    return estimate["mean"] if estimate[name] is None else estimate[name]
