"""What a dataset that loses nothing costs, against plain NumPy files.

    python benchmarks/dataset.py --models 512 --numbers 99648

1. Write: groups of rows as training finishes them, each on the disk before the next, against one
   `np.memmap` that is flushed after each group, and against one `np.save` of everything at the end,
   which keeps nothing of a run that dies.
2. Stream: all rows in blocks, from the page cache, through a product with a vector, against slices
   of `np.memmap`, plain and copied into memory as a consumer that writes or sends them must.
3. Pick: rows in random order.

Rivals take turns within each round; a figure is the median over the rounds, with the smallest and
the largest beside it. Processor seconds of one round are given too: on a machine that has other
work they are the ones to trust. What comes back is compared bit for bit. The JSON goes to stdout,
the table to stderr. MB are the numbers' own bytes, 10^6 each.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from weights2weights.dataset import WeightDataset
from weights2weights.layout import LoRAModule, WeightLayout


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=int, default=512, help="rows")
    parser.add_argument("--numbers", type=int, default=99_648, help="length of a row, even")
    parser.add_argument("--group", type=int, default=16, help="rows that are finished together")
    parser.add_argument("--block", type=int, default=128, help="rows that are streamed together")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="on the disk to measure; default: temporary")
    parser.add_argument("--out", type=Path, help="also write the JSON here")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)

    half = given.num_parameters // 2
    layout = WeightLayout(
        (LoRAModule("to_q", half, given.num_parameters - half),), rank=1, alpha=27.0
    )
    generator = torch.Generator().manual_seed(given.seed)
    rows = torch.randn(given.models, given.num_parameters, generator=generator)
    report: dict[str, Any] = {
        "machine": machine(),
        "models": given.models,
        "numbers": given.num_parameters,
        "megabytes": rows.numel() * 4 / 1e6,
        "group": given.group,
        "block": given.block,
        "rounds": given.rounds,
        "seed": given.seed,
    }
    with TemporaryDirectory(dir=given.folder) as folder:
        place = Path(folder)
        report["write"] = measure_write(place, layout, rows, given.group, given.rounds)
        report["stream"] = measure_stream(place, rows, given.block, given.rounds)
        report["pick"] = measure_pick(place, rows, given.seed, given.rounds)
    for question in ("write", "stream", "pick"):
        for rival, figure in report[question].items():
            spread = f"{figure['smallest']:,.0f}-{figure['largest']:,.0f}"
            rate, cpu = figure["median"], figure["processor_seconds"]
            line = (
                f"{question:7} {rival:16} {rate:8,.0f} MB/s  ({spread})  {cpu:.3f} s of processor"
            )
            print(line, file=sys.stderr)
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report))


def measure_write(
    place: Path, layout: WeightLayout, rows: torch.Tensor, group: int, rounds: int
) -> dict[str, Any]:
    """Store all rows; leaves `dataset` and `rows.npy` behind."""
    names = [f"subject {i}" for i in range(len(rows))]

    def dataset() -> None:
        shutil.rmtree(place / "dataset", ignore_errors=True)
        stored = WeightDataset.create(place / "dataset", layout, names=names)
        for start in range(0, len(rows), group):
            stored.append(names[start : start + group], rows[start : start + group])
        stored.finish()

    def memmap() -> None:
        path = place / "groups.npy"
        path.unlink(missing_ok=True)
        array = np.lib.format.open_memmap(path, "w+", np.float32, tuple(rows.shape))
        for start in range(0, len(rows), group):
            array[start : start + group] = rows[start : start + group].numpy()
            array.flush()

    def save() -> None:
        with (place / "rows.npy").open("wb") as file:
            np.save(file, rows.numpy())
            file.flush()
            os.fsync(file.fileno())

    rivals = {"dataset": dataset, "memmap, flushed": memmap, "save at the end": save}
    return compare(rivals, rows.nbytes, rounds)


def measure_stream(place: Path, rows: torch.Tensor, block: int, rounds: int) -> dict[str, Any]:
    """Run all rows past a vector, once per round."""
    vector = torch.randn(rows.shape[1], generator=torch.Generator().manual_seed(1))
    stored = WeightDataset.open(place / "dataset")
    mapped = np.load(place / "rows.npy", mmap_mode="c")  # private, so that torch may wrap it
    expected = torch.cat([part @ vector for part in rows.split(block)])

    def dataset() -> None:
        assert torch.equal(torch.cat([part @ vector for part in stored.blocks(block)]), expected)

    def memmap(copy: bool) -> None:
        parts = []
        for start in range(0, len(mapped), block):
            part = mapped[start : start + block]
            parts.append(torch.from_numpy(part.copy() if copy else part) @ vector)
        assert torch.equal(torch.cat(parts), expected)

    rivals = {
        "dataset": dataset,
        "memmap": lambda: memmap(False),
        "memmap, copied": lambda: memmap(True),
    }
    return compare(rivals, rows.nbytes, rounds)


def measure_pick(place: Path, rows: torch.Tensor, seed: int, rounds: int) -> dict[str, Any]:
    """Read an eighth of the rows in random order."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.randperm(len(rows), generator=generator)[: max(1, len(rows) // 8)].tolist()
    stored = WeightDataset.open(place / "dataset")
    mapped = np.load(place / "rows.npy", mmap_mode="r")

    def dataset() -> None:
        assert torch.equal(stored[index], rows[index])

    def memmap() -> None:
        assert torch.equal(torch.from_numpy(mapped[index]), rows[index])

    return compare({"dataset": dataset, "memmap": memmap}, len(index) * rows[0].nbytes, rounds)


def compare(
    rivals: dict[str, Callable[[], None]], size: int, rounds: int
) -> dict[str, dict[str, float]]:
    """Return each rival's rate in MB/s; all warm up once, then take turns."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in rivals}
    for number in range(rounds + 1):
        for name, act in rivals.items():
            start, busy = time.perf_counter(), time.process_time()
            act()
            if number:
                seconds[name].append((time.perf_counter() - start, time.process_time() - busy))
    figures = {}
    for name, taken in seconds.items():
        rates = [size / 1e6 / wall for wall, _ in taken]
        figures[name] = {
            "median": statistics.median(rates),
            "smallest": min(rates),
            "largest": max(rates),
            "processor_seconds": statistics.median(busy for _, busy in taken),
        }
    return figures


def machine() -> dict[str, Any]:
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": load,
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


if __name__ == "__main__":
    main()
