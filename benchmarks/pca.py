"""Measure how fast, how small and how exact the streamed PCA is.

    python benchmarks/pca.py --small     # a minute
    python benchmarks/pca.py --paper     # 64,974 × 99,648, 1,000 components; 13 GB of disk
    python benchmarks/pca.py --peers     # 8,192 × 99,648, 256 components, with peers; needs dask

The matrix is a dataset of float16 models whose correlation matrix has *known* eigenvalues, a power
law above a floor of noise: row i is Σ_k a_k cos(2π(k j / d − f_k i / N) + φ_k), waves whose row and
column frequencies are all distinct, which makes them orthogonal on both sides. Columns then get
random means and scales, which standardising must remove. So the best possible captured variance is
known without solving anything.

Every method runs in a process of its own, on the same files, and reports its wall time and its
peak resident memory. The captured variance is then measured in the same way for all, by a pass over
the data. `of_matmul` is the time that our matrix products would take at the rate of this machine's
`torch.mm` in the same run (each in its dtype), divided by the time taken: `passes` for the products
alone, `whole` for everything.
"""

import argparse
import json
import math
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

PAPER = {"rows": 64_974, "columns": 99_648, "components": 1000}
PEERS = {"rows": 8_192, "columns": 99_648, "components": 256}
SMALL = {"rows": 5_000, "columns": 6_000, "components": 60}

METHODS = {
    "ours": "weights2weights, streamed",
    "sklearn": "scikit-learn PCA(svd_solver='randomized'), in memory",
    "incremental": "scikit-learn IncrementalPCA, streamed",
    "dask": "dask svd_compressed, out of core",
    "lowrank": "torch.pca_lowrank, in memory",
}


# The matrix.


