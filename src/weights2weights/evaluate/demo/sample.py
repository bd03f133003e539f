"""Stage 3: points of people who don't exist."""

import torch

from ... import sampling
from ...metrics.verification import verification_auc
from ...models import save_model
from ..page import Cell
from ..samples import report_samples
from ._stage import Demo, Stage

_SHOWN = 6


def sample(run: Demo, count: int) -> Stage:
    """Sample models from the space, and check that each is one person and not a copy."""
    setting, space = run.setting, run.setting.space
    points = sampling.sample(space, count, seed=setting.seed)
    components, scale = sampling.sampling_of(space)
    for row, point in enumerate(points):
        origin = {"verb": "demo", "seed": setting.seed, "row": row}
        path = run.out / "models" / f"sample-{row}.safetensors"
        save_model(path, space.model(point, origin))
    generated = setting.generate(space.to_weights(points), run.prompts, [setting.seed])
    identity = generated.identity.flatten(1, 2)
    people = torch.arange(count).repeat_interleave(identity.shape[1])
    report = report_samples(space, points)
    figures = {
        "models": count,
        "components": components,
        "scale": scale,
        "verification_auc": verification_auc(identity.flatten(0, 1), people),
        "cosine_to_nearest": report.nearest,
        "training_cosine_to_nearest": report.training_nearest,
    }
    rows = [
        [Cell(images[p, 0], run.scene(text)) for p, text in enumerate(run.prompts)]
        for images in generated.images[:_SHOWN]
    ]
    return Stage(figures, views={"rows": rows})
