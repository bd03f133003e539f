"""weights2weights: a latent space whose points are personalised diffusion models.

This page is the table of contents, in the order in which data flows: images of a subject → LoRA →
dataset of weight vectors → space → samples, directions, inversions → images and LoRA files. A name
is imported from its room when it is first used, so that `import weights2weights` costs nothing.

A function that is named like its room is called there, `w2w.generate.generate(...)`: as attributes
of the package the two would hide each other.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_ROOMS = {
    "errors": ["W2WError"],
    "layout": ["LayoutDifference", "LoRAModule", "WeightLayout"],
    "formats": ["LoRAFile", "read_lora", "write_lora"],
    "adapter": ["Adapter", "adapt"],
    "base": ["Base", "load_base"],
    "subjects": ["Subject", "find_subjects", "read_labels"],
    "train": ["Recipe"],
    "dataset": ["WeightDataset", "import_loras"],
    "models": ["Model", "read_model", "write_model"],
    "pca": ["PCA", "fit_pca"],
    "space": ["WeightSpace"],
    "sample": ["report_samples"],
    "published": ["import_published"],
    "directions": [
        "Direction",
        "direction_between",
        "direction_from_scores",
        "edit",
        "edit_model",
        "edit_weights",
        "find_direction",
        "find_directions",
        "score_models",
    ],
    "merge": ["interpolate", "interpolate_models", "merge_models"],
    "generate": ["grid"],
    "invert": ["Inversion", "InversionRecipe"],
    "sliders": ["Concept", "train_slider", "train_sliders"],
    "metrics": [],
}

if TYPE_CHECKING:  # the same page for type checkers and editors
    from .adapter import Adapter as Adapter
    from .adapter import adapt as adapt
    from .base import Base as Base
    from .base import load_base as load_base
    from .dataset import WeightDataset as WeightDataset
    from .dataset import import_loras as import_loras
    from .directions import Direction as Direction
    from .directions import direction_between as direction_between
    from .directions import direction_from_scores as direction_from_scores
    from .directions import edit as edit
    from .directions import edit_model as edit_model
    from .directions import edit_weights as edit_weights
    from .directions import find_direction as find_direction
    from .directions import find_directions as find_directions
    from .directions import score_models as score_models
    from .errors import W2WError as W2WError
    from .formats import LoRAFile as LoRAFile
    from .formats import read_lora as read_lora
    from .formats import write_lora as write_lora
    from .generate import grid as grid
    from .invert import Inversion as Inversion
    from .invert import InversionRecipe as InversionRecipe
    from .layout import LayoutDifference as LayoutDifference
    from .layout import LoRAModule as LoRAModule
    from .layout import WeightLayout as WeightLayout
    from .merge import interpolate as interpolate
    from .merge import interpolate_models as interpolate_models
    from .merge import merge_models as merge_models
    from .models import Model as Model
    from .models import read_model as read_model
    from .models import write_model as write_model
    from .pca import PCA as PCA
    from .pca import fit_pca as fit_pca
    from .published import import_published as import_published
    from .sample import report_samples as report_samples
    from .sliders import Concept as Concept
    from .sliders import train_slider as train_slider
    from .sliders import train_sliders as train_sliders
    from .space import WeightSpace as WeightSpace
    from .subjects import Subject as Subject
    from .subjects import find_subjects as find_subjects
    from .subjects import read_labels as read_labels
    from .train import Recipe as Recipe

_HOMES = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [*_HOMES, "__version__"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f".{name}", __name__)
    if name in _HOMES:
        value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_ROOMS])