def spectrum(rows: int, columns: int) -> Tensor:
    """Eigenvalues of the correlation matrix, one per pair of equals: 70 % power law, 30 % noise."""
    pairs = min((rows - 1) // 2, (columns - 1) // 2)
    order = torch.arange(1, pairs + 1, dtype=torch.float64)
    edge = (1 + math.sqrt(pairs * 2 / columns) * torch.cos(math.pi * (order - 0.5) / pairs)) ** 2
    law = 1 / order
    return 0.7 * law / law.sum() + 0.3 * edge / edge.sum()


def best_captured(rows: int, columns: int, components: int) -> float:
    """What the best components capture."""
    pairs = spectrum(rows, columns)
    return float(pairs[: components // 2].sum() + components % 2 * pairs[components // 2] / 2)


def layout(columns: int) -> Any:
    """The layout of the paper, or any layout of that many parameters."""
    from weights2weights.layout import LoRAModule, WeightLayout

    if columns != PAPER["columns"]:
        return WeightLayout(
            (LoRAModule("attn1.to_q", columns // 2, columns - columns // 2),), 1, 27
        )
    widths = {"down_blocks.0": (320, 2), "down_blocks.1": (640, 2), "down_blocks.2": (1280, 2)}
    widths |= {"mid_block": (1280, 1)}
    widths |= {"up_blocks.1": (1280, 3), "up_blocks.2": (640, 3), "up_blocks.3": (320, 3)}
    modules = [
        LoRAModule(
            f"{block}.attentions.{number}.transformer_blocks.0.{part}",
            768 if part == "attn2.to_v" else width,
            width,
        )
        for block, (width, count) in widths.items()
        for number in range(count)
        for part in ("attn1.to_q", "attn1.to_v", "attn2.to_q", "attn2.to_v")
    ]
    return WeightLayout(tuple(modules), 1, 27)


def make(folder: Path, rows: int, columns: int, seed: int = 0) -> None:
    """Write the dataset, a few hundred rows at a time; resume an unfinished one."""
    from weights2weights.dataset import WeightDataset

    names = [f"{row:06d}" for row in range(rows)]
    dataset = WeightDataset.create(folder, layout(columns))
    generator = torch.Generator().manual_seed(seed)
    amplitudes = spectrum(rows, columns).sqrt().float()
    pairs = len(amplitudes)
    frequencies = torch.randperm((rows - 1) // 2, generator=generator)[:pairs] + 1
    places = torch.randperm((columns - 1) // 2, generator=generator)[:pairs] + 1
    phases = torch.exp(2j * math.pi * torch.rand(pairs, generator=generator))
    heights = amplitudes * phases
    circle = torch.exp(-2j * math.pi * torch.arange(rows, dtype=torch.float64) / rows)
    circle = circle.to(torch.complex64)
    std = 0.01 * torch.randn(columns, generator=generator).div(2).exp()
    mean = std * torch.randn(columns, generator=generator)
    scale = std * columns / math.sqrt(2)

    start, height = time.perf_counter(), max(1, (64 << 20) // (2 * columns))  # a shard
    stored = len(dataset)
    for first in range(stored, rows, height):
        indices = torch.arange(first, min(first + height, rows))
        turns = circle[(indices[:, None] * frequencies) % rows]
        waves = torch.zeros(len(indices), columns // 2 + 1, dtype=torch.complex64)
        waves[:, places] = turns * heights
        block = torch.fft.irfft(waves, n=columns).mul_(scale).add_(mean)
        for name, row in zip(names[first:], block.half(), strict=False):
            dataset.write(name, row)
        done = first + len(indices)
        rate = (done - stored) / (time.perf_counter() - start)
        print(f"\rmade {done:,} of {rows:,} rows, {rate:.0f} a second ", end="", file=sys.stderr)
    print(file=sys.stderr)


# The methods, each in a process of its own.


def matmul_rate(dtype: torch.dtype, seconds: float = 2.0) -> float:
    """Operations per second of torch.mm on square matrices: the best of many."""
    one, other = (torch.randn(4096, 4096).to(dtype) for _ in range(2))
    best, until = math.inf, time.perf_counter() + seconds
    while time.perf_counter() < until or best == math.inf:
        start = time.perf_counter()
        one @ other
        best = min(best, time.perf_counter() - start)
    return 2 * 4096**3 / best


def run_ours(dataset: Any, components: int, facts: dict[str, Any]) -> Tensor:
    from weights2weights.pca import fit_pca
    from weights2weights.pca._matrix import StandardisedMatrix

    spent = {torch.float32: [0.0, 0.0], torch.bfloat16: [0.0, 0.0]}  # seconds, operations
    product = StandardisedMatrix.product

    def timed(matrix: Any, directions: Tensor) -> Tensor:
        start = time.perf_counter()
        result = product(matrix, directions)
        entry = spent[directions.dtype]
        entry[0] += time.perf_counter() - start
        entry[1] += 4.0 * matrix.rows * directions.numel()
        print(f"  pass in {time.perf_counter() - start:.1f} s", file=sys.stderr)
        return result

    StandardisedMatrix.product = timed
    rates = {dtype: matmul_rate(dtype) for dtype in spent}
    start = time.perf_counter()
    blocks = dataset.blocks(
        max(2**22 // dataset.layout.num_parameters, 1)
    )  # as WeightSpace.fit reads them
    fitted = fit_pca(blocks, components, progress=True)
    seconds = time.perf_counter() - start
    rates = {dtype: max(rate, matmul_rate(dtype)) for dtype, rate in rates.items()}
    ideal = sum(operations / rates[dtype] for dtype, (_, operations) in spent.items())
    in_passes = sum(time for time, _ in spent.values())
    facts |= {
        "seconds": seconds,  # without the products that measured this machine
        "passes": fitted.passes,
        "reported_captured": fitted.captured_variance,
        "reported_bound": fitted.error_bound,
        "gflops": sum(operations for _, operations in spent.values()) / seconds / 1e9,
        "matmul_gflops": {str(d).removeprefix("torch."): r / 1e9 for d, r in rates.items()},
        "of_matmul": {"passes": ideal / max(in_passes, 1e-9), "whole": ideal / seconds},
    }
    return fitted.components


def standardised(dataset: Any) -> Tensor:
    """The whole matrix in memory, for methods that need it."""
    from weights2weights.pca import column_statistics

    statistics = column_statistics(dataset.blocks())
    mean, std = statistics.mean.float(), statistics.std.float()
    rows = torch.empty(len(dataset), dataset.layout.num_parameters)
    first = 0
    for block in dataset.blocks():
        torch.sub(block, mean, out=rows[first : first + len(block)]).div_(std)
        first += len(block)
    return rows


def run_sklearn(dataset: Any, components: int, facts: dict[str, Any]) -> Tensor:
    from sklearn.decomposition import PCA

    rows = standardised(dataset).numpy()
    fitted = PCA(components, svd_solver="randomized", copy=False, random_state=0).fit(rows)
    return torch.from_numpy(fitted.components_)


def run_incremental(dataset: Any, components: int, facts: dict[str, Any]) -> Tensor:
    from sklearn.decomposition import IncrementalPCA

    from weights2weights.pca import column_statistics

    statistics = column_statistics(dataset.blocks())
    mean, std = statistics.mean.float(), statistics.std.float()
    fitted = IncrementalPCA(components, copy=False)
    pending: list[Tensor] = []
    for block in dataset.blocks():
        pending.append((block - mean) / std)
        if sum(map(len, pending)) >= 2 * components:
            fitted.partial_fit(torch.cat(pending).numpy())
            pending = []
    if sum(map(len, pending)) >= components:
        fitted.partial_fit(torch.cat(pending).numpy())
    return torch.from_numpy(fitted.components_).float()


def run_dask(dataset: Any, components: int, facts: dict[str, Any]) -> Tensor:
    import dask.array as da  # type: ignore[import-not-found]
    import numpy as np

    from weights2weights.pca import column_statistics

    statistics = column_statistics(dataset.blocks())
    mean, std = statistics.mean.float(), statistics.std.float()

    def block_of(block_info: Any = None) -> Any:
        first, last = block_info[None]["array-location"][0]
        return ((dataset[slice(first, last)] - mean) / std).numpy()

    height = 512
    chunks = tuple(min(height, len(dataset) - i) for i in range(0, len(dataset), height))
    rows = da.map_blocks(
        block_of, chunks=(chunks, (dataset.layout.num_parameters,)), dtype=np.float32
    )
    _, _, directions = da.linalg.svd_compressed(
        rows, components, n_power_iter=2, compute=True, seed=0
    )
    return torch.from_numpy(np.asarray(directions.compute(), dtype=np.float32))


def run_lowrank(dataset: Any, components: int, facts: dict[str, Any]) -> Tensor:
    torch.manual_seed(0)
    return torch.pca_lowrank(standardised(dataset), components, center=False)[2].mT.contiguous()


def captured(dataset: Any, components: Tensor) -> float:
    """Fraction of the standardised variance in the span of orthonormal rows, by a pass."""
    from weights2weights.pca import column_statistics

    statistics = column_statistics(dataset.blocks())
    mean, std = statistics.mean.float(), statistics.std.float()
    total = 0.0
    for block in dataset.blocks():
        total += float((((block - mean) / std) @ components.mT).double().square().sum())
    return total / ((len(dataset) - 1) * dataset.layout.num_parameters)


def work(folder: Path, method: str, components: int) -> dict[str, Any]:
    """Run one method in this process."""
    from weights2weights.dataset import WeightDataset

    dataset = WeightDataset.open(folder)
    facts: dict[str, Any] = {"method": method}
    start = time.perf_counter()
    found = globals()[f"run_{method}"](dataset, components, facts)
    facts.setdefault("seconds", time.perf_counter() - start)
    unit = 1 if sys.platform == "darwin" else 1024
    facts["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
    facts["captured"] = captured(dataset, found)
    return facts


# The comparison.


def compare(folder: Path, methods: list[str], rows: int, columns: int, components: int) -> dict:
    """Make the matrix and run each method on it."""
    start = time.perf_counter()
    make(folder, rows, columns)
    result: dict[str, Any] = {
        "rows": rows,
        "columns": columns,
        "components": components,
        "machine": f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}",
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "made_in_seconds": time.perf_counter() - start,
        "best_captured": best_captured(rows, columns, components),
        "methods": [],
    }
    for method in methods:
        print(f"{METHODS[method]} …", file=sys.stderr)
        command = [sys.executable, __file__, "--folder", str(folder), "--work", method]
        done = subprocess.run(
            [*command, "--components", str(components)], stdout=subprocess.PIPE, text=True
        )
        facts = json.loads(done.stdout) if done.returncode == 0 else {"failed": done.returncode}
        facts = {"method": method, **facts}
        if "captured" in facts:
            facts["of_best"] = facts["captured"] / result["best_captured"]
        result["methods"].append(facts)
        print(json.dumps(facts), file=sys.stderr)
    return result


def table(result: dict[str, Any]) -> str:
    """The comparison as text."""
    lines = [
        f"{result['rows']:,} × {result['columns']:,} float16, {result['components']} components;"
        f" best possible captured variance {result['best_captured']:.4%};"
        f" {result['machine']}, {result['threads']} threads, torch {result['torch']}",
        f"{'method':12} {'seconds':>9} {'peak GB':>8} {'captured':>10} {'of best':>10}",
    ]
    for facts in result["methods"]:
        if "failed" in facts:
            lines.append(f"{facts['method']:12} failed with exit code {facts['failed']}")
            continue
        lines.append(
            f"{facts['method']:12} {facts['seconds']:9.1f} {facts['peak_gb']:8.2f}"
            f" {facts['captured']:10.4%} {facts['of_best']:10.4%}"
        )
        if "of_matmul" in facts:
            rates = ", ".join(f"{d} {rate:.0f}" for d, rate in facts["matmul_gflops"].items())
            lines.append(
                f"{'':12} {facts['passes']} passes, {facts['gflops']:.0f} GFLOP/s in all;"
                f" torch.mm here: {rates} GFLOP/s; of that"
                f" {facts['of_matmul']['passes']:.0%} in the passes,"
                f" {facts['of_matmul']['whole']:.0%} over the whole fit;"
                f" bound {facts['reported_bound']:.2e}"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--paper", action="store_true")
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--small", action="store_true")
    for name in ("rows", "columns", "components"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--methods", nargs="*", choices=METHODS, help="default: what is installed")
    parser.add_argument("--folder", type=Path, help="keep the matrix here; default: nowhere")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--work", choices=METHODS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        print(json.dumps(work(given.folder, given.work, given.components)))
        return
    size = PAPER if given.paper else PEERS if given.peers else SMALL
    size = {name: getattr(given, name) or value for name, value in size.items()}
    from importlib.util import find_spec

    needs = {"sklearn": "sklearn", "incremental": "sklearn", "dask": "dask"}
    installed = [method for method in METHODS if find_spec(needs.get(method, "torch"))]
    methods = given.methods or (["ours"] if given.paper else installed)
    with tempfile.TemporaryDirectory() as scratch:
        result = compare(given.folder or Path(scratch) / "weights", methods, **size)
    print(table(result))
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n")
    check(result)


def check(result: dict[str, Any]) -> None:
    """Exit with an error if our own method failed or violated its bound."""
    for facts in result["methods"]:
        if facts["method"] != "ours":
            continue
        if "failed" in facts:
            sys.exit(f"ours failed with exit code {facts['failed']}")
        reported, bound = facts["reported_captured"], facts["reported_bound"]
        if abs(reported - facts["captured"]) > 1e-4:
            sys.exit(f"ours reported {reported:.6f}, but captures {facts['captured']:.6f}")
        if result["best_captured"] > reported + bound + 1e-4:
            sys.exit(f"ours reported at most {reported:.6f} + {bound:.2g}, but more is possible")


if __name__ == "__main__":
    main()
