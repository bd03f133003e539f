"""Measures of images, models and directions: pure formulas, and judges of drawings and photos."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    [
        *("alignment", "attributes", "confidence", "entanglement"),
        *("faces", "perceptual", "protocols", "verification"),
    ],
)
