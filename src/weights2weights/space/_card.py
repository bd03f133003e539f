"""The model card of a space: what it holds, how it was fitted, how to use it."""

import json
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._space import WeightSpace


def card(space: "WeightSpace") -> str:
    """Return the README.md of a space as a Hugging Face model repository.

    Nothing is claimed that the space does not know; licence and provenance are the owner's to add.
    """
    base = space.layout.base
    head = ["library_name: weights2weights", "tags:", "- weights2weights", "- lora"]
    if base.count("/") == 1 and base.replace("/", "").replace("-", "").replace(".", "").isascii():
        head.append(f"base_model: {json.dumps(base)}")
    captured = space.captured_variance
    share = f"{captured:.1%}" if math.isfinite(captured) else "unknown"
    bound = space.facts.get("error_bound")
    if isinstance(bound, float) and math.isfinite(bound):
        share += f" (no {len(space):,} directions hold more than {bound:.2%} above that)"
    rows = {
        "base model": base or "unknown",
        "LoRA": f"rank {space.layout.rank}, alpha {space.layout.alpha:g}, "
        f"{', '.join(space.layout.targets)} in {len(space.layout.modules)} modules",
        "numbers per model": f"{space.num_parameters:,}",
        "components": f"{len(space):,}",
        "training models": f"{len(space.names):,}",
        "captured variance": share,
        "labels": ", ".join(map(str, space.labels.columns)) or "none",
        "layout": f"`{space.layout.hash}`",
        "space": f"`{space.hash}`",
    }
    table = "\n".join(f"| {name} | {_cell(value)} |" for name, value in rows.items())
    return f"""---
{chr(10).join(head)}
---

# A space of personalised diffusion models

Every point of this space is a LoRA of the base model that draws one subject. It was made with
[weights2weights](https://arxiv.org/abs/2406.09413): LoRAs of many subjects are flattened,
standardised and decomposed into principal components.

| | |
|---|---|
{table}

## Use

```python
from weights2weights import WeightSpace

space = WeightSpace.from_pretrained("this folder or repository")
coefficients = space.project(weights)  # weights: (n, {space.num_parameters})
weights = space.to_weights(coefficients)  # coefficients: (n, {len(space)})
```

The space inherits the biases of its training models: attributes that occur together there are
entangled here. Subjects unlike all of them have no faithful point in it.
"""


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
