"""A dataset is a folder of ordinary LoRA files: read, written, imported and packed here.

    ada.safetensors     one model: a LoRA file that diffusers and `load_lora` open
    labels.csv          optional; or labels.parquet
    dataset.json        the layout, base and recipe of all of them; optional too
    failed/eve.json     why a subject has no model

Every file is written in one stroke and depends on its model alone: resuming is listing the folder,
any number of processes may write at once without locks, damage costs one model, and merging is
copying files.
"""

from ._dataset import WeightDataset
from ._folder import BASE, FACTS, is_dataset
from ._import import Imported, import_loras, list_loras
from ._pack import pack

__all__ = [
    "BASE",
    "FACTS",
    "Imported",
    "WeightDataset",
    "import_loras",
    "is_dataset",
    "list_loras",
    "pack",
]
