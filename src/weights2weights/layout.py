"""The layout of a LoRA: the fixed order in which its tensors become one weight vector.

The vector holds the tensors A and B of every adapted layer, row-major, in the sorted order of their
PEFT keys (A before B): the order of PEFT files and of the dataset published by Dravid et al. 2024.
A layer's update is (alpha / rank) · B · A; **that factor is never part of the vector**. No other
module defines tensor names or their order; only vectors whose layouts share a `hash` may be mixed.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .errors import InputError

PAPER_TARGETS = ("to_q", "to_v")
"""The layers adapted in the paper: query and value projections of self- and cross-attention."""

PAPER_ALPHA = 27.0
"""The LoRA alpha of the paper, at rank 1."""

Shape = tuple[int, ...]

_PEFT_KEY = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<part>[AB])\.weight")


def peft_key(module: str, part: str) -> str:
    """Return the PEFT key of a LoRA tensor; `part` is "A" (rank × in) or "B" (out × rank)."""
    return f"base_model.model.{module}.lora_{part}.weight"


@dataclass(frozen=True)
class LoRAModule:
    """A linear layer that carries a LoRA: its path in the denoiser, and its widths.

    A has `in_features` columns, B `out_features` rows.
    """

    name: str
    in_features: int
    out_features: int


class Entry(NamedTuple):
    """One LoRA tensor and its place in the weight vector."""

    key: str
    module: str
    offset: int
    count: int
    shape: Shape


@dataclass(frozen=True)
class WeightLayout:
    """The meaning of each of the d weights of a LoRA vector.

    Attributes:
        modules: the adapted layers; put in the order of their PEFT keys on construction.
        rank: rank of every LoRA.
        alpha: LoRA alpha of every module; its update is (alpha / rank) · B · A.
        base: a name for the base model ("" if unknown); not part of `hash`, because one base goes
            by many names.

    Raises:
        InputError: no modules, a duplicate module, or an invalid name, width, rank or alpha.
    """

    modules: tuple[LoRAModule, ...]
    rank: int
    alpha: float
    base: str = ""

    def __post_init__(self):
        if not self.modules:
            raise InputError("a layout with no modules; expected at least one adapted layer")
        if self.rank < 1 or not 0 < self.alpha < math.inf:
            raise InputError(
                f"rank {self.rank}, alpha {self.alpha}: expected a rank of at least 1 and a finite"
                " alpha above 0"
            )
        for module in self.modules:
            parts = module.name.split(".")
            # A part such as "lora_A" would let another module's key sort between an A and its B.
            if not all(parts) or any(part.startswith("lora_") for part in parts):
                raise InputError(f"module name {module.name!r}: expected the path of a plain layer")
            if min(module.in_features, module.out_features) < 1:
                raise InputError(f"{module}: expected widths of at least 1")
        ordered = tuple(sorted(self.modules, key=lambda module: peft_key(module.name, "A")))
        names = [module.name for module in ordered]
        try:
            "".join([self.base, *names]).encode()
        except UnicodeEncodeError as error:  # half a surrogate pair
            raise InputError(f"name {error.object!a:.120} cannot be encoded as UTF-8") from error
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise InputError(f"duplicate modules: {_shorten(twice)}; list each once")
        object.__setattr__(self, "modules", ordered)
        object.__setattr__(self, "alpha", float(self.alpha))

    @classmethod
    def from_denoiser(
        cls,
        denoiser: nn.Module,
        targets: Sequence[str] = PAPER_TARGETS,
        rank: int = 1,
        alpha: float = PAPER_ALPHA,
        base: str = "",
    ) -> "WeightLayout":
        """Adapt every linear layer of a denoiser whose name ends in one of the targets.

        Args:
            denoiser: any network with named linear layers; may be on torch's meta device.
            targets: last parts of module names, as in PEFT: "to_q", "to_out.0".
            rank: of every LoRA.
            alpha: of every LoRA.
            base: a name for the base model.

        Raises:
            InputError: a target matches no layer, or one that is not `nn.Linear`.
        """
        modules, unmatched = [], set(targets)
        for name, layer in denoiser.named_modules():
            matched = {target for target in targets if f".{name}".endswith(f".{target}")}
            if not matched:
                continue
            if not isinstance(layer, nn.Linear):
                raise InputError(
                    f"target {min(matched)!r} matches {name}, a {type(layer).__name__}; expected"
                    " targets that match only nn.Linear"
                )
            unmatched -= matched
            modules.append(LoRAModule(name, layer.in_features, layer.out_features))
        if unmatched or not modules:
            layers = denoiser.named_modules()
            linear = {_target(name) for name, layer in layers if isinstance(layer, nn.Linear)}
            raise InputError(
                f"targets {sorted(unmatched)} match no layer of {type(denoiser).__name__}; its"
                f" linear layers are {_shorten(sorted(linear), 12)}"
            )
        return cls(tuple(modules), rank, alpha, base)

    @classmethod
    def from_shapes(
        cls, shapes: Mapping[str, Shape], alpha: float, base: str = ""
    ) -> "WeightLayout":
        """Infer the layout from the shapes of LoRA tensors: PEFT key → shape, in any order.

        Raises:
            InputError: a key that is not a LoRA weight's, an A without its B, shapes that do not
                match, or several ranks.
        """
        pairs: dict[str, dict[str, Shape]] = {}
        for key, shape in shapes.items():
            match = _PEFT_KEY.fullmatch(key)
            if match is None or len(shape) != 2:
                raise InputError(
                    f"{key!r} of shape {_times(shape)} is not a LoRA weight; expected a matrix"
                    f" named {peft_key('<module>', 'A')} or lora_B"
                )
            pairs.setdefault(match["module"], {})[match["part"]] = shape
        modules, ranks = [], set()
        for name, pair in pairs.items():
            if len(pair) < 2:
                raise InputError(f"{name} has only lora_{min(pair)}; expected lora_A and lora_B")
            (rank, width_in), (width_out, rank_of_B) = A, B = pair["A"], pair["B"]
            if rank != rank_of_B:
                raise InputError(
                    f"{name} has A of {_times(A)} and B of {_times(B)}; expected rank × in and"
                    " out × rank"
                )
            ranks.add(rank)
            modules.append(LoRAModule(name, width_in, width_out))
        if len(ranks) > 1:
            found = ", ".join(map(str, sorted(ranks)))
            raise InputError(f"modules of ranks {found}; resize the LoRA to one rank first")
        return cls(tuple(modules), max(ranks, default=1), alpha, base)

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """Every tensor with its place in the vector, in the order of the vector."""
        entries, offset = [], 0
        for module in self.modules:
            shapes = {"A": (self.rank, module.in_features), "B": (module.out_features, self.rank)}
            for part, shape in shapes.items():
                key, count = peft_key(module.name, part), math.prod(shape)
                entries.append(Entry(key, module.name, offset, count, shape))
                offset += count
        return tuple(entries)

    @cached_property
    def num_parameters(self) -> int:
        """Length d of a weight vector: rank · (in + out), summed over the modules."""
        return self.rank * sum(m.in_features + m.out_features for m in self.modules)

    @property
    def scale(self) -> float:
        """The factor alpha / rank of B · A in the forward pass, which is not in the vector."""
        return self.alpha / self.rank

    @property
    def targets(self) -> tuple[str, ...]:
        """Last name parts of the modules, sorted: what PEFT calls target modules."""
        return tuple(sorted({_target(module.name) for module in self.modules}))

    @property
    def of_transformer(self) -> bool:
        """Whether the modules are those of a diffusion transformer, not of a UNet."""
        blocks = ("transformer_blocks.", "single_transformer_blocks.")
        return any(module.name.startswith(blocks) for module in self.modules)

    @cached_property
    def hash(self) -> str:
        """16 hex digits of the SHA-256 of names, widths, order, rank and alpha, without `base`."""
        facts = {key: value for key, value in self.to_dict().items() if key != "base"}
        text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def slices(self) -> tuple[tuple[LoRAModule, slice, slice], ...]:
        """Return (module, slice of A, slice of B) for every module, in order."""
        return self._slices

    @cached_property
    def _slices(self) -> tuple[tuple[LoRAModule, slice, slice], ...]:
        spans = [slice(entry.offset, entry.offset + entry.count) for entry in self.entries]
        return tuple(zip(self.modules, spans[::2], spans[1::2], strict=True))

    def flatten(self, state_dict: Mapping[str, Tensor]) -> Float[Tensor, "*batch d"]:
        """Concatenate LoRA tensors into weight vectors. Inverse of `unflatten`, bit for bit.

        Args:
            state_dict: exactly the tensors of this layout under their PEFT keys, in any order,
                floating-point, all with the same leading batch axes.

        Raises:
            InputError: tensors are missing, left over, of another shape or not floating-point.
        """
        shapes = {key: tuple(tensor.shape) for key, tensor in state_dict.items()}
        batch = shapes.get(self.entries[0].key, ())[:-2]
        expected = {entry.key: (*batch, *entry.shape) for entry in self.entries}
        if difference := _compare_shapes(shapes, expected):
            raise InputError(f"the LoRA tensors do not fit their layout: {'; '.join(difference)}")
        for key, tensor in state_dict.items():
            if not tensor.is_floating_point():
                raise InputError(f"{key} is {tensor.dtype}; expected floating-point numbers")
        return torch.cat([state_dict[key].reshape(*batch, -1) for key in expected], -1)

    def unflatten(self, weights: Float[Tensor, "*batch d"]) -> dict[str, Tensor]:
        """Split weight vectors into LoRA tensors, as views. Inverse of `flatten`.

        Args:
            weights: vectors of length d with any leading batch axes.

        Returns:
            PEFT key → (*batch, rank, in) or (*batch, out, rank), in the order of the vector.

        Raises:
            InputError: the last axis is not d.
        """
        *batch, d = weights.shape
        if d != self.num_parameters:
            raise InputError(
                f"weights of shape {_times(weights.shape)}: expected a last axis of"
                f" {self.num_parameters}, rank {self.rank} on {len(self.modules)} modules;"
                " use the layout they were made with"
            )
        return {
            key: weights[..., offset : offset + count].reshape(*batch, *shape)
            for key, _, offset, count, shape in self.entries
        }

    def difference(self, other: "WeightLayout") -> str:
        """Return how another layout differs from this one, "" if only the base's name does."""
        pairs = {"rank": (other.rank, self.rank), "alpha": (other.alpha, self.alpha)}
        parts = [f"{key} {a:g}, expected {b:g}" for key, (a, b) in pairs.items() if a != b]
        ours, theirs = (
            {e.key: e.shape for e in at.entries} for at in (self, replace(other, rank=self.rank))
        )
        return "; ".join(parts + _compare_shapes(theirs, ours))

    def require_equal(self, other: "WeightLayout", what: str) -> None:
        """Raise InputError if `other`, which `what` names, gives any weight another meaning."""
        if difference := self.difference(other):
            raise InputError(
                f"{what} has another layout: {difference}; LoRAs share a space only if they have"
                " the same base, rank, alpha and layers"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the layout as JSON values. Inverse of `from_dict`."""
        modules = [[m.name, m.in_features, m.out_features] for m in self.modules]
        return {"modules": modules, "rank": self.rank, "alpha": self.alpha, "base": self.base}

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> "WeightLayout":
        """Restore a layout from JSON values, which may come from an untrusted file."""
        try:
            modules = tuple(
                LoRAModule(str(name), _integer(width_in), _integer(width_out))
                for name, width_in, width_out in facts["modules"]
            )
            rank, alpha = _integer(facts["rank"]), float(facts["alpha"])
            base = str(facts.get("base", ""))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InputError(
                f"the stored layout cannot be read ({type(error).__name__}: {error}); expected"
                " modules as [name, in, out], rank, alpha and base"
            ) from error
        return cls(modules, rank, alpha, base)


def _target(name: str) -> str:
    """Return the last part of a name, or two if the last is a number: "to_q", "to_out.0"."""
    parts = name.split(".")
    return ".".join(parts[-2:] if parts[-1].isdecimal() else parts[-1:])


def _compare_shapes(came: Mapping[str, Shape], expected: Mapping[str, Shape]) -> list[str]:
    """Return in words how shapes by PEFT key differ."""
    changed = [key for key in expected if key in came and came[key] != expected[key]]
    keys = {
        "missing": [key for key in expected if key not in came],
        "left over": sorted(came.keys() - expected.keys()),
        "of another shape": [
            f"{key} is {_times(came[key])}, not {_times(expected[key])}" for key in changed
        ],
    }
    return [f"{len(some)} {what} ({_shorten(some)})" for what, some in keys.items() if some]


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"{value!r} is not an integer")
    return value


def _times(shape: Iterable[int]) -> str:
    return "×".join(map(str, shape)) or "no axes"


def _shorten(items: Sequence[str], most: int = 3) -> str:
    more = [f"{len(items) - most} more"] if len(items) > most else []
    return ", ".join([*items[:most], *more])
