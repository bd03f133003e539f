"""Components in few bits: int8 and int4 with a scale for each row, whose signs stay what they were.

int8 holds round(v / scale), from −127 to 127, and ±1 for what would round to 0. int4 holds one of
the sixteen values (k + ½) · scale, k from −8 to 7, as k + 8 in half a byte: numbers 2j and 2j + 1
of a row in the lower and the upper half of its byte j.
"""

import torch
from jaxtyping import Float
from torch import Tensor

INT4: torch.dtype = torch.int4  # pyright: ignore[reportAttributeAccessIssue] # not in its stubs

DTYPES = {torch.int8: "I8", INT4: "U8"}
"""What a row may be stored in, and as what a file holds it."""

# Steps of int4 in units of a row's root mean square: 0.335 is the best for a normal distribution,
# heavier tails want a wider one.
_STEPS = [0.2 + 0.02 * i for i in range(26)]


def width(dtype: torch.dtype, d: int) -> int:
    """Return how many bytes a row of d numbers takes."""
    return (d + 1) // 2 if dtype == INT4 else d


def scales_of(rows: Float[Tensor, "m d"], dtype: torch.dtype) -> Float[Tensor, "m"]:
    """Return each row's scale: the largest value is 127 in int8; in int4 the best of some steps."""
    rows = rows.float()
    if dtype == torch.int8:
        return rows.abs().amax(1).clamp(min=1e-30) / 127
    size = rows.square().mean(1).sqrt()
    # The last is that of rows which were in int4 before: they are stored as they were.
    candidates = torch.stack([*(size * step for step in _STEPS), rows.abs().amax(1) / 7.5])
    candidates = candidates.clamp(min=1e-30)
    errors = [(_rounded(rows, scales) - rows).square().sum(1) for scales in candidates]
    return candidates.gather(0, torch.stack(errors).argmin(0, keepdim=True))[0]


def to_integers(
    rows: Float[Tensor, "m d"], scales: Float[Tensor, "m"], dtype: torch.dtype
) -> Tensor:
    """Round rows to their scales: int8 "m d", or two numbers a byte, uint8 "m ⌈d/2⌉"."""
    rows = rows.float()
    if dtype == torch.int8:
        units = (rows / scales[:, None]).round()
        return torch.where(units == 0, rows.sign(), units).to(torch.int8)
    halves = torch.nn.functional.pad(_levels(rows, scales) + 8, (0, rows.shape[1] % 2))
    halves = halves.to(torch.uint8)
    return halves[:, ::2] | halves[:, 1::2] << 4


def from_integers(stored: Tensor, scales: Float[Tensor, "m"], d: int) -> Float[Tensor, "m d"]:
    """Return rows of d numbers in float16."""
    if stored.dtype == torch.int8:
        return (stored * scales[:, None]).half()
    halves = torch.stack([stored & 15, stored >> 4], -1).flatten(1)[:, :d]
    return ((halves - 7.5) * scales[:, None]).half()


def _levels(rows: Tensor, scales: Tensor) -> Tensor:
    return (rows / scales[:, None]).floor().clamp(-8, 7)


def _rounded(rows: Tensor, scales: Tensor) -> Tensor:
    return (_levels(rows, scales) + 0.5) * scales[:, None]
