"""Many personalised models in one forward pass: sample i of the batch runs through LoRA index[i].

`adapt` puts a stack of K LoRAs, given as weight vectors (K, d), onto the linear layers that a
`WeightLayout` names, for the length of a `with` block:

    y_i = W x_i + (alpha / rank) · B_k A_k x_i,    k = index[i]

Weights, names, hooks and the state dict of the base never change: a target layer's class is swapped
for a subclass that adds the low-rank term to what the layer computes, and swapped back at the end.
A and B are views into the weight vectors, so an optimiser's step on those takes effect at once.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple, no_type_check

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .errors import InputError
from .layout import WeightLayout

_Linear = nn.Linear if TYPE_CHECKING else object


@contextmanager
def adapt(
    denoiser: nn.Module,
    layout: WeightLayout,
    weights: Float[Tensor, "k d"],
    index: Int[Tensor, " batch"] | None = None,
) -> Iterator["Adapter"]:
    """Run every sample of a batch through its own LoRA; afterwards the denoiser is as before.

    Costs two thin matrix products per target layer; any order but K equal consecutive groups also
    gathers rows of A and B in each pass. A layer carries one stack at a time.

    Args:
        denoiser: a UNet or transformer with the layers of `layout`, not compiled.
        layout: of the weights; provides the factor alpha / rank, which is not in `weights`.
        weights: one flattened LoRA per row, any floating dtype and device: constants; a leaf to
            train, by steps in place; or results, assigned to `Adapter.weights` in each step.
        index: for each sample the row of `weights` that it runs through. None: the batch is K
            equal consecutive groups, the first of them through row 0. A batch that is a multiple of
            the index repeats it, as the [unconditional, conditional] halves of classifier-free
            guidance need: **with guidance and K > 1, give an index** such as `torch.arange(K)`.

    Yields:
        the `Adapter`, which replaces weights and index, or switches the stack off.

    Raises:
        InputError: layers that are missing, of another width, not `nn.Linear`, already adapted or
            patched by another library; `weights` or `index` that do not fit; in a forward pass, a
            batch that cannot be divided.

    Example:
        >>> layers = nn.ModuleDict({"to_q": nn.Linear(2, 1)})
        >>> layout = WeightLayout.from_denoiser(layers, targets=["to_q"], alpha=10.0)
        >>> x, two_loras = torch.ones(2, 2), torch.tensor([[1.0, 0.0, 0.5], [1.0, 1.0, 0.5]])
        >>> plain = layers["to_q"](x)
        >>> with adapt(layers, layout, two_loras):
        ...     [round(value) for value in (layers["to_q"](x) - plain).flatten().tolist()]
        [5, 10]

    Source: Dravid et al. 2024, arXiv:2406.09413, section 3.1, for LoRAs one at a time.
    """
    layers = find_layers(denoiser, layout)
    _refuse_patched(denoiser, layout)
    adapter = Adapter(layout, layers, weights, index)
    with adapter._on_layers(), adapter._seen_by_checkpoints(denoiser.modules()):
        yield adapter


class _Groups(NamedTuple):
    """A checked index: the batch is cut into equally long groups of samples that share one row."""

    index: Tensor  # as given
    rows: Tensor  # row of the weights for each group
    in_order: bool  # the rows are 0 … K - 1, so nothing needs to be gathered


def _groups(index: Tensor | None, K: int) -> _Groups | None:
    if index is None:
        return None
    if index.ndim != 1 or index.is_floating_point() or not index.numel():
        raise InputError(
            f"an index of shape {tuple(index.shape)} and {index.dtype}: expected one whole number"
            " per sample, the row of its LoRA"
        )
    on_cpu = index.detach().to("cpu", torch.int64)
    if on_cpu.min() < 0 or on_cpu.max() >= K:
        raise InputError(
            f"an index from {on_cpu.min()} to {on_cpu.max()} for {K} LoRAs: expected rows from 0 to"
            f" {K - 1}"
        )
    _, lengths = torch.unique_consecutive(on_cpu, return_counts=True)
    rows = on_cpu[:: math.gcd(*lengths.tolist())]
    return _Groups(index, rows.to(index.device), torch.equal(rows, torch.arange(K)))


class _Stack(NamedTuple):
    """Everything a forward pass depends on, replaced as a whole."""

    weights: Tensor
    tensors: Sequence[tuple[Tensor, Tensor]]  # per layer A "k in r" and B "k r out", views
    groups: _Groups | None  # which samples take which row; None for K equal consecutive groups
    enabled: bool = True

    @no_type_check
    def select(self, position, batch):
        """Return A and B of a layer for every group of a batch."""
        (A, B), groups = self.tensors[position], self.groups
        size, what = (len(A), "LoRAs") if groups is None else (len(groups.index), "index entries")
        if batch % size:
            raise InputError(
                f"a batch of {batch} for {size} {what}: expected a multiple of {size}; give an"
                " index with one entry per sample"
            )
        if groups is None or len(A) == 1 or (groups.in_order and batch == size):
            return A, B
        rows = groups.rows.to(A.device)
        rows = rows.repeat(batch // size) if len(rows) > 1 else rows
        return A[rows], B[rows]


class Adapter:
    """The stack of LoRAs on a denoiser inside `with adapt(...)`.

    Assigning `weights`, `index` or `enabled` takes effect in the next forward pass; a value that
    does not fit raises `InputError` and changes nothing. Under gradient checkpointing a part of the
    network is recomputed with the stack of its first pass, whatever was assigned since.
    """

    def __init__(
        self,
        layout: WeightLayout,
        layers: Sequence[nn.Linear],
        weights: Float[Tensor, "k d"],
        index: Int[Tensor, " batch"] | None,
    ):
        self.layout, self._layers = layout, layers
        self._stack = _Stack(weights, self._cut(weights), _groups(index, weights.shape[0]))

    @property
    def weights(self) -> Float[Tensor, "k d"]:
        """The K weight vectors in use, as given."""
        return self._stack.weights

    @weights.setter
    def weights(self, weights: Float[Tensor, "k d"]) -> None:
        tensors, groups = self._cut(weights), self._stack.groups
        if weights.shape[0] != self.weights.shape[0]:
            groups = _groups(self.index, weights.shape[0])
        self._stack = self._stack._replace(weights=weights, tensors=tensors, groups=groups)

    @property
    def index(self) -> Int[Tensor, " batch"] | None:
        """The row of `weights` of each sample; None for K equal consecutive groups."""
        return None if self._stack.groups is None else self._stack.groups.index

    @index.setter
    def index(self, index: Int[Tensor, " batch"] | None) -> None:
        self._stack = self._stack._replace(groups=_groups(index, self.weights.shape[0]))

    @property
    def enabled(self) -> bool:
        """Whether the LoRAs are on; when off, the base is bit-equal to its plain self."""
        return self._stack.enabled

    @enabled.setter
    def enabled(self, enabled: bool) -> None:
        self._stack = self._stack._replace(enabled=enabled)

    def _cut(self, weights: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Cut weights into A "k in r" and B "k r out" of every layer: one autograd node for all.

        The "unsafe" split hides from autograd that its parts are views, so that an optimiser may
        change a leaf in place. One slice per tensor would cost a zero-filled gradient (k, d) each.
        """
        layout, floats = self.layout, weights.is_floating_point()
        if not floats or weights.shape != (max(1, len(weights)), layout.num_parameters):
            raise InputError(
                f"{weights.dtype} of shape {tuple(weights.shape)}: expected"
                f" (K, {layout.num_parameters}) floats, one row per LoRA of rank {layout.rank} on"
                f" {len(layout.modules)} layers"
            )
        counts = [part.stop - part.start for _, A, B in self.layout.slices() for part in (A, B)]
        with torch.enable_grad():  # the caller may be inside no_grad here and train later
            parts = iter(torch.unsafe_split_with_sizes(weights, counts, dim=1))
            return [
                (A.unflatten(1, (layout.rank, -1)).mT, B.unflatten(1, (-1, layout.rank)).mT)
                for A, B in zip(parts, parts, strict=True)
            ]

    @contextmanager
    def _on_layers(self) -> Iterator[None]:
        """Attach this adapter to its layers; then put back what was there."""
        before = [(layer, type(layer), vars(layer).get("_seat")) for layer in self._layers]
        try:
            for position, layer in enumerate(self._layers):
                vars(layer)["_seat"] = (self, position)
                layer.__class__ = _adapted(type(layer))
            yield
        finally:
            for layer, cls, seat in before:
                layer.__class__ = cls
                vars(layer)["_seat"] = seat
                if seat is None:
                    del vars(layer)["_seat"]

    @contextmanager
    def _seen_by_checkpoints(self, modules: Iterable[nn.Module]) -> Iterator[None]:
        """Make diffusers' gradient checkpoints remember the stack of their first pass."""
        name = "_gradient_checkpointing_func"
        before = [(m, vars(m)[name]) for m in modules if callable(vars(m).get(name))]
        try:
            for module, checkpoint in before:
                setattr(module, name, partial(self._checkpoint, checkpoint))
            yield
        finally:
            for module, checkpoint in before:
                setattr(module, name, checkpoint)

    @no_type_check
    def _checkpoint(self, checkpoint, function, *args, **kwargs):
        return checkpoint(partial(self._with_stack, self._stack, function), *args, **kwargs)

    @no_type_check
    def _with_stack(self, stack, function, *args, **kwargs):
        """Run a part of the denoiser with an earlier stack, even after this adapter has left."""
        current, seat = self._stack, vars(self._layers[0]).get("_seat")
        if stack is current and seat is not None and seat[0] is self:
            return function(*args, **kwargs)
        with self._on_layers():
            self._stack = stack
            try:
                return function(*args, **kwargs)
            finally:
                self._stack = current


