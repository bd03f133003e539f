"""A space in words: the rows of its summary and its model card."""

import html
import json
import math

from ._contents import Contents


def summary(contents: Contents) -> dict[str, str]:
    """Return what a reader wants to know of a space, in display order."""
    layout, captured = contents.layout, contents.captured_variance
    share = f"{captured:.1%}" if math.isfinite(captured) else "unknown"
    bound = contents.metadata.get("error_bound", 0.0)
    if 0 < bound < math.inf:
        share += f" (no {len(contents.components):,} directions capture {bound:.2%} more)"
    return {
        "base model": layout.base or "unknown",
        "LoRA": f"rank {layout.rank}, alpha {layout.alpha:g}, "
        f"{', '.join(layout.targets)} in {len(layout.modules)} modules",
        "parameters per model": f"{contents.num_parameters:,}",
        "components": f"{len(contents.components):,}",
        "training models": f"{len(contents.names):,}",
        "captured variance": share,
        "labels": ", ".join(map(str, contents.labels.columns)) or "none",
        "layout": layout.hash,
        "space": contents.hash,
    }


def html_table(contents: Contents) -> str:
    """Return the summary as an HTML table, for notebooks."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{name}</th>"
        f"<td style='text-align:left'>{html.escape(value)}</td></tr>"
        for name, value in summary(contents).items()
    )
    return f"<table><caption>WeightSpace</caption>{rows}</table>"


def model_card(contents: Contents) -> str:
    """Return the README.md of a space as a Hugging Face model repository.

    It claims nothing that the space does not know; licence and provenance are the owner's to add.
    """
    base = contents.layout.base
    head = ["library_name: weights2weights", "tags:", "- weights2weights", "- lora"]
    if base.count("/") == 1 and base.replace("/", "").replace("-", "").replace(".", "").isascii():
        head.append(f"base_model: {json.dumps(base)}")
    rows = summary(contents)
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
coefficients = space.project(weights)  # weights: (n, {contents.num_parameters})
weights = space.to_weights(coefficients)  # coefficients: (n, {len(contents.components)})
```

The space inherits the biases of its training models: attributes that occur together in them are
entangled here. It cannot represent subjects unlike any of them faithfully.
"""


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
