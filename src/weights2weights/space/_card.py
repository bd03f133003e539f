"""A space in words: its summary and its model card."""

import json
import math

from ..protocols import Space


def summary(space: Space) -> dict[str, str]:
    """Return the key facts of a space, in display order."""
    layout, captured = space.layout, space.metadata.get("captured_variance", math.nan)
    share = f"{captured:.1%}" if math.isfinite(captured) else "unknown"
    bound = space.metadata.get("error_bound", 0.0)
    if 0 < bound < math.inf:
        share += f" (no {len(space):,} directions capture {bound:.2%} more)"
    return {
        "base model": layout.base or "unknown",
        "LoRA": f"rank {layout.rank}, alpha {layout.alpha:g}, "
        f"{', '.join(layout.targets)} in {len(layout.modules)} modules",
        "parameters per model": f"{layout.num_parameters:,}",
        "components": f"{len(space):,}",
        "training models": f"{len(space.names):,}",
        "captured variance": share,
        "labels": ", ".join(map(str, space.labels.columns)) or "none",
        "layout": layout.hash,
        "space": space.hash,
    }


def model_card(space: Space) -> str:
    """Return the README.md of a space; licence and provenance are the owner's to add."""
    base = space.layout.base
    head = ["library_name: weights2weights", "tags:", "- weights2weights", "- lora"]
    if base.count("/") == 1 and base.replace("/", "").replace("-", "").replace(".", "").isascii():
        head.append(f"base_model: {json.dumps(base)}")
    cells = {
        key: " ".join(value.replace("|", "\\|").split()) for key, value in summary(space).items()
    }
    how = "flattened,\nstandardised and decomposed into principal components"
    if space.metadata.get("of") == "updates":
        how = "compared by\ntheir updates and decomposed into principal components"
    table = "\n".join(f"| {key} | {cell} |" for key, cell in cells.items())
    return f"""---
{chr(10).join(head)}
---

# A space of personalised diffusion models

Every point of this space is a LoRA of the base model that draws one subject. It was made with
[weights2weights](https://arxiv.org/abs/2406.09413): LoRAs of many subjects are {how}.

| | |
|---|---|
{table}

## Use

```python
from weights2weights import WeightSpace

space = WeightSpace.from_pretrained("this folder or repository")
coefficients = space.project(weights)  # weights: (n, {space.layout.num_parameters})
weights = space.to_weights(coefficients)  # coefficients: (n, {len(space)})
```

The space inherits the biases of its training models: attributes that occur together in them are
entangled here. It cannot represent subjects unlike any of them faithfully.
"""
