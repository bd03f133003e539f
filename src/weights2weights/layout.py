"""A LoRA is a point: the fixed order in which its tensors become one weight vector.

LoRAs of the same shape on the same base model are vectors of the same length: the tensors A and B
of every adapted layer, row-major, one after the other. A `WeightLayout` states which layers are
adapted, their widths, the rank and alpha, and hence the offset of every weight in the vector.

The order is the sorted order of the tensors' PEFT keys, A before B within a module: the order in
which a PEFT file lists its tensors, and that of the published dataset of Dravid et al. 2024. The
update of a layer is (alpha / rank) · B · A; **that factor is never part of the vector**.

This module is the only home of tensor names and of their order. Two vectors may be compared,
averaged or decomposed together only if their layouts have the same `hash`.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from .errors import InputError

PAPER_TARGETS = ("to_q", "to_v")
"""The layers adapted in the paper: query and value projections of self- and cross-attention."""

PAPER_ALPHA = 27.0
"""The LoRA alpha of the paper, at rank 1."""

Shape = tuple[int, ...]
Array = TypeVar("Array", Tensor, np.ndarray)

_PEFT_KEY = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<part>[AB])\.weight")


def peft_key(module: str, part: str) -> str:
    """Return the PEFT key of a LoRA tensor; `part` is "A" (rank × in) or "B" (out × rank)."""
    return f"base_model.model.{module}.lora_{part}.weight"


@dataclass(frozen=True)
class LoRAModule:
    """A linear layer that carries a LoRA.

    Attributes:
        name: path in the denoiser, "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q".
        in_features: width of its input, the columns of A.
        out_features: width of its output, the rows of B.
    """

    name: str
    in_features: int
    out_features: int

    @property
    def target(self) -> str:
        """The last part of the name, "to_q"; with the part before it if a number, "to_out.0"."""
        return _target(self.name)


class Entry(NamedTuple):
    """One LoRA tensor and its place in the weight vector."""

    key: str
    module: str
    offset: int
    count: int
    shape: Shape


@dataclass(frozen=True)
class LayoutDifference:
    """How something differs from what a layout expects; falsy if it does not.

    Attributes:
        missing: PEFT keys that were expected and are absent.
        left_over: PEFT keys that were not expected.
        reshaped: (key, actual shape, expected shape) of tensors present in both. A difference in
            rank is reported once, by `rank`, and not repeated here.
        rank: (actual, expected), or None if equal.
        alpha: the same for alpha.
    """

    missing: tuple[str, ...] = ()
    left_over: tuple[str, ...] = ()
    reshaped: tuple[tuple[str, Shape, Shape], ...] = ()
    rank: tuple[int, int] | None = None
    alpha: tuple[float, float] | None = None

    def __bool__(self) -> bool:
        return bool(self.missing or self.left_over or self.reshaped or self.rank or self.alpha)

    def __str__(self) -> str:
        parts = []
        if self.rank:
            parts.append("rank {}, expected {}".format(*self.rank))
        if self.alpha:
            parts.append("alpha {:g}, expected {:g}".format(*self.alpha))
        if self.missing:
            parts.append(f"{len(self.missing)} missing ({_shorten(self.missing)})")
        if self.left_over:
            parts.append(f"{len(self.left_over)} left over ({_shorten(self.left_over)})")
        if self.reshaped:
            shapes = [f"{k} is {_times(came)}, not {_times(due)}" for k, came, due in self.reshaped]
            parts.append(f"{len(shapes)} of another shape ({_shorten(shapes)})")
        return "; ".join(parts) or "no difference"


@dataclass(frozen=True)
class WeightLayout:
    """The meaning of each of the d weights of a LoRA vector.

    Immutable. Modules are put into canonical order on construction, so two layouts of the same
    layers are equal however they were listed.

    Attributes:
        modules: the adapted layers, in the order of their PEFT keys.
        rank: of every LoRA.
        alpha: LoRA alpha of every module; its update is (alpha / rank) · B · A.
        base: a name for the base model ("" if unknown). Not part of `hash`, because one base goes
            by many names.

    Raises:
        InputError: no modules, a module twice, a name or width that no LoRA can have.
    """

    modules: tuple[LoRAModule, ...]
    rank: int
    alpha: float
    base: str = ""

    def __post_init__(self):
        if not self.modules:
            raise InputError("a layout of no modules: expected at least one adapted layer")
        if self.rank < 1 or not math.isfinite(self.alpha) or self.alpha <= 0:
            raise InputError(
                f"rank {self.rank}, alpha {self.alpha}: expected a rank of at least 1 and a finite"
                " alpha above 0"
            )
        for module in self.modules:
            _check_module(module)
        for text in (self.base, *(module.name for module in self.modules)):
            if not _is_unicode(text):
                raise InputError(f"name {text!r}: expected text that can be written as UTF-8")
        ordered = tuple(sorted(self.modules, key=lambda module: peft_key(module.name, "A")))
        names = [module.name for module in ordered]
        if len(set(names)) < len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise InputError(f"modules listed twice: {_shorten(twice)}; expected each once")
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

        Only names and widths are read, so the network may be on torch's meta device.

        Args:
            denoiser: a UNet or transformer of diffusers, or any network with named linear layers.
            targets: last parts of module names, as in PEFT: "to_q", "to_out.0".
            rank: LoRA rank.
            alpha: LoRA alpha.
            base: a name for the base model.

        Raises:
            InputError: a target that matches no layer, or one that is not `nn.Linear`.
        """
        modules, unmatched = [], set(targets)
        for name, layer in denoiser.named_modules():
            matched = {target for target in targets if f".{name}".endswith(f".{target}")}
            if not matched:
                continue
            if not isinstance(layer, nn.Linear):
                raise InputError(
                    f"target {min(matched)!r} matches {name}, a {type(layer).__name__}: expected"
                    " nn.Linear; name targets that match linear layers only"
                )
            unmatched -= matched
            modules.append(LoRAModule(name, layer.in_features, layer.out_features))
        if unmatched or not modules:
            layers = denoiser.named_modules()
            linear = {_target(name) for name, layer in layers if isinstance(layer, nn.Linear)}
            raise InputError(
                f"targets {sorted(unmatched)} match no layer of {type(denoiser).__name__}: expected"
                f" some of its linear layers ({_shorten(sorted(linear), 12)})"
            )
        return cls(tuple(modules), rank, alpha, base)

    @classmethod
    def from_shapes(
        cls, shapes: Mapping[str, Shape], alpha: float, base: str = ""
    ) -> "WeightLayout":
        """Read the layout off the shapes of LoRA tensors, such as those in a safetensors header.

        Args:
            shapes: PEFT key → shape, in any order.
            alpha: of every LoRA; tensors do not state it.
            base: a name for the base model.

        Raises:
            InputError: a key that is not a LoRA weight's, an A without its B, shapes that do not
                match, or several ranks.
        """
        pairs: dict[str, dict[str, Shape]] = {}
        for key, shape in shapes.items():
            match = _PEFT_KEY.fullmatch(key)
            if match is None:
                raise InputError(
                    f"key {key!r} is no LoRA weight: expected {peft_key('<module>', 'A')} or lora_B"
                )
            if len(shape) != 2:
                raise InputError(f"{key} has shape {_times(shape)}: expected a matrix")
            pairs.setdefault(match["module"], {})[match["part"]] = shape
        return cls._from_pairs(pairs, alpha, base)

    @classmethod
    def _from_pairs(
        cls, pairs: dict[str, dict[str, Shape]], alpha: float, base: str
    ) -> "WeightLayout":
        modules, ranks = [], set()
        for name, pair in pairs.items():
            if len(pair) < 2:
                present, absent = ("A", "B") if "A" in pair else ("B", "A")
                raise InputError(
                    f"{peft_key(name, present)} comes without its lora_{absent}: expected both;"
                    " the file is not complete"
                )
            (rank, width_in), (width_out, rank_out) = pair["A"], pair["B"]
            if rank != rank_out:
                raise InputError(
                    f"{name} has A of {_times(pair['A'])} and B of {_times(pair['B'])}: expected"
                    " rank × in and out × rank"
                )
            ranks.add(rank)
            modules.append(LoRAModule(name, width_in, width_out))
        if len(ranks) > 1:
            raise InputError(
                f"modules of ranks {', '.join(map(str, sorted(ranks)))}: expected one rank; resize"
                " the LoRA to a single rank first"
            )
        return cls(tuple(modules), ranks.pop() if ranks else 1, alpha, base)

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """Every tensor with its place in the vector, in the order of the vector."""
        entries, offset = [], 0
        for module in self.modules:
            shapes = {"A": (self.rank, module.in_features), "B": (module.out_features, self.rank)}
            for part, shape in shapes.items():
                entry = Entry(
                    peft_key(module.name, part), module.name, offset, math.prod(shape), shape
                )
                entries.append(entry)
                offset += entry.count
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
        return tuple(sorted({module.target for module in self.modules}))

    @cached_property
    def hash(self) -> str:
        """16 hex digits of SHA-256 over names, widths, order, rank and alpha; not over `base`."""
        facts = self.to_dict(with_base=False)
        text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def slices(self) -> tuple[tuple[LoRAModule, slice, slice], ...]:
        """Return (module, slice of A, slice of B) for every module, in order."""
        return self._slices

    @cached_property
    def _slices(self) -> tuple[tuple[LoRAModule, slice, slice], ...]:
        spans = [slice(entry.offset, entry.offset + entry.count) for entry in self.entries]
        return tuple(zip(self.modules, spans[::2], spans[1::2], strict=True))

    def flatten(self, state_dict: Mapping[str, Array]) -> Float[Array, "*batch d"]:
        """Concatenate LoRA tensors into weight vectors. Inverse of `unflatten`, bit for bit.

        Args:
            state_dict: exactly the tensors of this layout under their PEFT keys, in any order,
                torch or NumPy, any floating dtype; each may have the same leading batch axes before
                its two own.

        Returns:
            vectors of length d, on the device and in the dtype of the tensors (the common dtype
            that holds all of them, if they differ).

        Raises:
            InputError: tensors are missing, left over, of another shape or not floating-point.
        """
        self._require_tensors(state_dict)
        tensors = (state_dict[entry.key] for entry in self.entries)
        rows = [tensor.reshape(*tensor.shape[:-2], -1) for tensor in tensors]
        return _concatenate(rows)

    def unflatten(self, weights: Float[Array, "*batch d"]) -> dict[str, Array]:
        """Split weight vectors into LoRA tensors under PEFT keys, as views. Inverse of `flatten`.

        Args:
            weights: vectors of length d with any leading batch axes, torch or NumPy.

        Returns:
            PEFT key → tensor of shape (*batch, rank, in) or (*batch, out, rank), in the order of
            the vector.

        Raises:
            InputError: the last axis is not d.
        """
        if weights.shape[-1:] != (self.num_parameters,):
            raise InputError(
                f"weights of shape {_times(weights.shape)}: expected a last axis of"
                f" {self.num_parameters}, rank {self.rank} on {len(self.modules)} modules;"
                " use the layout that they were made with"
            )
        batch = weights.shape[:-1]
        return {
            entry.key: weights[..., entry.offset : entry.offset + entry.count].reshape(
                *batch, *entry.shape
            )
            for entry in self.entries
        }

    def _require_tensors(self, state_dict: Mapping[str, Any]) -> None:
        shapes = {key: tuple(tensor.shape) for key, tensor in state_dict.items()}
        batch = shapes.get(self.entries[0].key, ())[:-2]
        expected = {entry.key: (*batch, *entry.shape) for entry in self.entries}
        if difference := _compare_shapes(shapes, expected):
            raise InputError(f"LoRA tensors that do not fit their layout: {difference}")
        for key, tensor in state_dict.items():
            floating = (
                tensor.is_floating_point()
                if isinstance(tensor, Tensor)
                else np.issubdtype(tensor.dtype, np.floating)
            )
            if not floating:
                raise InputError(f"{key} holds {tensor.dtype}: expected floating-point numbers")

    def difference(self, other: "WeightLayout") -> LayoutDifference:
        """Return how another layout differs from this one; `base` is ignored."""
        at_our_rank = replace(other, rank=self.rank)
        came = {entry.key: entry.shape for entry in at_our_rank.entries}
        expected = {entry.key: entry.shape for entry in self.entries}
        return replace(
            _compare_shapes(came, expected),
            rank=(other.rank, self.rank) if other.rank != self.rank else None,
            alpha=(other.alpha, self.alpha) if other.alpha != self.alpha else None,
        )

    def require_equal(self, other: "WeightLayout", what: str) -> None:
        """Raise InputError unless `other` gives every weight the same meaning as this layout.

        Args:
            other: the layout to check.
            what: whose layout it is, for the message: "adam.safetensors".
        """
        if difference := self.difference(other):
            raise InputError(
                f"{what} has another layout: {difference}; only LoRAs of one base, rank, alpha and"
                " set of layers share a space"
            )

    def to_dict(self, *, with_base: bool = True) -> dict[str, Any]:
        """Return the layout as JSON values. Inverse of `from_dict`."""
        modules = [[m.name, m.in_features, m.out_features] for m in self.modules]
        facts = {"modules": modules, "rank": self.rank, "alpha": self.alpha}
        return {**facts, "base": self.base} if with_base else facts

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> "WeightLayout":
        """Read a layout back from JSON values, which may come from an untrusted file.

        Raises:
            InputError: a field is missing or of another type.
        """
        try:
            modules = tuple(
                LoRAModule(str(name), _integer(width_in), _integer(width_out))
                for name, width_in, width_out in facts["modules"]
            )
            rank, alpha = _integer(facts["rank"]), float(facts["alpha"])
            base = str(facts.get("base", ""))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InputError(
                f"a stored layout that cannot be read ({type(error).__name__}: {error}): expected"
                " modules as [name, in, out], rank, alpha and base"
            ) from error
        return cls(modules, rank, alpha, base)