class _AdaptedLayer(_Linear):
    """A linear layer while it carries LoRAs; `_seat` is (adapter, position in the layout)."""

    _seat: tuple[Adapter, int]

    @no_type_check
    def forward(self, x):
        adapter, position = self._seat
        stack = adapter._stack
        if not stack.enabled:
            return super().forward(x)
        kind = x.device.type
        if x.dtype == torch.float32 and torch.is_autocast_enabled(kind):
            x = x.to(torch.get_autocast_dtype(kind))  # here once, not in each of the products below
        A, B = stack.select(position, x.shape[0])
        grouped = x.reshape(A.shape[0], -1, x.shape[-1])
        y = super().forward(grouped)
        A, B, grouped, scale = A.to(y), B.to(y), grouped.to(y.dtype), adapter.layout.scale
        if A.shape[2] == 1:
            y = _AddOuter.apply(y, grouped, A, B, scale)
        else:
            y = y.baddbmm_(torch.bmm(grouped, A), B, alpha=scale)
        return y.reshape(*x.shape[:-1], y.shape[-1])


class _AddOuter(torch.autograd.Function):
    """y + scale · x A B of rank 1, as an outer product: faster on CPUs than a matrix product.

    Autograd's own derivative, with products as large as y, takes twice as long.
    """

    @staticmethod
    @no_type_check
    def forward(ctx, y, x, A, B, scale):
        xA = torch.bmm(x, A)
        ctx.mark_dirty(y)
        ctx.save_for_backward(x, A, B, xA)
        ctx.scale = scale
        return y.addcmul_(xA, B, value=scale)

    @staticmethod
    @once_differentiable  # a second time, xA would count as a constant
    @no_type_check
    def backward(ctx, grad):
        x, A, B, xA = ctx.saved_tensors
        of_y, of_x, of_A, of_B, _ = ctx.needs_input_grad
        grad_xA = torch.bmm(grad, B.mT) * ctx.scale if of_x or of_A else None
        return (
            grad if of_y else None,
            grad_xA * A.mT if of_x else None,
            torch.bmm(x.mT, grad_xA) if of_A else None,
            torch.bmm(xA.mT, grad) * ctx.scale if of_B else None,
            None,
        )


