"""The space of models: a mean, a std and m orthonormal components of standardised weight vectors.

On disk a space is a folder, laid out so that it can be shared as a Hugging Face model repository:

- `config.json`: format version, layout, base, counts, how it was fitted, SHA-256 of the others.
- `space.safetensors`: `mean`, `std` "d", `variances` "m", float32; `components` "m d", float32 or
  float16, memory-mapped when loaded, so that pages are read as they are used; or in int8 or int4
  with `component_scales` "m", which become float16 in memory.
- `models.safetensors`: the training models' `coefficients` "n k", float32 or float16.
- `models.parquet`: column `name`, then one nullable column per label; one row per training model.
- `README.md`: the model card.

`_space` is the maths, `_store` the folder, `_integers` components in few bits, `_card` the model
card.
"""

from ._space import Neighbours, WeightSpace
from ._store import find_space, verify_space

__all__ = ["Neighbours", "WeightSpace", "find_space", "verify_space"]
