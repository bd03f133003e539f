"""The dataset of models: one named weight vector per row, with labels, that survives anything.

A dataset is a folder:

- `manifest.json`: layout, base, recipe, the plan (all names in order), failures, and the name,
  SHA-256 and row names of every shard. The one file that changes, by an atomic rename.
- `shards/00000-<sha>.safetensors` …: tensor `weights` "n d", float32 or float16, for a fixed
  stretch of the plan each.
- `labels-<sha>.parquet`: column `name`, then one nullable column per label.
- `pending/000001-<sha>.safetensors` …: rows that were stored and whose shard is not complete yet;
  absent once the dataset is finished.
- `quarantine/`: damaged files that were moved aside, if there ever were any.

`_rows` writes and reads one file of rows, `_manifest` and `_labels` the other two kinds of file;
`_snapshot` says what a folder holds, `_writer` changes it, `_check` verifies it; `_imported` fills
it with LoRA files of others.
"""

from ._check import Problem
from ._dataset import NoSuchRow, WeightBlocks, WeightDataset
from ._imported import Imported, import_loras

__all__ = [
    "Imported",
    "NoSuchRow",
    "Problem",
    "WeightBlocks",
    "WeightDataset",
    "import_loras",
]
