"""What it costs to keep every model in a file of its own, compared with packed shards.

    python benchmarks/dataset.py --rows 2000

1. Make N LoRA files (400 kB each by default), as training writes them, and pack them into shards.
   Both are kept in --folder, and a run that was interrupted continues.
2. Check that both hold the same rows, by the SHA-256 of all of them in order.
3. Stream: one full pass over all rows, digests checked, from files and from shards in turns.
4. Fit: the PCA from each, in turns; its variances must be equal.

A figure is the median over the rounds; caches are warm if the rows fit into memory. Progress goes
to stderr, the JSON to benchmarks/results/dataset.json.
"""

import argparse
import hashlib
import json
import os
import platform
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from weights2weights.dataset import WeightDataset, pack
from weights2weights.layout import LoRAModule, WeightLayout
from weights2weights.pca import fit_pca

RESULTS = Path(__file__).parent / "results" / "dataset.json"
BLOCK_VALUES = 2**22  # as WeightSpace.fit reads them


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--parameters", type=int, default=99_648, help="length of a row")
    parser.add_argument("--modules", type=int, default=64, help="adapted layers, as in SD 1.5")
    parser.add_argument("--components", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("benchmark-dataset"))
    parser.add_argument("--delete", action="store_true", help="delete the folder at the end")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()

    files = make(given.folder / "files", given)
    shards = open_or_pack(files, given.folder / "shards")
    print("comparing the contents", file=sys.stderr)
    rows = digest(files)
    assert rows == digest(shards), "files and shards hold other rows"
    rivals = {"files": files, "shards": shards}
    report: dict[str, Any] = {
        "machine": machine(),
        "rows": len(files),
        "parameters": files.layout.num_parameters,
        "gigabytes": len(files) * 4 * files.layout.num_parameters / 1e9,
        "components": given.components,
        "rounds": given.rounds,
        "seed": given.seed,
        "sha256": rows,
        "stream": compare(rivals, stream, given.rounds),
        "fit": compare(rivals, lambda dataset: fit(dataset, given.components), given.rounds),
    }
    for question in ("stream", "fit"):
        figures = report[question]
        ratio = figures["files"]["median"] / figures["shards"]["median"]
        figures["files_over_shards"] = ratio
        seconds = {name: figures[name]["median"] for name in rivals}
        print(f"{question}: {seconds} s, files / shards {ratio:.3f}", file=sys.stderr)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(report, indent=2) + "\n")
    if given.delete:
        shutil.rmtree(given.folder)


def make(folder: Path, given: argparse.Namespace) -> WeightDataset:
    """Write the LoRA files that are missing: a few shared directions, and noise."""
    each = given.parameters // given.modules
    modules = tuple(
        LoRAModule(f"down_blocks.{i}.attn1.to_q", each // 2, each - each // 2)
        for i in range(given.modules)
    )
    layout = WeightLayout(modules, rank=1, alpha=27.0)
    dataset = WeightDataset.create(folder, layout, recipe={"seed": given.seed})
    d = layout.num_parameters
    directions = torch.randn(20, d, generator=torch.Generator().manual_seed(given.seed))
    for row in tqdm(range(given.rows), desc="files", unit="row"):
        name = f"{row:06d}"
        if name not in dataset:
            generator = torch.Generator().manual_seed(given.seed + 1 + row)
            strengths = torch.randn(20, generator=generator) / torch.arange(1, 21)
            noise = torch.randn(d, generator=generator)
            dataset.write(name, strengths @ directions + noise, seed=row)
    assert len(dataset) == given.rows, f"{folder} holds other rows; give another --folder"
    return dataset


def open_or_pack(files: WeightDataset, folder: Path) -> WeightDataset:
    if (folder / "dataset.json").exists():
        packed = WeightDataset.open(folder)
        if packed.names == files.names:
            return packed
    shutil.rmtree(folder, ignore_errors=True)
    return pack(files, folder, progress=True)


def blocks(dataset: WeightDataset) -> Any:
    return dataset.blocks(max(1, BLOCK_VALUES // dataset.layout.num_parameters))


def digest(dataset: WeightDataset) -> str:
    sha256 = hashlib.sha256()
    for block in blocks(dataset):
        sha256.update(block.numpy().data)
    return sha256.hexdigest()


def stream(dataset: WeightDataset) -> list[float]:
    return [sum(float(block[:, 0].sum()) for block in blocks(dataset))]


def fit(dataset: WeightDataset, components: int) -> list[float]:
    return fit_pca(blocks(dataset), components).variances.tolist()


def compare(
    rivals: dict[str, WeightDataset], act: Callable[[WeightDataset], list[float]], rounds: int
) -> dict[str, Any]:
    """Time the rivals in turns, after a round of warming up; their answers must be equal."""
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    for number in range(rounds + 1):
        answers = []
        for name, dataset in rivals.items():
            start = time.perf_counter()
            answers.append(act(dataset))
            if number:
                seconds[name].append(time.perf_counter() - start)
            took = time.perf_counter() - start
            print(f"round {number} of {rounds}, {name}: {took:.1f} s", file=sys.stderr)
        assert answers[0] == answers[1], "files and shards give other results"
    return {
        name: {"median": statistics.median(taken), "smallest": min(taken), "largest": max(taken)}
        for name, taken in seconds.items()
    }


def machine() -> dict[str, Any]:
    return {
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "torch": torch.__version__,
    }


if __name__ == "__main__":
    main()