@cache
def _adapted(cls: type[nn.Linear]) -> type[nn.Linear]:
    """Return the adapted form of `nn.Linear` or of a subclass, such as a quantised one."""
    if issubclass(cls, _AdaptedLayer):
        return cls
    return type(f"Adapted{cls.__name__}", (_AdaptedLayer, cls), {})


def find_layers(denoiser: nn.Module, layout: WeightLayout) -> list[nn.Linear]:
    """Return the layers of a layout in its order, without what PEFT may have wrapped them in.

    Raises:
        InputError: a layer is missing, not `nn.Linear` or of another width.
    """
    modules = dict(denoiser.named_modules())
    if missing := [module.name for module in layout.modules if module.name not in modules]:
        base = f" of the layout's base, {layout.base}" if layout.base else " it was made for"
        raise InputError(
            f"{type(denoiser).__name__} lacks {len(missing)} of the {len(layout.modules)} layers"
            f" of the layout, such as {missing[0]}: expected the denoiser{base}"
        )
    layers = []
    for module in layout.modules:
        layer: Any = getattr(modules[module.name], "base_layer", modules[module.name])
        widths = f"of {module.in_features} to {module.out_features}"
        found = type(layer).__name__
        if isinstance(layer, nn.Linear):
            found = f"Linear of {layer.in_features} to {layer.out_features}"
        if found != f"Linear {widths}":
            raise InputError(
                f"{module.name} is a {found}: expected nn.Linear {widths} features; the layout is"
                " of another base"
            )
        layers.append(layer)
    return layers


def _refuse_patched(denoiser: nn.Module, layout: WeightLayout) -> None:
    """Raise InputError if a low-rank term on a layer is impossible or would have no effect."""
    for name in (module.name for module in layout.modules):
        layer, parent = map(denoiser.get_submodule, (name, name.rpartition(".")[0]))
        if isinstance(layer, _AdaptedLayer):
            fault = "is already adapted: leave the first `adapt` block, or assign its weights"
        elif hasattr(layer, "base_layer"):
            fault = (
                "already carries a LoRA of PEFT: `unload_lora_weights()` or PEFT's `unload()` it"
            )
        elif "forward" in vars(layer):
            fault = "has a forward that was replaced by another library: remove its hooks first"
        elif getattr(parent, "fused_projections", False):
            fault = "is bypassed by fused projections: call `unfuse_qkv_projections()`"
        else:
            continue
        raise InputError(f"{name} {fault}")
