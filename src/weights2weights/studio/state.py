"""What a visitor has made: an immutable state, its model, its recipe and the lines that repeat it.

A recipe is JSON that anybody may have written: every field is checked. It restores a state byte for
byte; a person who was not sampled is in it as float32 numbers in base64.
"""

import base64
import json
import math
import shlex
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._json import canonical_json
from ..directions import Direction, edit
from ..errors import InputError, shown
from ..merging import interpolate
from ..models import Model
from ..opening import stack_models
from ..space import WeightSpace
from .engine import Drawing

VERSION = 1
MOST_STRENGTH = 6.0
MOST_STEPS = 50
MOST_LETTERS = 300
MOST_LINK = 1800
"""Longer links do not survive every chat program."""
_MOST_BYTES = 8 << 20


@dataclass(frozen=True, eq=False)
class Person:
    """Where a state starts: a sample of the space, or any model of it."""

    model: Model
    seed: int | None = None

    @classmethod
    def sampled(cls, space: WeightSpace, seed: int) -> "Person":
        """Return the person of a seed, as `w2w sample -n 1 --seed` makes it."""
        return cls(
            space.model(space.sample(1, seed=seed)[0], {"verb": "sample", "seed": seed}), seed
        )


@dataclass(frozen=True)
class State:
    """Everything that an image depends on; strengths are in standard deviations."""

    person: Person
    prompt: str
    seed: int = 0
    strengths: Mapping[str, float] = field(default_factory=dict)
    keep: tuple[str, ...] = ()
    other: Person | None = None
    share: float = 0.0
    steps: int = 20
    guidance: float = 3.0
    inject_at: int | None = None
    name: str = ""

    @property
    def edits(self) -> list[tuple[dict[str, float], list[str]]]:
        """The edits in their order: strengths, and what they keep. A label does not keep itself."""
        moved = {label: amount for label, amount in self.strengths.items() if amount}
        free = {label: amount for label, amount in moved.items() if label not in self.keep}
        held = [
            ({label: moved[label]}, [one for one in self.keep if one != label])
            for label in moved
            if label in self.keep
        ]
        return [*([(free, list(self.keep))] if free else []), *held]


class Models:
    """The models of states in one space, with the directions that they need."""

    def __init__(self, space: WeightSpace):
        self.space = space
        self._found: dict[tuple[str, ...], Direction] = {}
        self.labels: dict[str, Direction] = {}
        for label in space.labels.columns:
            try:
                self.labels[label] = self.direction(label)
            except InputError:
                continue  # nobody has it, or everybody

    def direction(self, label: str, keep: Sequence[str] = ()) -> Direction:
        """Return the direction of a label that keeps others."""
        key = (label, *keep)
        if key not in self._found:
            if len(self._found) > 2000:
                self._found.clear()
            self._found[key] = self.space.direction(label, keep=list(keep))
        return self._found[key]

    def person(self, state: State) -> Model:
        """Return the model before its edits."""
        if state.other is None or not state.share:
            return state.person.model
        one, two = state.person.model, state.other.model
        return interpolate(one, two, state.share, space=self.space)

    def edited(self, state: State) -> Model:
        """Return the model of a state."""
        model = self.person(state)
        for strengths, keep in state.edits:
            amounts = {self.direction(name, keep): amount for name, amount in strengths.items()}
            model = edit(model, amounts, space=self.space)
        return model

    def weights(self, model: Model) -> Tensor:
        """Return the weights "d" of a model."""
        return stack_models(model, space=self.space)[1][0].detach().cpu()

    def drawing(self, state: State, steps: int | None = None) -> Drawing:
        """Return the request for the image of a state."""
        late = state.inject_at is not None
        original = self.weights(self.person(state)) if late else None
        weights = self.weights(self.edited(state))
        words = state.prompt, state.seed, steps or state.steps, state.guidance
        return Drawing(weights, *words, inject_at=state.inject_at, original=original)

    def also_moves(self, label: str, keep: Sequence[str], count: int = 5) -> dict[str, float]:
        """Return the labels that an edit of one moves most, with the cosine of both directions."""
        normal = self.direction(label, [one for one in keep if one != label]).normal
        cosines = {
            name: float(normal[: len(other.normal)] @ other.normal[: len(normal)])
            for name, other in self.labels.items()
            if name != label
        }
        return dict(sorted(cosines.items(), key=lambda one: -abs(one[1]))[:count])


