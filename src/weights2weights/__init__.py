"""weights2weights: a latent space whose points are personalised diffusion models.

The table of contents is `__init__.pyi`, in the order in which data flows: images of a subject →
LoRA → dataset of LoRAs → space → samples, directions, inversions → images and LoRA files. Names
are imported on first use, so `import weights2weights` costs nothing.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
