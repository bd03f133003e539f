"""The space in two dimensions: training models as dots, and a click that moves a person."""

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from ..directions import Direction, edit
from ..models import Model
from ..space import WeightSpace
from .state import Models

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE, REACH = 560, 4.5
"""Pixels of the map's side, and standard deviations from its centre to its edge."""

COMPONENTS = ("Component 1", "Component 2", "Component 3", "Component 4")


def axis(models: Models, name: str) -> Direction:
    """Return a component or the direction of a label."""
    if name not in COMPONENTS:
        return models.direction(name)
    number = COMPONENTS.index(name)
    normal = torch.eye(len(COMPONENTS), dtype=torch.float64)[number, : number + 1]
    std = float(models.space.coefficient_std[number])
    return Direction(name, normal, std, space=models.space.hash)


def places(
    space: WeightSpace, points: Float[Tensor, "n m"], axes: tuple[Direction, Direction]
) -> Float[Tensor, "n 2"]:
    """Return where points lie along two directions, in standard deviations from the mean."""
    columns = []
    for one in axes:
        width = len(one.normal)
        mean = space.coefficient_mean[:width].double()
        columns.append((points[:, :width].double() - mean) @ one.normal / one.std)
    return torch.stack(columns, 1)


def moved(
    space: WeightSpace, model: Model, start: Tensor, goal: Tensor, axes: tuple[Direction, Direction]
) -> Model:
    """Return a model moved along two directions from one place of the map to another."""
    width = max(len(one.normal) for one in axes)
    normals = [torch.nn.functional.pad(one.normal, (0, width - len(one.normal))) for one in axes]
    # moving along one axis also moves along the other where they are not orthogonal
    stds = torch.tensor([one.std for one in axes], dtype=torch.float64)
    matrix = torch.stack(normals) @ torch.stack(normals).T * stds / stds[:, None]
    amounts = torch.linalg.lstsq(matrix, (goal - start)[:, None]).solution[:, 0]
    return edit(model, dict(zip(axes, amounts.tolist(), strict=True)), space=space)


def draw_map(dots: Float[Tensor, "n 2"], here: Tensor, names: tuple[str, str]) -> "Image":
    """Return the map as an image."""
    from PIL import Image, ImageDraw

    sheet = Image.new("RGB", (SIDE, SIDE), "#f8fafc")
    pen = ImageDraw.Draw(sheet, "RGBA")
    middle = SIDE // 2
    pen.line([(0, middle), (SIDE, middle)], "#cbd5e1")
    pen.line([(middle, 0), (middle, SIDE)], "#cbd5e1")
    for x, y in to_pixels(dots).tolist():
        pen.ellipse([x - 2, y - 2, x + 2, y + 2], (37, 99, 235, 90))
    x, y = to_pixels(here).tolist()
    pen.ellipse([x - 9, y - 9, x + 9, y + 9], outline="#dc2626", width=4)
    pen.text((SIDE - 8, middle + 6), names[0], "#334155", anchor="ra", font_size=18)
    pen.text((middle + 8, 6), names[1], "#334155", font_size=18)
    return sheet


def to_pixels(places: Float[Tensor, "*n 2"]) -> Tensor:
    """Return the pixels of places; what lies beyond the map is at its edge."""
    flipped = places * torch.tensor([1.0, -1.0])
    return ((flipped / REACH + 1) * SIDE / 2).clamp(0, SIDE - 1)


def from_pixels(x: float | int, y: float | int) -> Float[Tensor, "2"]:
    """Return the place of a pixel."""
    return torch.tensor([2 * x / SIDE - 1, 1 - 2 * y / SIDE], dtype=torch.float64) * REACH