def to_recipe(state: State, models: Models) -> bytes:
    """Return a state as JSON; equal states give equal bytes."""
    facts = {
        "weights2weights_recipe": VERSION,
        "space": models.space.hash,
        "person": _packed(state.person),
        "other": None if state.other is None else _packed(state.other),
        "set": {name: amount for name, amount in state.strengths.items() if amount},
        "keep": list(state.keep),
        **{name: getattr(state, name) for name in ("share", "prompt", "seed", "steps")},
        **{name: getattr(state, name) for name in ("guidance", "inject_at", "name")},
    }
    return canonical_json(facts)


def from_recipe(data: bytes, models: Models) -> State:
    """Return the state of a recipe.

    Raises:
        InputError: not a recipe, of another space, or with a value outside its range.
    """
    if len(data) > _MOST_BYTES:
        raise InputError(f"a recipe of {len(data):,} bytes: expected at most {_MOST_BYTES:,}")
    try:
        facts = json.loads(data)
        if facts["weights2weights_recipe"] != VERSION:
            raise InputError("a recipe of another version: expected one of this studio")
        if facts["space"] != models.space.hash:
            raise InputError("the recipe is of another space: open the studio with that --space")
        other, inject = facts["other"], facts["inject_at"]
        labels = models.labels
        return State(
            _unpacked(facts["person"], models.space),
            _text(facts["prompt"]),
            _number(facts["seed"], 0, 2**32 - 1, "seed"),
            {
                _label(name, labels): float(_number(amount, -MOST_STRENGTH, MOST_STRENGTH, name))
                for name, amount in facts["set"].items()
            },
            tuple(_label(name, labels) for name in facts["keep"]),
            None if other is None else _unpacked(other, models.space),
            float(_number(facts["share"], 0.0, 1.0, "share")),
            _number(facts["steps"], 1, MOST_STEPS, "steps"),
            float(_number(facts["guidance"], 1.0, 10.0, "guidance")),
            None if inject is None else _number(inject, 0, 1000, "inject_at"),
            _text(facts["name"]),
        )
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"not a recipe ({shown(str(error), 60)}): expected one of a studio"
        ) from error


def to_link(recipe: bytes) -> str | None:
    """Return a recipe as letters of a link, or None if it is too long for one."""
    text = base64.urlsafe_b64encode(zlib.compress(recipe, 9)).decode()
    return text if len(text) <= MOST_LINK else None


def from_link(text: str) -> bytes:
    """Return the recipe of a link.

    Raises:
        InputError: the link is damaged, or unfolds into more than a link can hold.
    """
    try:
        packed = base64.urlsafe_b64decode(text[: 2 * MOST_LINK])
        inflate = zlib.decompressobj()
        data = inflate.decompress(packed, 1 << 16)
    except (ValueError, zlib.error) as error:
        raise InputError("the link is damaged: copy the whole of it") from error
    if not inflate.eof:
        raise InputError("the link is damaged: copy the whole of it")
    return data


def python_lines(state: State, space: str, base: str) -> str:
    """Return a program that draws the image of a state; `person.safetensors` is its person."""
    lines = ["import weights2weights as w2w", "", f"base = w2w.load_base({base!r})"]
    lines += [f"space = w2w.WeightSpace.from_pretrained({space!r})"]
    lines += [f"person = {_python_person(state.person, 'person')}"]
    if state.other is not None and state.share:
        lines += [f"other = {_python_person(state.other, 'other')}"]
        lines += [f"person = w2w.interpolate(person, other, {state.share!r}, space=space)"]
    lines += ["edited = person"]
    for strengths, keep in state.edits:
        moves = ", ".join(
            f"space.direction({name!r}, keep={keep!r}): {amount!r}"
            for name, amount in strengths.items()
        )
        lines += [f"edited = w2w.edit(edited, {{{moves}}}, space=space)"]
    scene = "" if state.inject_at is None else f", inject_at={state.inject_at}, original=person"
    lines += [f"prompt = {state.prompt!r}", "images = w2w.generate("]
    lines += [f"    base, edited, space=space, prompts=prompt, seeds={state.seed},"]
    lines += [f"    steps={state.steps}, guidance={state.guidance!r}{scene}", ")"]
    return "\n".join([*lines, 'w2w.image_grid(images, cell=base.size).save("image.png")', ""])


