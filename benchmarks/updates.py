"""What inner products and merges of LoRAs of SDXL's size cost.

    python benchmarks/updates.py --small       # seconds
    python benchmarks/updates.py               # 1,000 LoRAs of rank 16 on 280 layers

1. Gram: the inner products of N random LoRAs of rank 16 on SDXL's to_q and to_v, exact or sketched
   as `gram` chooses for --operations. Exact products of some pairs check it. The factors are
   windows of one random float16 buffer, so that reading 23 GB from a disk is not measured.
2. Merge: two LoRAs into one of rank 16, by QR of the stacked factors (`sum_updates`), and as
   kohya's svd_merge_lora does: the whole update of every layer and its full SVD; on some layers.
   Their results must agree.

`of_matmul` is the time that the multiply-adds would take at the rate of `torch.mm` in this run,
divided by the time taken. The JSON goes to benchmarks/results/updates.json.
"""

import argparse
import json
import os
import platform
import resource
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from weights2weights.layout import LoRAModule, WeightLayout
from weights2weights.updates import Update, gram, products, sum_updates

RESULTS = Path(__file__).parent / "results" / "updates.json"
RANK = 16


def sdxl_modules(blocks: int = 70) -> tuple[LoRAModule, ...]:
    """The query and value projections of SDXL: a seventh of the blocks is 640 wide, others 1280."""
    modules = []
    for block in range(blocks):
        width = 640 if block % 7 == 0 else 1280
        for name, into in (("attn1", width), ("attn2", 2048)):
            path = f"down_blocks.1.attentions.0.transformer_blocks.{block}.{name}"
            modules.append(LoRAModule(f"{path}.to_q", width, width))
            modules.append(LoRAModule(f"{path}.to_v", into, width))
    return tuple(modules)


def random_loras(count: int, layout: WeightLayout, seed: int = 0) -> list[Update]:
    """LoRAs whose factors are windows of one random buffer, at random places."""
    random = torch.Generator().manual_seed(seed)
    widest = RANK * max(max(m.in_features, m.out_features) for m in layout.modules)
    buffer = torch.randn(64 * widest + 2**24, generator=random).half()

    def window(rows: int, columns: int) -> Tensor:
        first = int(torch.randint(len(buffer) - rows * columns, (), generator=random))
        return buffer[first : first + rows * columns].view(rows, columns)

    return [
        Update(
            f"{number:04d}",
            layout,
            {
                m.name: (window(RANK, m.in_features), window(m.out_features, RANK))
                for m in layout.modules
            },
        )
        for number in range(count)
    ]


def matmul_rate(size: int = 2048) -> float:
    """Multiply-adds per second of `torch.mm` in float32."""
    left, right = torch.randn(2, size, size)
    torch.mm(left, right)
    begun = time.perf_counter()
    for _ in range(3):
        torch.mm(left, right)
    return 3 * size**3 / (time.perf_counter() - begun)


def measure_gram(updates: list[Update], operations: float) -> dict[str, Any]:
    """Time the Gram matrix and check it on pairs."""
    before = matmul_rate()
    begun = time.perf_counter()
    found = gram(updates, operations=operations, progress=True)
    seconds = time.perf_counter() - begun
    rate = (before + matmul_rate()) / 2
    some = updates[:6]
    exact = products(some, some)
    norms = exact.diagonal().sqrt()
    errors = ((found.products[:6, :6] - exact) / norms[:, None] / norms).fill_diagonal_(0)
    assert float(errors.abs().max()) < max(5 * found.error, 1e-5), errors
    return {
        "models": len(updates),
        "seconds": seconds,
        "sketch": found.sketch,
        "error_stated": found.error,
        "error_of_15_pairs": float(errors.square().sum().div(30).sqrt()),
        "multiply_adds": found.operations,
        "of_matmul": found.operations / rate / seconds,
        "matmul_gmac_per_second": rate / 1e9,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def measure_merge(updates: list[Update], layers: int) -> dict[str, Any]:
    """Time the merge of two LoRAs on some layers, and svd_merge_lora's way next to it."""
    names = [module.name for module in updates[0].layout.modules[:layers]]
    layout = WeightLayout(updates[0].layout.modules[:layers], RANK, float(RANK))
    pair = [Update(u.name, layout, {n: u.factors[n] for n in names}) for u in updates[:2]]
    begun = time.perf_counter()
    into, weights, _ = sum_updates(pair, torch.tensor([[0.7, 0.5]]), RANK)
    ours = time.perf_counter() - begun
    begun, worst = time.perf_counter(), 0.0
    for module, A, B in into.slices():
        whole = sum(
            factor * u.factors[module.name][1].float() @ u.factors[module.name][0].float()
            for factor, u in zip((0.7, 0.5), pair, strict=True)
        )
        left, values, right = torch.linalg.svd(whole)
        kept = left[:, :RANK] * values[:RANK] @ right[:RANK]
        near = weights[0, B].view(-1, RANK) @ weights[0, A].view(RANK, -1)
        worst = max(worst, float((near - kept).norm() / kept.norm()))
    theirs = time.perf_counter() - begun
    assert worst < 1e-3, worst
    return {
        "layers": layers,
        "ours_seconds": ours,
        "full_svd_seconds": theirs,
        "times_faster": theirs / ours,
        "largest_difference": worst,
    }


def main() -> None:
    """Measure and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--small", action="store_true", help="few models and layers, no file")
    parser.add_argument("--models", type=int, default=1000)
    parser.add_argument("--operations", type=float, default=1e14)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    count, blocks = (20, 2) if arguments.small else (arguments.models, 70)
    operations = 1e9 if arguments.small else arguments.operations
    layout = WeightLayout(sdxl_modules(blocks), RANK, float(RANK))
    updates = random_loras(count, layout)
    figures = {
        "rank": RANK,
        "layers": len(layout.modules),
        "gram": measure_gram(updates, operations),
        "merge": measure_merge(updates, 2 if arguments.small else 4),
        "cpu": platform.processor() or platform.machine(),
        "threads": arguments.threads,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "torch": torch.__version__,
    }
    text = json.dumps(figures, indent=2)
    print(text)
    if not arguments.small:
        RESULTS.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