def _target(name: str) -> str:
    parts = name.split(".")
    return ".".join(parts[-2:] if parts[-1].isdecimal() else parts[-1:])


def _check_module(module: LoRAModule) -> None:
    parts = module.name.split(".")
    # A part such as "lora_A" would let another module's key sort between an A and its B.
    if not all(parts) or any(part.startswith("lora_") for part in parts):
        raise InputError(
            f"module name {module.name!r}: expected the path of a layer without a LoRA"
        )
    if module.in_features < 1 or module.out_features < 1:
        raise InputError(
            f"{module.name} is {module.in_features} wide in, {module.out_features} out: expected"
            " at least 1"
        )


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair
        return False
    return True


def _compare_shapes(came: Mapping[str, Shape], expected: Mapping[str, Shape]) -> LayoutDifference:
    return LayoutDifference(
        missing=tuple(key for key in expected if key not in came),
        left_over=tuple(sorted(key for key in came if key not in expected)),
        reshaped=tuple(
            (key, came[key], shape)
            for key, shape in expected.items()
            if key in came and came[key] != shape
        ),
    )


def _concatenate(rows: list[Any]) -> Any:
    return torch.cat(rows, -1) if isinstance(rows[0], Tensor) else np.concatenate(rows, -1)


def _integer(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is not an integer")
    return value


def _times(shape: Iterable[int]) -> str:
    return "×".join(map(str, shape)) or "no axes"


def _shorten(items: Sequence[str], most: int = 3) -> str:
    more = [f"{len(items) - most} more"] if len(items) > most else []
    return ", ".join([*items[:most], *more])
