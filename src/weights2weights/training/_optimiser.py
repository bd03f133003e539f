"""AdamW with one step size for each of a LoRA's two factors."""

from typing import Any

import torch
from torch import Tensor

from ..layout import WeightLayout
from ._recipe import DreamBoothConfig


def optimiser_for(
    weights: Tensor, layout: WeightLayout, recipe: DreamBoothConfig
) -> torch.optim.Optimizer:
    """Return the optimiser of K subjects' weights "k d", as `recipe.normalise` says.

    Its state of `weights` is `step`, `exp_avg` and `exp_avg_sq`.
    """
    settings = {
        "lr": recipe.learning_rate,
        "betas": recipe.betas,
        "weight_decay": recipe.weight_decay,
    }
    if recipe.normalise == "factor":
        return FactorAdamW(weights, layout, **settings)
    return torch.optim.AdamW([weights], fused=weights.device.type != "mps", **settings)


class FactorAdamW(torch.optim.Optimizer):
    """AdamW (Loshchilov and Hutter 2019) whose second moment is a mean over all A, or all B.

    AdamW divides each number's mean gradient by that number's own size of gradients, so that all
    numbers move equally fast, those too whose gradients are chance alone. Here the ratios of the
    numbers within a factor stay those of their gradients: what images do not speak of stands
    still. The two factors keep sizes of their own, since B begins at 0.

    Args:
        weights: the leaf "k d", one subject in each row.
        layout: says which of the d numbers are of A and which of B.
        lr, betas, weight_decay, eps: as of `torch.optim.AdamW`.
    """

    def __init__(
        self,
        weights: Tensor,
        layout: WeightLayout,
        *,
        lr: float,
        betas: tuple[float, float],
        weight_decay: float,
        eps: float = 1e-8,
    ):
        settings = {"lr": lr, "betas": betas, "weight_decay": weight_decay, "eps": eps}
        super().__init__([weights], settings)
        factor = layout.factors()
        members = torch.nn.functional.one_hot(factor, 2).float()
        self._factor = factor.to(weights.device)  # of every number: 0 for A, 1 for B
        self._mean = (members / members.sum(0)).to(weights.device)  # "d 2"

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Move every row by its gradient; `closure` is there for the signature alone."""
        (group,) = self.param_groups
        (weights,) = group["params"]
        gradient, (first, second) = weights.grad, group["betas"]
        state = self.state[weights]
        if not state:  # named as those of torch's AdamW, so that one checkpoint serves both
            state["step"] = torch.tensor(0.0, device=weights.device)
            state["exp_avg"] = torch.zeros_like(weights)
            state["exp_avg_sq"] = weights.new_zeros(len(weights), 2)
        state["step"] += 1
        state["exp_avg"].lerp_(gradient, 1 - first)
        state["exp_avg_sq"].lerp_(gradient.square() @ self._mean, 1 - second)
        scale = (state["exp_avg_sq"] / (1 - second ** state["step"])).sqrt() + group["eps"]
        weights.mul_(1 - group["lr"] * group["weight_decay"])
        move = state["exp_avg"] / (scale * (1 - first ** state["step"]))[:, self._factor]
        weights.sub_(move, alpha=group["lr"])
