"""What the stages of the demo share: its plan, and the form of their results."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...directions import Direction, find_directions
from ..edits import require_labels
from ..page import Cell
from ..setting import Setting, require_unseen

POPULATION = 900
"""Added to the seed: the demo's people come from populations that no space is trained on."""


@dataclass
class Stage:
    """The result of a stage.

    Attributes:
        figures: for the report.
        views: images for the page: one row, or several.
    """

    figures: dict[str, Any]
    views: Mapping[str, list[Cell] | list[list[Cell]]] = field(default_factory=dict, kw_only=True)


@dataclass(frozen=True)
class Demo:
    """The plan of a demo.

    Attributes:
        setting: base, space, world and scorer.
        out: folder for everything.
        names: people to fine-tune.
        stranger: the person whose only photo is inverted.
        directions: attribute → its direction.
        strength: of the edits, in standard deviations.
    """

    setting: Setting
    out: Path
    names: Sequence[str]
    stranger: str
    directions: Mapping[str, Direction]
    strength: float

    @classmethod
    def plan(
        cls,
        setting: Setting,
        out: Path,
        subjects: int,
        attributes: Sequence[str],
        strength: float,
    ) -> "Demo":
        """Choose people that the space has not seen, and attributes that it can edit.

        Raises:
            W2WError: the space lacks labels for all attributes, or was fitted to these people.
        """
        labels = require_labels(setting.space, attributes)
        population = f"{setting.world.name}-{setting.seed + POPULATION}"
        *names, stranger = (f"{population}-{number:05d}" for number in range(subjects + 1))
        require_unseen(setting.space, [*names, stranger])
        directions = find_directions(setting.space, labels)
        return cls(setting, out, names, stranger, directions, strength)

    @property
    def attributes(self) -> list[str]:
        """The edited attributes."""
        return list(self.directions)

    @property
    def prompts(self) -> list[str]:
        """The instance prompt and three scenes."""
        return self.setting.prompts[:4]

    def scene(self, prompt: str) -> str:
        """Return what a prompt adds to the instance prompt."""
        return (
            prompt.removeprefix(self.setting.recipe.instance_prompt).strip(" ,")
            or "instance prompt"
        )
