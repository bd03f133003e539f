"""A dataset is a folder of ordinary LoRA files: read, written, imported and packed here.

    loras/
        ada.safetensors     one model: a LoRA file that diffusers and `load_lora` open
        bob.safetensors
        labels.csv          optional; or labels.parquet
        dataset.json        the layout, base and recipe of all of them; optional too
        failed/eve.json     why a subject has no model

Every file is written in one stroke and depends on its model alone. So resuming is listing the
folder, any number of processes and machines may write at once without locks, damage costs one
model, and merging is copying files. `_folder` knows the names of the files, `_rows` reads and
writes one LoRA, `_dataset` is the object for users.
"""

from ._dataset import WeightDataset
from ._folder import is_dataset
from ._import import Imported, import_loras
from ._pack import pack
from ._stream import WeightBlocks

__all__ = ["Imported", "WeightBlocks", "WeightDataset", "import_loras", "is_dataset", "pack"]
