"""The updates ΔW = (alpha / rank) · B · A of LoRAs of any rank, seed and trainer.

As numbers, LoRAs that started from different A cannot be compared: (B M, M⁻¹ A) is the same model
for any invertible M. Their updates can, and linear algebra over updates needs only their inner
products, ⟨ΔW, ΔW'⟩ = Σ (A A'ᵀ) ∘ (Bᵀ B') summed over layers, which never form a product B A.
"""

from ._compress import compress, sum_updates
from ._folder import draw_map, labels_from_headers, near_copies, survey
from ._gram import EXACT_OPERATIONS, Gram, gram, products
from ._read import Update, modules_of, read_updates, stacked, update_of, update_of_model

__all__ = [
    "EXACT_OPERATIONS",
    "Gram",
    "Update",
    "compress",
    "draw_map",
    "gram",
    "labels_from_headers",
    "modules_of",
    "near_copies",
    "products",
    "read_updates",
    "stacked",
    "sum_updates",
    "survey",
    "update_of",
    "update_of_model",
]
