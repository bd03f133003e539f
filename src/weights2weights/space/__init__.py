"""The space of models: mean, std and m orthonormal components of standardised weight vectors.

On disk a space is a folder that can be shared as a Hugging Face model repository:

- `config.json`: format version, layout, hashes, how it was fitted, SHA-256 of the other files.
- `space.safetensors`: `mean`, `std` "d", float32; `components` "m d", float32, float16, or int8
  with `component_scales` "m".
- `models.safetensors`: the training models' `coefficients` "n k", float32 or float16.
- `models.parquet`: column `name`, then one nullable column per label; one row per training model.
- `updates.safetensors`: only of an `UpdateSpace`, the factors of its training updates.
- `README.md`: the model card.
"""

from ._hub import find_space
from ._space import Neighbours, WeightSpace
from ._store import verify_space
from ._updates import UpdateSpace, fit_updates

__all__ = [
    "Neighbours",
    "UpdateSpace",
    "WeightSpace",
    "find_space",
    "fit_updates",
    "verify_space",
]