def command_lines(state: State, space: str, base: str) -> str:
    """Return the commands that draw the image of a state."""
    where: list[Any] = ["--space", space]
    lines: list[list[Any]] = []
    model = _command_person(state.person, "person", space, lines)
    if state.other is not None and state.share:
        other = _command_person(state.other, "other", space, lines)
        mix = ["merge", model, "--with", other, "--interpolate", state.share, *where]
        lines.append([*mix, "--out", model := "mixed.safetensors"])
    before = model
    for number, (strengths, keep) in enumerate(state.edits, 1):
        sets = [
            word for name, amount in strengths.items() for word in ("--set", f"{name}={amount}")
        ]
        keeps = [word for name in keep for word in ("--keep", name)]
        words = ["edit", model, *sets, *keeps, *where]
        lines.append([*words, "--out", model := f"edited-{number}.safetensors"])
    words = ["generate", model, "--prompt", state.prompt, "--seeds", state.seed, *where]
    words += ["--base", base, "--steps", state.steps, "--guidance", state.guidance]
    if state.inject_at is not None:
        words += ["--inject-at", state.inject_at, "--original", before]
    lines.append([*words, "--out", "sheet.png", "--each", "images"])
    return "\n".join(shlex.join(["w2w", *map(str, words)]) for words in lines) + "\n"


def _python_person(person: Person, name: str) -> str:
    if person.seed is None:
        return f"w2w.load_model('{name}.safetensors')"
    return f"space.model(space.sample(1, seed={person.seed})[0], {{}})"


def _command_person(person: Person, name: str, space: str, lines: list[list[Any]]) -> str:
    if person.seed is None:
        return f"{name}.safetensors"
    lines.append(["sample", space, "-n", 1, "--seed", person.seed, "--out", "new"])
    return f"new/sample-{person.seed}-0000.safetensors"


def _packed(person: Person) -> dict[str, Any]:
    if person.seed is not None:
        return {"sample": person.seed}
    parts = {"coefficients": person.model.coefficients, "weights": person.model.weights}
    return {
        name: base64.b64encode(tensor.numpy().astype("<f4").tobytes()).decode()
        for name, tensor in parts.items()
        if tensor is not None
    }


def _unpacked(facts: Mapping[str, Any], space: WeightSpace) -> Person:
    if "sample" in facts:
        return Person.sampled(space, _number(facts["sample"], 0, 2**32 - 1, "sample"))
    sizes = {"coefficients": len(space), "weights": space.num_parameters}
    tensors = {name: _tensor(facts[name], size) for name, size in sizes.items() if name in facts}
    model = Model(
        space.layout,
        tensors.get("coefficients"),
        tensors.get("weights"),
        space.hash if "coefficients" in tensors else "",
        space.base_hash,
        {"verb": "studio"},
    )
    return Person(model)


def _tensor(text: str, size: int) -> Tensor:
    values = np.frombuffer(base64.b64decode(text, validate=True), "<f4")
    if values.shape != (size,):
        raise InputError(f"a person of {len(values)} numbers: expected {size}")
    return torch.from_numpy(values.astype(np.float32))


def _number(value: Any, low: float | int, high: float | int, name: str) -> Any:
    fine = isinstance(value, int | type(low)) and not isinstance(value, bool)
    if not fine or not (math.isfinite(value) and low <= value <= high):
        raise InputError(f"{shown(name, 40)} {shown(value, 40)}: expected {low:g} to {high:g}")
    return value


def _label(name: Any, labels: Mapping[str, Any]) -> str:
    if name not in labels:
        raise InputError(f"there is no attribute {shown(name, 60)} in this space")
    return name


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > MOST_LETTERS or not value.isprintable():
        raise InputError(f"expected one line of at most {MOST_LETTERS} letters")
    return value
